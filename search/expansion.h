#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "space/architecture.h"

namespace fusion {

/// The reference's merge: for each network of `previous` (outer loop) and each choice of a step (inner loop) the
/// network with that choice as its step number `level`, counted from 0: replaced where the network has such a step,
/// else appended. Equal results are all kept. From no networks: one-step networks at level 0; nothing at others.
std::vector<Architecture> expand(std::span<const Architecture> previous, std::span<const FusionStep> choices,
                                 std::size_t level);

}  // namespace fusion
