#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/random.h"

namespace fusion {

inline constexpr std::int64_t kNtuJoints = 25, kNtuBodies = 2;

/// Skeletons over time: [3, frames, 25 joints, 2 bodies], x, y and z in metres. A body's slot is its place in the frame's list, not its
/// identity; a slot without a body is zeros.
struct SkeletonClip {
  std::int64_t frames = 0;
  std::vector<float> values;

  std::size_t place(std::int64_t axis, std::int64_t frame, std::int64_t joint, std::int64_t body) const {
    return static_cast<std::size_t>(((axis * frames + frame) * kNtuJoints + joint) * kNtuBodies + body);
  }
};

/// Reads a `.skeleton` file of NTU RGB+D: a count of frames; per frame a count of bodies; per body a line of facts, a count of joints (25)
/// and a line of numbers for each joint, x, y and z first. Bodies beyond the second of a frame are dropped; NaN becomes 0, an infinity
/// the largest float. Throws DataError naming file and line where the text is anything else or ends early.
SkeletonClip read_skeleton(const std::filesystem::path& file);
/// The same for a text; `source` is its name in errors.
SkeletonClip parse_skeleton(std::string_view text, const std::string& source);

/// Takes from both bodies, frame by frame, the place of joint 1 (the middle of the spine) of the first body. A slot without a body becomes
/// minus that place, as in the reference.
void subtract_origin(SkeletonClip& clip);

/// `count` frames from `begin` on; they must be there.
SkeletonClip crop(const SkeletonClip& clip, std::int64_t begin, std::int64_t count);
/// Resizes to `frames` frames by linear interpolation between frame centres (PyTorch's bilinear without aligned corners). The clip must
/// have a frame.
SkeletonClip stretch(const SkeletonClip& clip, std::int64_t frames);

struct SkeletonOptions {
  std::int64_t window = 32;     ///< frames of the result
  bool subtract_origin = true;  ///< false: the reference's --no_norm
};

/// What the network reads of a recording, [3, window, 25, 2]: origin subtracted, resized. With `augment` (training) a run of the frames is
/// taken first: min(max(floor(T p), 64), T) of T frames, p uniform in [0.5, 1), from a random place; so 64 frames or fewer stay whole.
/// Throws DataError with `source` if the clip has no frame.
SkeletonClip skeleton_input(const SkeletonClip& clip, const SkeletonOptions& options, const std::string& source, Rng* augment = nullptr);

}  // namespace fusion
