#include "workers/ntu/skeleton.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <limits>

#include "base/error.h"
#include "base/files.h"

namespace fusion {
namespace {

constexpr std::int64_t kMaxFrames = 1'000'000, kMaxBodies = 1000;
constexpr std::int64_t kShortestCrop = 64;
constexpr std::int64_t kFrameValues = 3 * kNtuJoints * kNtuBodies;

float finite(double value) {
  constexpr double kMax = std::numeric_limits<float>::max();
  return std::isnan(value) ? 0.0F : static_cast<float>(std::clamp(value, -kMax, kMax));
}

/// Gives out the lines of a text and knows where it is.
class Lines {
 public:
  Lines(std::string_view text, const std::string& source) : rest_(text), source_(source) {}

  std::string_view next(const std::string& what) {
    if (rest_.empty()) throw DataError(source_ + ": ends after line " + std::to_string(number_) + ", where " + what + " should follow");
    ++number_;
    const std::size_t end = std::min(rest_.find('\n'), rest_.size());
    std::string_view line = rest_.substr(0, end);
    rest_.remove_prefix(std::min(end + 1, rest_.size()));
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    return line;
  }

  std::int64_t count(const std::string& what, std::int64_t min, std::int64_t max) {
    const std::string_view line = trim(next(what));
    std::int64_t value = -1;
    const auto [end, error] = std::from_chars(line.data(), line.data() + line.size(), value);
    if (error != std::errc() || end != line.data() + line.size() || value < min || value > max) {
      wrong(what + (min == max ? " (" + std::to_string(min) + ")" : ", " + std::to_string(min) + " to " + std::to_string(max)), line);
    }
    return value;
  }

  [[noreturn]] void wrong(const std::string& expected, std::string_view got) const {
    const std::string shown(got.substr(0, 60));
    throw DataError(source_ + ": line " + std::to_string(number_) + ": expected " + expected + ", got \"" + shown + "\"");
  }

  static std::string_view trim(std::string_view text) {
    while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
    while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
    return text;
  }

