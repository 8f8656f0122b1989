#include "workers/avmnist/idx.h"

#include "base/error.h"
#include "tests/fuzz/expect.h"
#include "tests/fuzz/memory_file.h"
#include "tests/fuzz/targets.h"

namespace fusion::fuzz {

void idx(std::string_view bytes) {
  const MemoryFile file(bytes);
  try {
    const IdxArray array = read_idx(file.path());
    std::size_t count = 1;
    for (const std::int64_t size : array.shape) count *= static_cast<std::size_t>(size);
    expect(array.data.size() == count, "an array has as many bytes as its shape says");
  } catch (const Error&) {
  }
}

}  // namespace fusion::fuzz
