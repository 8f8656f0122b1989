#include "workers/train/batch_feed.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "model/dropout.h"
#include "model/torch_compat.h"
#include "tests/workers/train/splits.h"

namespace fusion {
namespace {

const Architecture kArchitecture{{FusionStep{{1, 0}}, FusionStep{{0, 1}}}};

BatchFeed::Options options() {
  BatchFeed::Options chosen;
  chosen.batch = 7;
  chosen.width = 3;
  chosen.dropout = 0.4;
  chosen.seed = 21;
  chosen.rows = 1000;
  return chosen;
}

TEST(BatchFeedTest, GivesEveryRowOnceWithItsTapsAndLabel) {
  const FeatureSplit split = test::make_split(1000, 4);
  std::map<float, std::int64_t> row_of;  // by the first number of modality 0's tap 0
  for (std::int64_t r = 0; r < split.rows; ++r) row_of[split.taps[0][0].data_ptr<float>()[3 * r]] = r;
  ASSERT_EQ(row_of.size(), 1000U);
  BatchFeed feed(split, kArchitecture, options(), c10::Device(c10::kCPU));
  feed.begin_epoch(0);
  std::set<std::int64_t> seen;
  std::vector<std::int64_t> sizes;
  while (const Batch* const batch = feed.next()) {
    sizes.push_back(batch->rows);
    ASSERT_EQ(batch->joined[0].sizes(), (std::vector<std::int64_t>{batch->rows, 5 + 4}));
    ASSERT_EQ(batch->joined[1].sizes(), (std::vector<std::int64_t>{batch->rows, 3 + 2}));
    for (std::int64_t i = 0; i < batch->rows; ++i) {
      const std::int64_t r = row_of.at(batch->joined[1][i][0].item<float>());
      EXPECT_TRUE(seen.insert(r).second);
      EXPECT_TRUE(batch->joined[0][i].narrow(0, 0, 5).equal(split.taps[0][1][r]));
      EXPECT_TRUE(batch->joined[0][i].narrow(0, 5, 4).equal(split.taps[1][0][r]));
      EXPECT_TRUE(batch->joined[1][i].narrow(0, 3, 2).equal(split.taps[1][1][r]));
      EXPECT_EQ(batch->labels[i].item<std::int64_t>(), split.labels[r].item<std::int64_t>());
    }
  }
  EXPECT_EQ(seen.size(), 1000U);
  ASSERT_EQ(sizes.size(), 143U);
  EXPECT_EQ(sizes.back(), 1000 % 7);
}

TEST(BatchFeedTest, WidensBfloat16TapsWhileItGathersThem) {
  const FeatureSplit full = test::make_split(1000, 4);
  FeatureSplit half = full, rounded = full;
  for (std::size_t m = 0; m < full.taps.size(); ++m) {
    for (std::size_t i = 0; i < full.taps[m].size(); ++i) {
      half.taps[m][i] = full.taps[m][i].to(at::kBFloat16);
      rounded.taps[m][i] = half.taps[m][i].to(at::kFloat);
    }
  }
  half.taps[1][0] = full.taps[1][0];  // one feed may read both types
  rounded.taps[1][0] = full.taps[1][0];
  BatchFeed a(half, kArchitecture, options(), c10::Device(c10::kCPU)), b(rounded, kArchitecture, options(), c10::Device(c10::kCPU));
  a.begin_epoch(0);
  b.begin_epoch(0);
  while (const Batch* const expected = b.next()) {
    const Batch* const batch = a.next();
    ASSERT_TRUE(batch);
    for (std::size_t i = 0; i < expected->joined.size(); ++i) EXPECT_TRUE(batch->joined[i].equal(expected->joined[i]));
  }
}

std::vector<std::int64_t> labels_of_epoch(BatchFeed& feed, int epoch) {
  std::vector<std::int64_t> labels;
  feed.begin_epoch(epoch);
  while (const Batch* const batch = feed.next()) {
    const auto* const values = batch->labels.data_ptr<std::int64_t>();
    labels.insert(labels.end(), values, values + batch->rows);
  }
  return labels;
}

TEST(BatchFeedTest, OrdersRowsBySeedAndEpochAlone) {
  const FeatureSplit split = test::make_split(1000, 4, 1000);
  BatchFeed a(split, kArchitecture, options(), c10::Device(c10::kCPU));
  BatchFeed b(split, Architecture{{FusionStep{{0, 0}}}}, options(), c10::Device(c10::kCPU));
  const auto first = labels_of_epoch(a, 0);
  const auto second = labels_of_epoch(a, 1);
  EXPECT_NE(first, second);
  EXPECT_EQ(labels_of_epoch(b, 1), second);
  EXPECT_EQ(labels_of_epoch(b, 0), first);
  BatchFeed::Options other_seed = options();
  other_seed.seed = 22;  // of the masks
  BatchFeed d(split, kArchitecture, other_seed, c10::Device(c10::kCPU));
  EXPECT_EQ(labels_of_epoch(d, 0), first);
  other_seed.order_seed = 1;
  BatchFeed e(split, kArchitecture, other_seed, c10::Device(c10::kCPU));
  EXPECT_NE(labels_of_epoch(e, 0), first);
  BatchFeed::Options in_order = options();
  in_order.shuffle = false;
  BatchFeed c(split, kArchitecture, in_order, c10::Device(c10::kCPU));
  const auto* const labels = split.labels.data_ptr<std::int64_t>();
  EXPECT_EQ(labels_of_epoch(c, 0), std::vector<std::int64_t>(labels, labels + 1000));
}

TEST(BatchFeedTest, ContinuesTheMasksOverBatchesAndEpochs) {
  const FeatureSplit split = test::make_split(1000, 4);
  BatchFeed feed(split, kArchitecture, options(), c10::Device(c10::kCPU));
  std::vector<float> masks;
  for (const int epoch : {0, 1}) {
    feed.begin_epoch(epoch);
    while (const Batch* const batch = feed.next()) {
      const float* const values = batch->masks[1].data_ptr<float>();
      masks.insert(masks.end(), values, values + batch->rows * 3);
    }
  }
  std::vector<float> expected(2 * 1000 * 3);
  fill_dropout_mask(expected.data(), 6000, 0, 0.4, 21, 1);
  EXPECT_EQ(masks, expected);
}

}  // namespace
}  // namespace fusion
