#pragma once

#include <array>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>

#include "base/enum_names.h"
#include "base/json_reader.h"

namespace fusion {

/// Which trials are ended before their last epoch:
///   none   no trial
///   asha   those that fall behind at a rung (workers/dispatch/early_stopping.h)
enum class EarlyStoppingPolicy : std::uint8_t { none, asha };
template <>
struct EnumNames<EarlyStoppingPolicy> {
  static constexpr std::array<std::pair<EarlyStoppingPolicy, std::string_view>, 2> kTable{
      {{EarlyStoppingPolicy::none, "none"}, {EarlyStoppingPolicy::asha, "asha"}}};
};

/// The `early_stopping` object of a study. Off by default: the published searches train every candidate to its end, and with it
/// the set of trials that are trained to the end depends on the order in which epochs are reported.
struct EarlyStoppingOptions {
  EarlyStoppingPolicy policy = EarlyStoppingPolicy::none;
  int reduction = 3;   ///< at a rung about one in so many goes on; the next rung is so many times as many epochs away
  int min_epochs = 1;  ///< the first rung: every trial gets so many epochs
  bool operator==(const EarlyStoppingOptions&) const = default;

  static EarlyStoppingOptions read(JsonReader& reader);
  nlohmann::json to_json() const;
};

}  // namespace fusion
