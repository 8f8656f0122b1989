#include "workers/ntu/skeleton.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/error.h"

namespace fusion {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

/// A body's lines; joint j stands at (first + j, 2, 3).
std::string body(double first, const std::string& last_joint = "") {
  std::string text = "72057594037931101 0 1 1 1 1 0 0.02 -0.3 2\n25\n";
  for (int joint = 0; joint < 25; ++joint) {
    if (joint == 24 && !last_joint.empty()) {
      text += last_joint + "\n";
    } else {
      text += std::to_string(first + joint) + " 2 3 277.4 191.8 1036.8 519.1 -0.21 -0.03 0.97 0.02 2\n";
    }
  }
  return text;
}

TEST(SkeletonFileTest, PutsBodiesIntoSlotsAndDropsTheThird) {
  const SkeletonClip clip = parse_skeleton("3\n1\n" + body(10) + "0\n3\n" + body(20) + body(30) + body(40), "a");
  ASSERT_EQ(clip.frames, 3);
  ASSERT_EQ(clip.values.size(), 3U * 3 * 25 * 2);
  const auto x = [&](int frame, int joint, int slot) { return clip.values[clip.place(0, frame, joint, slot)]; };
  EXPECT_EQ(x(0, 4, 0), 14);
  EXPECT_EQ(x(0, 4, 1), 0);  // no second body
  EXPECT_EQ(x(1, 4, 0), 0);  // no body at all
  EXPECT_EQ(x(2, 4, 0), 24);
  EXPECT_EQ(x(2, 4, 1), 34);
  EXPECT_EQ(clip.values[clip.place(1, 2, 7, 1)], 2);
  EXPECT_EQ(clip.values[clip.place(2, 2, 7, 1)], 3);
}

TEST(SkeletonFileTest, MakesEveryNumberFinite) {
  const auto last = [](const std::string& line) {
    const SkeletonClip clip = parse_skeleton("1\n1\n" + body(0, line), "a");
    return std::array<float, 3>{clip.values[clip.place(0, 0, 24, 0)], clip.values[clip.place(1, 0, 24, 0)],
                                clip.values[clip.place(2, 0, 24, 0)]};
  };
  constexpr float kMax = std::numeric_limits<float>::max();
  EXPECT_THAT(last("NaN -inf Infinity"), ::testing::ElementsAre(0, -kMax, kMax));
  EXPECT_THAT(last("+1.5 1e999 -1e-999"), ::testing::ElementsAre(1.5F, kMax, 0));
  EXPECT_THAT(last("  1e39\t-2.5  .5 nan 7 \r"), ::testing::ElementsAre(kMax, -2.5F, 0.5F));
}

TEST(SkeletonFileTest, SaysWhatIsWrongWithABrokenFile) {
  const auto parsing = [](const std::string& text) {
    return [text] { parse_skeleton(text, "b.skeleton"); };
  };
  const auto says = [](const std::string& text) { return ThrowsMessage<DataError>(HasSubstr(text)); };
  EXPECT_THAT(parsing(""), says("b.skeleton: ends after line 0, where a number of frames should follow"));
  EXPECT_THAT(parsing("many\n"), says("line 1: expected a number of frames, 0 to 1000000, got \"many\""));
  EXPECT_THAT(parsing("-1\n"), says("got \"-1\""));
  EXPECT_THAT(parsing("99999999999999999999\n"), says("line 1"));
  EXPECT_THAT(parsing("1000000\n0\n"), says("ends after line 2, where a number of bodies should follow"));
  EXPECT_THAT(parsing("1\n2.5\n"), says("line 2: expected a number of bodies"));
  EXPECT_THAT(parsing("1\n1\n"), says("where a body should follow"));
  EXPECT_THAT(parsing("1\n1\nx\n24\n"), says("line 4: expected a number of joints (25), got \"24\""));
  EXPECT_THAT(parsing("1\n1\n" + body(0, "1 2")), says("line 29: expected a joint's x, y and z, got \"1 2\""));
  EXPECT_THAT(parsing("1\n1\n" + body(0, "1 2 3 four 5")), says("line 29: expected numbers only, got \"four\""));
  EXPECT_THAT(parsing("1\n1\n" + body(0, "1 2 3e")), says("got \"3e\""));
  EXPECT_THAT(parsing("1\n1\n" + body(0, "1 2 --3")), says("got \"--3\""));
  EXPECT_THAT(parsing("1\n3\n" + body(0) + body(1)), says("where a body should follow"));
  EXPECT_THAT([] { read_skeleton("/none.skeleton"); }, says("/none.skeleton"));
}

TEST(SkeletonFileTest, EndsEveryTruncatedOrGarbledFileInASentence) {
  const std::string whole = "2\n1\n" + body(1) + "2\n" + body(2) + body(3);
  for (std::size_t length = 0; length + 2 < whole.size(); length += 7) {
    try {
      parse_skeleton(whole.substr(0, length), "cut");
      // The last line alone may be cut and still be numbers.
      EXPECT_GT(length, whole.size() - 80);
    } catch (const DataError&) {
    }
  }
  Rng rng(5);
  for (int round = 0; round < 300; ++round) {
    std::string garbled = whole;
    for (int i = 0; i < 3; ++i) garbled[rng.below(garbled.size())] = static_cast<char>(rng.below(256));
    try {
      const SkeletonClip clip = parse_skeleton(garbled, "garbled");
      for (const float value : clip.values) ASSERT_TRUE(std::isfinite(value));
    } catch (const DataError&) {
    }
  }
}

TEST(SkeletonTest, SubtractsTheFirstBodysSpineFromBoth) {
  SkeletonClip clip = parse_skeleton("2\n1\n" + body(10) + "2\n" + body(20) + body(30), "a");
  subtract_origin(clip);
  const auto x = [&](int frame, int joint, int slot) { return clip.values[clip.place(0, frame, joint, slot)]; };
  EXPECT_EQ(x(0, 1, 0), 0);
  EXPECT_EQ(x(0, 4, 0), 3);
  EXPECT_EQ(x(0, 4, 1), -11);  // nobody there
  EXPECT_EQ(x(1, 4, 1), 34 - 21);
}

/// x of every joint is the frame's number.
SkeletonClip ramp(std::int64_t frames) {
  SkeletonClip clip{frames, std::vector<float>(static_cast<std::size_t>(3 * frames * 50))};
  for (std::int64_t frame = 0; frame < frames; ++frame) {
    for (std::int64_t joint = 0; joint < 25; ++joint) clip.values[clip.place(0, frame, joint, 0)] = static_cast<float>(frame);
  }
  return clip;
}

TEST(SkeletonTest, StretchesBetweenFrameCentres) {
  const auto times = [](std::int64_t from, std::int64_t to) {
    const SkeletonClip clip = stretch(ramp(from), to);
    std::vector<float> out;
    for (std::int64_t frame = 0; frame < to; ++frame) out.push_back(clip.values[clip.place(0, frame, 24, 0)]);
    return out;
  };
  EXPECT_THAT(times(2, 4), ::testing::ElementsAre(0, 0.25F, 0.75F, 1));
  EXPECT_THAT(times(4, 2), ::testing::ElementsAre(0.5F, 2.5F));
  EXPECT_THAT(times(1, 3), ::testing::ElementsAre(0, 0, 0));
  EXPECT_THAT(times(3, 3), ::testing::ElementsAre(0, 1, 2));
}

TEST(SkeletonTest, CropsLongClipsWhenAugmented) {
  EXPECT_EQ(crop(ramp(10), 3, 4).values[crop(ramp(10), 3, 4).place(0, 3, 5, 0)], 6);
  Rng rng(3);
  const SkeletonOptions options{32, false};
  const auto input = [&](std::int64_t frames) { return skeleton_input(ramp(frames), options, "a", &rng); };
  EXPECT_EQ(input(64).values, stretch(ramp(64), 32).values);
  float first = 1e9F, last = 0;
  for (int draw = 0; draw < 200; ++draw) {
    const SkeletonClip clip = input(200);
    const float begin = clip.values[clip.place(0, 0, 0, 0)], end = clip.values[clip.place(0, 31, 0, 0)];
    EXPECT_GE(end - begin, 100.0F * 31 / 32 - 1);
    first = std::min(first, begin);
    last = std::max(last, end);
  }
  EXPECT_LT(first, 10);
  EXPECT_GT(last, 190);
  EXPECT_THAT([&] { skeleton_input(SkeletonClip{}, options, "empty"); }, ThrowsMessage<DataError>(HasSubstr("empty: has no frame")));
}

}  // namespace
}  // namespace fusion
