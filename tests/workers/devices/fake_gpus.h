#pragma once

#include <cstdlib>
#include <string>

#include "base/files.h"
#include "tests/temporary_folder.h"

namespace fusion::testing {

/// What the management library of tests/workers/devices/fake_nvml.cpp says from now on. Sets the environment; one at a time.
class FakeGpus {
 public:
  explicit FakeGpus(const std::string& lines) {
    say(lines);
    ::setenv("FAKE_NVML", (folder_ / "gpus").c_str(), 1);
    ::setenv("FUSION_NVML", FAKE_NVML_LIBRARY, 1);
  }
  ~FakeGpus() {
    ::unsetenv("FAKE_NVML");
    ::unsetenv("FUSION_NVML");
    ::unsetenv("CUDA_VISIBLE_DEVICES");
  }
  void say(const std::string& lines) { write_atomically(folder_ / "gpus", lines); }

 private:
  TemporaryFolder folder_;
};

}  // namespace fusion::testing
