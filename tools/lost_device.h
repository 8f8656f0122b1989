#pragma once

#include <exception>
#include <functional>
#include <optional>
#include <string>

#include "workers/client/worker_condition.h"

namespace fusion {

/// Asked where work failed: a sentence if the device is gone, for then the work is not to blame. Empty: a device that cannot go.
using AskLost = std::function<std::optional<std::string>()>;

inline void throw_if_lost(const AskLost& lost) {
  if (const auto why = lost ? lost() : std::nullopt) throw DeviceLost(*why);
}

/// Does `work`. What it throws is thrown on, as DeviceLost if the device is gone.
template <typename Work>
void work_on_device(const AskLost& lost, Work&& work) {
  try {
    work();
  } catch (const DeviceLost&) {
    throw;
  } catch (const std::exception&) {
    throw_if_lost(lost);
    throw;
  }
}

}  // namespace fusion
