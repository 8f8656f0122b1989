#include "workers/ntu/frames.h"

#include <algorithm>

#include "base/error.h"

namespace fusion {
namespace {

constexpr std::int64_t kMaxFrames = 10'000'000, kMaxSide = 1 << 14;
constexpr float kMean[] = {0.485F, 0.456F, 0.406F};
constexpr float kDeviation[] = {0.229F, 0.224F, 0.225F};

void check(const Video& video, const FrameOptions& options, const std::string& source) {
  const auto range = [&](const char* what, std::int64_t value, std::int64_t max) {
    if (value < 1 || value > max) {
      throw DataError(source + ": " + what + ": expected 1 to " + std::to_string(max) + ", got " + std::to_string(value));
    }
  };
  range("frames", video.frames, kMaxFrames);
  range("height", video.height, kMaxSide);
  range("width", video.width, kMaxSide);
  range("slots", options.slots, 10'000);
}

/// Red and blue change places.
void swap_channels(std::span<std::uint8_t> pixels) {
  for (std::size_t i = 0; i + 2 < pixels.size(); i += 3) std::swap(pixels[i], pixels[i + 2]);
}

}  // namespace

std::vector<std::int64_t> spread_indices(std::int64_t last, std::int64_t count) {
  std::vector<std::int64_t> indices(static_cast<std::size_t>(count), 0);
  if (count < 2) return indices;
  const double step = static_cast<double>(last) / static_cast<double>(count - 1);
  for (std::int64_t i = 0; i + 1 < count; ++i) {
    indices[static_cast<std::size_t>(i)] = static_cast<std::int64_t>(static_cast<double>(i) * step);
  }
  indices.back() = last;
  return indices;
}

FrameSlots load_slots(const Video& video, const FrameOptions& options, const std::string& source) {
  check(video, options, source);
  const bool repaired = options.spread == NtuRule::repaired;
  std::vector<std::int64_t> wanted = spread_indices(repaired ? video.frames - 1 : video.frames, options.slots);
  if (!repaired) wanted.erase(std::unique(wanted.begin(), wanted.end()), wanted.end());
  const auto bytes = static_cast<std::size_t>(video.height * video.width * 3);
  const std::size_t total = bytes * static_cast<std::size_t>(options.slots);
  FrameSlots slots{options.slots, video.height, video.width, {}};
  slots.pixels.reserve(total);
  std::vector<std::uint8_t> frame(bytes);
  std::int64_t decoded = 0;
  for (std::size_t filled = 0; filled < wanted.size() && video.next(frame); ++decoded) {
    for (; filled < wanted.size() && wanted[filled] == decoded; ++filled) {
      slots.pixels.insert(slots.pixels.end(), frame.begin(), frame.end());
    }
  }
  if (slots.pixels.empty()) throw DataError(source + ": no frame can be decoded");
  if (options.channels == NtuRule::reference) swap_channels(slots.pixels);
  while (repaired && slots.pixels.size() < total) {
    const std::size_t end = slots.pixels.size();
    slots.pixels.resize(end + bytes);
    std::copy_n(slots.pixels.data() + end - bytes, bytes, slots.pixels.data() + end);
  }
  slots.pixels.resize(total, 0);
  return slots;
}

std::vector<float> clip_input(const FrameSlots& slots, const FrameOptions& options, Rng* augment) {
  std::int64_t begin = 0, count = slots.slots;
  if (augment != nullptr) {
    const double ratio = 1 - 0.5 * augment->uniform();
    count = std::max<std::int64_t>(1, static_cast<std::int64_t>(static_cast<double>(slots.slots) * ratio));
    begin = (slots.slots - count) / 2;
  }
  const std::int64_t values = slots.height * slots.width * 3;
  std::vector<float> input;
  input.reserve(static_cast<std::size_t>(values * options.frames));
  for (const std::int64_t index : spread_indices(count - 1, options.frames)) {
    const std::uint8_t* const pixels = slots.pixels.data() + (begin + index) * values;
    for (std::int64_t i = 0; i < values; ++i) {
      input.push_back((static_cast<float>(pixels[i]) / 255.0F - kMean[i % 3]) / kDeviation[i % 3]);
    }
  }
  return input;
}

}  // namespace fusion
