#include "model/dropout.h"

#include <gtest/gtest.h>

#include <numeric>
#include <vector>

#include "base/random.h"
#include "model/random_streams.h"

namespace fusion {
namespace {

TEST(DropoutTest, ReadsThePhiloxStreamOfItsStep) {
  std::vector<float> mask(1000);
  fill_dropout_mask(mask.data(), 1000, 0, 0.3, 77, 2);
  Rng rng(77, random_stream(StreamKind::dropout, 2));
  for (std::size_t i = 0; i < mask.size(); ++i) {
    const bool kept = rng.next_u32() >= static_cast<std::uint32_t>(0.3 * 0x1p32);
    EXPECT_EQ(mask[i], kept ? static_cast<float>(1 / (1 - 0.3)) : 0.0F) << i;
  }
}

TEST(DropoutTest, DoesNotDependOnHowItIsCut) {
  std::vector<float> whole(2000), pieces(2000);
  fill_dropout_mask(whole.data(), 2000, 123, 0.5, 1, 0);
  std::int64_t done = 0;
  for (const std::int64_t count : {1, 2, 3, 250, 256, 257, 500, 731}) {
    fill_dropout_mask(pieces.data() + done, count, 123 + done, 0.5, 1, 0);
    done += count;
  }
  ASSERT_EQ(done, 2000);
  EXPECT_EQ(whole, pieces);
}

TEST(DropoutTest, KeepsTheShareItShouldAndTheMean) {
  for (const double p : {0.0, 0.1, 0.5, 0.9}) {
    std::vector<float> mask(200'000);
    fill_dropout_mask(mask.data(), 200'000, 0, p, 9, 1);
    const double mean = std::accumulate(mask.begin(), mask.end(), 0.0) / 200'000;
    EXPECT_NEAR(mean, 1.0, 0.03) << p;
  }
}

}  // namespace
}  // namespace fusion
