#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <utility>

#include "base/enum_names.h"

namespace fusion {

/// What a strategy does with an architecture that it has proposed before:
///   distinct   never proposes it again
///   reference  may propose it again, as the reference does; Proposal::replica counts
enum class Duplicates : std::uint8_t { distinct, reference };
template <>
struct EnumNames<Duplicates> {
  static constexpr std::array<std::pair<Duplicates, std::string_view>, 2> kTable{
      {{Duplicates::distinct, "distinct"}, {Duplicates::reference, "reference"}}};
};

}  // namespace fusion
