#pragma once

#include <ATen/autocast_mode.h>
#include <c10/core/Device.h>

#include "model/torch_compat.h"

namespace fusion {

/// While it lives, and if `enabled`, LibTorch's autocast is on for the device in this thread: products are computed in bfloat16, sums, losses and
/// normalisations in float32, weights stay as they are. Build it around the forward pass only.
class Autocast {
 public:
  Autocast(c10::Device device, bool enabled) : device_(device), enabled_(enabled) {
    if (!enabled_) return;
    set(true);
    at::autocast::increment_nesting();
  }
  ~Autocast() {
    if (!enabled_) return;
    if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
    set(false);
  }
  Autocast(const Autocast&) = delete;
  Autocast& operator=(const Autocast&) = delete;

 private:
  void set(bool on) {
#if TORCH_VERSION_MAJOR > 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 4)
    at::autocast::set_autocast_enabled(device_.type(), on);
    if (on) at::autocast::set_autocast_dtype(device_.type(), at::kBFloat16);
#else
    if (device_.is_cpu()) {
      at::autocast::set_cpu_enabled(on);
      if (on) at::autocast::set_autocast_cpu_dtype(at::kBFloat16);
    } else {
      at::autocast::set_enabled(on);
      if (on) at::autocast::set_autocast_gpu_dtype(at::kBFloat16);
    }
#endif
  }

  c10::Device device_;
  bool enabled_;
};

}  // namespace fusion
