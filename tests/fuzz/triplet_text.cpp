#include "base/error.h"
#include "space/architecture.h"
#include "tests/fuzz/expect.h"
#include "tests/fuzz/targets.h"

namespace fusion::fuzz {

void triplet_text(std::string_view bytes) {
  try {
    const Architecture architecture = architecture_from_text(bytes);
    expect(architecture_from_text(canonical_text(architecture)) == architecture, "the canonical text of an architecture is that architecture");
  } catch (const Error&) {
  }
}

}  // namespace fusion::fuzz
