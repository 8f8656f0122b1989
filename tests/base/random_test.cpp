#include "base/random.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <vector>

namespace fusion {
namespace {

// Known-answer vectors of the Random123 distribution (philox4x32-10).
TEST(PhiloxTest, MeetsTheKnownAnswers) {
  EXPECT_EQ(philox({0, 0, 0, 0}, {0, 0}), (std::array<std::uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}),
            (std::array<std::uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (std::array<std::uint32_t, 4>{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(RngTest, SameSeedAndStreamSameNumbersOthersDiffer) {
  Rng a(7, 1), b(7, 1), c(7, 2), d(8, 1);
  std::vector<std::uint64_t> va, vb, vc, vd;
  for (int i = 0; i < 100; ++i) {
    va.push_back(a.next_u64());
    vb.push_back(b.next_u64());
    vc.push_back(c.next_u64());
    vd.push_back(d.next_u64());
  }
  EXPECT_EQ(va, vb);
  EXPECT_NE(va, vc);
  EXPECT_NE(va, vd);
}

TEST(RngTest, BelowIsUniformAndInRange) {
  Rng rng(1);
  std::vector<int> counts(7, 0);
  for (int i = 0; i < 70'000; ++i) ++counts[rng.below(7)];
  for (const int count : counts) EXPECT_NEAR(count, 10'000, 500);
}

TEST(RngTest, NormalHasMeanZeroAndDeviationOne) {
  Rng rng(3);
  double sum = 0, squares = 0;
  for (int i = 0; i < 100'000; ++i) {
    const double x = rng.normal();
    sum += x;
    squares += x * x;
  }
  EXPECT_NEAR(sum / 1e5, 0, 0.02);
  EXPECT_NEAR(squares / 1e5, 1, 0.02);
}

TEST(RngTest, ShuffleKeepsEveryElement) {
  std::vector<int> values(100);
  std::iota(values.begin(), values.end(), 0);
  Rng rng(5);
  rng.shuffle(std::span<int>(values));
  EXPECT_FALSE(std::is_sorted(values.begin(), values.end()));
  std::sort(values.begin(), values.end());
  for (int i = 0; i < 100; ++i) EXPECT_EQ(values[static_cast<std::size_t>(i)], i);
}

TEST(MixTest, DependsOnEveryByte) {
  EXPECT_NE(mix_text(0, "ab"), mix_text(0, "ba"));
  EXPECT_NE(mix_text(0, "a"), mix_text(1, "a"));
  EXPECT_NE(mix(1, 2), mix(2, 1));
}

TEST(RngTest, DrawsManyAsItWouldOneByOne) {
  for (const std::size_t before : {0, 1, 3, 4}) {
    Rng one(77, 5), many(77, 5);
    for (std::size_t i = 0; i < before; ++i) EXPECT_EQ(one.next_u32(), many.next_u32());
    for (const std::size_t count : {1, 127, 128, 129, 1000, 0}) {
      std::vector<double> expected(count), drawn(count);
      for (double& x : expected) x = one.uniform();
      many.uniforms(drawn);
      EXPECT_EQ(drawn, expected) << before << " words drawn before, " << count << " numbers";
    }
    EXPECT_EQ(one.next_u64(), many.next_u64());
  }
}

}  // namespace
}  // namespace fusion