 private:
  std::string_view rest_;
  const std::string& source_;
  std::int64_t number_ = 0;
};

bool read_number(std::string_view token, double& value) {
  if (!token.empty() && token.front() == '+') token.remove_prefix(1);
  const auto [end, error] = std::from_chars(token.data(), token.data() + token.size(), value);
  if (end != token.data() + token.size()) return false;
  if (error == std::errc::result_out_of_range) value = std::strtod(std::string(token).c_str(), nullptr);  // an infinity or nearly 0
  return error != std::errc::invalid_argument;
}

/// The first three numbers of a joint's line; every token must be a number.
void read_joint(Lines& lines, float (&xyz)[3]) {
  std::string_view line = lines.next("a joint");
  const std::string_view whole = line;
  int found = 0;
  while (!(line = Lines::trim(line)).empty()) {
    const std::size_t end = std::min(line.find_first_of(" \t"), line.size());
    double value = 0;
    if (!read_number(line.substr(0, end), value)) lines.wrong("numbers only", line.substr(0, end));
    if (found < 3) xyz[found] = finite(value);
    ++found;
    line.remove_prefix(end);
  }
  if (found < 3) lines.wrong("a joint's x, y and z", whole);
}

/// One frame's values as [3, 25, 2], appended to `frames`.
void read_frame(Lines& lines, std::vector<float>& frames) {
  const std::size_t begin = frames.size();
  frames.resize(begin + kFrameValues, 0.0F);
  const std::int64_t bodies = lines.count("a number of bodies", 0, kMaxBodies);
  for (std::int64_t body = 0; body < bodies; ++body) {
    lines.next("a body");
    lines.count("a number of joints", kNtuJoints, kNtuJoints);
    for (std::int64_t joint = 0; joint < kNtuJoints; ++joint) {
      float xyz[3] = {};
      read_joint(lines, xyz);
      if (body >= kNtuBodies) continue;
      for (std::int64_t axis = 0; axis < 3; ++axis) {
        frames[begin + static_cast<std::size_t>((axis * kNtuJoints + joint) * kNtuBodies + body)] = xyz[axis];
      }
    }
  }
}

}  // namespace

SkeletonClip parse_skeleton(std::string_view text, const std::string& source) {
  Lines lines(text, source);
  const std::int64_t count = lines.count("a number of frames", 0, kMaxFrames);
  std::vector<float> frames;  // [count, 3, 25, 2]; grows with the text, so that a wrong count costs no memory
  for (std::int64_t frame = 0; frame < count; ++frame) read_frame(lines, frames);
  SkeletonClip clip{count, std::vector<float>(frames.size())};
  constexpr std::int64_t kAxisValues = kNtuJoints * kNtuBodies;
  for (std::int64_t axis = 0; axis < 3; ++axis) {
    for (std::int64_t frame = 0; frame < count; ++frame) {
      std::copy_n(frames.begin() + frame * kFrameValues + axis * kAxisValues, kAxisValues,
                  clip.values.begin() + (axis * count + frame) * kAxisValues);
    }
  }
  return clip;
}

SkeletonClip read_skeleton(const std::filesystem::path& file) { return parse_skeleton(read_text(file), file.string()); }

void subtract_origin(SkeletonClip& clip) {
  for (std::int64_t axis = 0; axis < 3; ++axis) {
    for (std::int64_t frame = 0; frame < clip.frames; ++frame) {
      float* const values = clip.values.data() + clip.place(axis, frame, 0, 0);
      const float origin = values[1 * kNtuBodies];
      for (std::int64_t i = 0; i < kNtuJoints * kNtuBodies; ++i) values[i] -= origin;
    }
  }
}

SkeletonClip crop(const SkeletonClip& clip, std::int64_t begin, std::int64_t count) {
  SkeletonClip cut{count, std::vector<float>(static_cast<std::size_t>(count * kFrameValues))};
  for (std::int64_t axis = 0; axis < 3; ++axis) {
    const auto from = clip.values.begin() + static_cast<std::ptrdiff_t>(clip.place(axis, begin, 0, 0));
    std::copy_n(from, count * kNtuJoints * kNtuBodies, cut.values.begin() + static_cast<std::ptrdiff_t>(cut.place(axis, 0, 0, 0)));
  }
  return cut;
}

SkeletonClip stretch(const SkeletonClip& clip, std::int64_t frames) {
  SkeletonClip out{frames, std::vector<float>(static_cast<std::size_t>(frames * kFrameValues))};
  const float scale = static_cast<float>(clip.frames) / static_cast<float>(frames);
  for (std::int64_t frame = 0; frame < frames; ++frame) {
    const float at = std::max(scale * (static_cast<float>(frame) + 0.5F) - 0.5F, 0.0F);
    const std::int64_t before = std::min(static_cast<std::int64_t>(at), clip.frames - 1);
    const std::int64_t after = std::min(before + 1, clip.frames - 1);
    const float late = at - static_cast<float>(before), early = 1.0F - late;
    for (std::int64_t axis = 0; axis < 3; ++axis) {
      const float* const a = clip.values.data() + clip.place(axis, before, 0, 0);
      const float* const b = clip.values.data() + clip.place(axis, after, 0, 0);
      float* const to = out.values.data() + out.place(axis, frame, 0, 0);
      for (std::int64_t i = 0; i < kNtuJoints * kNtuBodies; ++i) to[i] = early * a[i] + late * b[i];
    }
  }
  return out;
}

SkeletonClip skeleton_input(const SkeletonClip& clip, const SkeletonOptions& options, const std::string& source, Rng* augment) {
  if (clip.frames < 1) throw DataError(source + ": has no frame");
  SkeletonClip input = clip;
  if (options.subtract_origin) subtract_origin(input);
  if (augment != nullptr) {
    const double share = augment->uniform(0.5, 1);
    const auto share_frames = static_cast<std::int64_t>(static_cast<double>(clip.frames) * share);
    const std::int64_t count = std::min(std::max(share_frames, kShortestCrop), clip.frames);
    const auto begin = static_cast<std::int64_t>(augment->below(static_cast<std::uint64_t>(clip.frames - count + 1)));
    input = crop(input, begin, count);
  }
  return stretch(input, options.window);
}

}  // namespace fusion
