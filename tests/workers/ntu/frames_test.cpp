#include "workers/ntu/frames.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "base/error.h"

namespace fusion {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

/// A video of one pixel; frame i is (i + 1, 100, 200). It claims `claimed` frames and has `there`.
Video video(std::int64_t claimed, std::int64_t there) {
  return {claimed, 1, 1, [i = std::int64_t{0}, there](std::span<std::uint8_t> pixels) mutable {
            if (i == there) return false;
            pixels[0] = static_cast<std::uint8_t>(++i);
            pixels[1] = 100;
            pixels[2] = 200;
            return true;
          }};
}

/// The frames' numbers, from 1; 0 is black.
std::vector<int> kept(const Video& from, const FrameOptions& options) {
  const FrameSlots slots = load_slots(from, options, "v");
  std::vector<int> numbers;
  for (std::size_t i = options.channels == NtuRule::repaired ? 0 : 2; i < slots.pixels.size(); i += 3) numbers.push_back(slots.pixels[i]);
  return numbers;
}

TEST(FramesTest, SpreadsIndicesAsNumPyDoes) {
  EXPECT_THAT(spread_indices(23, 8), ElementsAre(0, 3, 6, 9, 13, 16, 19, 23));
  EXPECT_THAT(spread_indices(7, 8), ElementsAre(0, 1, 2, 3, 4, 5, 6, 7));
  EXPECT_THAT(spread_indices(0, 3), ElementsAre(0, 0, 0));
  EXPECT_THAT(spread_indices(9, 1), ElementsAre(0));
  EXPECT_EQ(spread_indices(46, 24)[3], 6);
}

TEST(FramesTest, KeepsFramesFromTheFirstToTheLast) {
  FrameOptions options;
  options.slots = 4;
  EXPECT_THAT(kept(video(10, 10), options), ElementsAre(1, 4, 7, 10));
  EXPECT_THAT(kept(video(2, 2), options), ElementsAre(1, 1, 1, 2));
  EXPECT_THAT(kept(video(10, 8), options), ElementsAre(1, 4, 7, 7));  // ends early: the last one again
}

TEST(FramesTest, LeavesSlotsBlackAsTheReferenceDoes) {
  FrameOptions options;
  options.slots = 4;
  options.spread = options.channels = NtuRule::reference;
  EXPECT_THAT(kept(video(9, 9), options), ElementsAre(1, 4, 7, 0));
  EXPECT_THAT(kept(video(2, 2), options), ElementsAre(1, 2, 0, 0));
  EXPECT_THAT(kept(video(9, 4), options), ElementsAre(1, 4, 0, 0));
  const FrameSlots slots = load_slots(video(9, 9), options, "v");
  EXPECT_EQ(slots.pixels[0], 200);  // blue first
}

TEST(FramesTest, RefusesVideosThatCannotBe) {
  const FrameOptions options;
  EXPECT_THAT([&] { load_slots(video(0, 0), options, "v"); }, ThrowsMessage<DataError>(HasSubstr("v: frames: expected 1 to")));
  EXPECT_THAT([&] { load_slots(video(5, 0), options, "v"); }, ThrowsMessage<DataError>(HasSubstr("v: no frame can be decoded")));
  Video wide = video(5, 5);
  wide.width = 1 << 20;
  EXPECT_THAT([&] { load_slots(wide, options, "v"); }, ThrowsMessage<DataError>(HasSubstr("v: width")));
}

TEST(FramesTest, NormalisesByChannel) {
  FrameOptions options;
  options.slots = options.frames = 1;
  const std::vector<float> input = clip_input(load_slots(video(1, 1), options, "v"), options);
  ASSERT_EQ(input.size(), 3U);
  EXPECT_FLOAT_EQ(input[0], (1 / 255.0F - 0.485F) / 0.229F);
  EXPECT_FLOAT_EQ(input[1], (100 / 255.0F - 0.456F) / 0.224F);
  EXPECT_FLOAT_EQ(input[2], (200 / 255.0F - 0.406F) / 0.225F);
}

TEST(FramesTest, CropsTowardsTheMiddleWhenAugmented) {
  FrameOptions options;
  options.slots = 24;
  options.frames = 2;
  const FrameSlots slots = load_slots(video(24, 24), options, "v");  // slot i holds i + 1
  Rng rng(9);
  std::set<int> begins;
  for (int draw = 0; draw < 200; ++draw) {
    const std::vector<float> input = clip_input(slots, options, &rng);
    const auto number = [&](std::size_t i) { return static_cast<int>(std::lround((input[i] * 0.229F + 0.485F) * 255)); };
    const int first = number(0), last = number(3), count = last - first + 1;
    EXPECT_GE(count, 12);
    EXPECT_LE(count, 24);
    EXPECT_EQ(first - 1, (24 - count) / 2);
    begins.insert(first);
  }
  EXPECT_EQ(begins.size(), 7U);  // 12 to 24 slots begin at 0 to 6
}

}  // namespace
}  // namespace fusion
