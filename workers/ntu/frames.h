#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/enum_names.h"
#include "base/random.h"

namespace fusion {

/// Whether a clip is read as it should be or as the authors' code reads it.
enum class NtuRule : std::uint8_t { repaired, reference };
template <>
struct EnumNames<NtuRule> {
  static constexpr std::array<std::pair<NtuRule, std::string_view>, 2> kTable{
      {{NtuRule::repaired, "repaired"}, {NtuRule::reference, "reference"}}};
};

/// A decoder's video: `next` writes the next frame, height x width x 3 bytes, red first, and returns whether there was one. Decoding
/// itself is the caller's.
struct Video {
  std::int64_t frames = 0, height = 0, width = 0;  ///< as the file says
  std::function<bool(std::span<std::uint8_t>)> next;
};

struct FrameOptions {
  std::int64_t slots = 24;  ///< frames kept of a video
  std::int64_t frames = 8;  ///< T, of those that the network reads
  /// repaired: slots spread over the L frames from the first to the last; where L is smaller, frames repeat. reference: over 0 to L,
  /// which never comes, and a frame fills one slot only, so the last slot and with short videos more stay black.
  NtuRule spread = NtuRule::repaired;
  /// repaired: red first, as mean and deviation are meant. reference: blue first, with red's mean and deviation for blue.
  NtuRule channels = NtuRule::repaired;
};

/// trunc(i * last / (count - 1)), i = 0 .. count - 1, as NumPy's linspace: [0] if count is 1.
std::vector<std::int64_t> spread_indices(std::int64_t last, std::int64_t count);

/// Frames kept of a video: [slots, height, width, 3] bytes.
struct FrameSlots {
  std::int64_t slots = 0, height = 0, width = 0;
  std::vector<std::uint8_t> pixels;
};

/// Reads the video to its end or to the last frame wanted. Where it ends before the frame count it claims, the last frame is repeated
/// (repaired) or slots stay black (reference). Throws DataError with `source` if sizes are out of range or no frame comes.
FrameSlots load_slots(const Video& video, const FrameOptions& options, const std::string& source);

/// What the network reads of the slots, [frames, height, width, 3]: (value / 255 - mean) / deviation with ImageNet's mean (.485, .456,
/// .406) and deviation (.229, .224, .225). With `augment` (training) from the middle floor(slots * r) slots, r uniform in (0.5, 1].
std::vector<float> clip_input(const FrameSlots& slots, const FrameOptions& options, Rng* augment = nullptr);

}  // namespace fusion
