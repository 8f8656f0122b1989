#include "workers/train/checkpoint.h"

#include <ATen/ops/full.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "base/error.h"
#include "tests/temporary_folder.h"
#include "tests/workers/data/small_dataset.h"

namespace fusion {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

Checkpoint checkpoint_of(int epoch) {
  return {epoch, {{"done", epoch}}, {{"b", at::full({3}, epoch)}, {"a", at::full({2, 2}, 0.5 * epoch)}}};
}

TEST(CheckpointTest, KeepsTheTwoNewestAndGivesTheNewest) {
  const testing::TemporaryFolder folder;
  const CheckpointFolder checkpoints(folder.path(), "mine");
  EXPECT_FALSE(checkpoints.newest().has_value());
  for (const int epoch : {8, 9, 10}) checkpoints.write(checkpoint_of(epoch));
  EXPECT_FALSE(std::filesystem::exists(folder / "checkpoint-8.safetensors"));
  const auto newest = checkpoints.newest();
  ASSERT_TRUE(newest.has_value());
  EXPECT_EQ(newest->epoch, 10);
  EXPECT_EQ(newest->state.at("done"), 10);
  ASSERT_EQ(newest->tensors.size(), 2U);
  EXPECT_EQ(newest->tensors[0].first, "a");
  EXPECT_TRUE(newest->tensors[0].second.equal(at::full({2, 2}, 5.0)));
}

TEST(CheckpointTest, SkipsWhatIsNotWhole) {
  const testing::TemporaryFolder folder;
  const CheckpointFolder checkpoints(folder.path(), "mine");
  checkpoints.write(checkpoint_of(1));
  checkpoints.write(checkpoint_of(2));
  const auto file = folder / "checkpoint-2.safetensors";
  testing::flip_byte(file, static_cast<std::streamoff>(std::filesystem::file_size(file)) - 2);
  EXPECT_EQ(checkpoints.newest()->epoch, 1);
  std::filesystem::resize_file(folder / "checkpoint-1.safetensors", 40);
  EXPECT_FALSE(checkpoints.newest().has_value());
}

TEST(CheckpointTest, RefusesAnotherTrainings) {
  const testing::TemporaryFolder folder;
  CheckpointFolder(folder.path(), "mine").write(checkpoint_of(1));
  EXPECT_THAT([&] { (void)CheckpointFolder(folder.path(), "yours").newest(); },
              ThrowsMessage<DataError>(HasSubstr("checkpoint of another retraining")));
}

}  // namespace
}  // namespace fusion
