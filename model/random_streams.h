#pragma once

#include <cstdint>

namespace fusion {

/// The random streams that come from one trial's seed (base/random.h: sequence = f(seed, stream)). They never touch each other, so
/// another number of steps or epochs changes nothing else. Changing a number changes every score.
enum class StreamKind : std::uint32_t {
  weights = 1,  ///< index: the fusion step; the classifier comes after the last possible step
  alphas = 2,   ///< index: the fusion step
  order = 3,    ///< index: the epoch
  dropout = 4,  ///< index: the fusion step
  backbone = 5,  ///< index: the layer
  gates = 6      ///< index: the squeeze, then the gates of an MMTM
};

/// The first index of the streams of weights and of dropout that belong to a temporal head (model/head_pass.h); those below belong to
/// fusion steps.
inline constexpr std::uint32_t kHeadStreams = 1U << 16;

constexpr std::uint64_t random_stream(StreamKind kind, std::uint32_t index) {
  return (static_cast<std::uint64_t>(kind) << 32) | index;
}

}  // namespace fusion
