#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "tests/fuzz/expect.h"
#include "tests/fuzz/memory_file.h"
#include "tests/fuzz/targets.h"
#include "workers/avmnist/sound.h"

namespace fusion::fuzz {

void wav(std::string_view bytes) {
  const MemoryFile file(bytes);
  try {
    const Sound sound = read_sound(file.path());
    expect(sound.rate > 0 && !sound.samples.empty(), "a sound has a rate and samples");
    expect(std::ranges::all_of(sound.samples, [](float x) { return std::isfinite(x); }), "samples are finite numbers");
  } catch (const Error&) {
  }
}

}  // namespace fusion::fuzz
