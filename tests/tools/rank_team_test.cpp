// Retraining in several processes of the real fusion-rank, which are killed, stopped and starved of memory.
#include "tools/rank_team.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/ones.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <torch/csrc/jit/api/module.h>
#include <unistd.h>

#include <system_error>
#include <thread>

#include "model/tensor_io.h"
#include "tests/end_to_end/process.h"
#include "tests/end_to_end/rank_processes.h"
#include "tests/workers/train/small_retraining.h"

namespace fusion {
namespace {

using testing::rank_processes;
using testing::SmallRetraining;
using ::testing::AllOf;
using ::testing::HasSubstr;

/// What a retraining told.
struct Course {
  RetrainingOutcome outcome;
  std::vector<RetrainingEpoch> epochs;
};

using AfterEpoch = std::function<void(int epoch)>;

RankTeamOptions team_of(std::size_t processes) {
  RankTeamOptions options;
  options.program = testing::program("fusion-rank");
  options.devices.assign(processes, "cpu");
  return options;
}

Course retrain_in(const RankTeamOptions& given, const RetrainingJob& job, const AfterEpoch& after = {}) {
  RankTeamOptions options = given;
  Course course;
  options.on_epoch = [&](const RetrainingEpoch& epoch) {
    course.epochs.push_back(epoch);
    if (after) after(epoch.epoch);
  };
  course.outcome = retrain_with_ranks(job, options);
  EXPECT_TRUE(rank_processes(::getpid()).empty()) << "no process may stay";
  return course;
}

Course retrain_alone(const RetrainingJob& job) {
  Course course;
  RetrainContext context;
  context.on_epoch = [&](const RetrainingEpoch& epoch) { course.epochs.push_back(epoch); };
  course.outcome = retrain(job, context);
  return course;
}

void expect_same_course(const Course& one, const Course& other) {
  ASSERT_EQ(one.outcome.outcome, Outcome::completed) << one.outcome.error;
  ASSERT_EQ(other.outcome.outcome, Outcome::completed) << other.outcome.error;
  ASSERT_EQ(one.epochs.size(), other.epochs.size());
  for (std::size_t i = 0; i < one.epochs.size(); ++i) {
    EXPECT_NEAR(one.epochs[i].train_loss, other.epochs[i].train_loss, 1e-4) << "epoch " << i + 1;
    EXPECT_NEAR(one.epochs[i].dev_loss, other.epochs[i].dev_loss, 1e-4) << "epoch " << i + 1;
  }
}

void expect_same_weights(const RetrainingJob& one, const RetrainingJob& other) {
  const auto a = SafetensorsFile::open(std::filesystem::path(one.folder) / "model.safetensors");
  const auto b = SafetensorsFile::open(std::filesystem::path(other.folder) / "model.safetensors");
  for (const auto& [name, view] : a.tensors()) {
    if (view.dtype != DType::f32) continue;
    EXPECT_TRUE(copy_tensor(a.at(name)).allclose(copy_tensor(b.at(name)), 1e-3, 1e-4)) << name;
  }
}

TEST(RankTeamTest, TwoProcessesRetrainAsOneAndExportTheModel) {
  const SmallRetraining small;
  RetrainingOptions options = SmallRetraining::options(HeadKind::mmtm);
  options.batchnorm = true;
  options.processes = 2;
  const RetrainingJob alone = small.job(options, "alone"), job = small.job(options, "team");
  const Course one = retrain_alone(alone);
  RankTeamOptions team = team_of(2);
  int told = 0;
  team.on_progress = [&](const RetrainingProgress& progress) { told += progress.of_rows == 40 ? 1 : 0; };
  const Course two = retrain_in(team, job);
  expect_same_course(one, two);
  expect_same_weights(alone, job);
  EXPECT_GT(told, 0);
  ASSERT_TRUE(two.outcome.score);
  EXPECT_EQ(two.outcome.score->artifacts.size(), 3U);
  EXPECT_EQ(two.outcome.score->artifacts.at(1).name, "model.pt");
}

TEST(RankTeamTest, AProcessThatIsKilledAmidAnEpochEndsTheAttemptWhichGoesOn) {
  const SmallRetraining small;
  RetrainingOptions options = SmallRetraining::options();
  options.fusion_epochs = 2;
  options.epochs = 18;
  options.batch = 8;
  const RetrainingJob undisturbed = small.job(options, "undisturbed"), killed = small.job(options, "killed");
  const Course whole = retrain_in(team_of(2), undisturbed);
  for (const auto& [rank, after_epoch] : {std::pair<std::size_t, int>{1, 3}, {0, 6}}) {
    const Course part = retrain_in(team_of(2), killed, [&, rank = rank, after_epoch = after_epoch](int epoch) {
      if (epoch != after_epoch) return;
      ::usleep(2000);  // into the next epoch
      ::kill(rank_processes(::getpid()).at(rank), SIGKILL);
    });
    EXPECT_EQ(part.outcome.outcome, Outcome::preempted);
    EXPECT_THAT(part.outcome.error, AllOf(HasSubstr("process " + std::to_string(rank + 1) + " of 2 (cpu) ended with signal 9 in epoch "),
                                          HasSubstr("goes on behind epoch ")));
    EXPECT_FALSE(part.outcome.score);
  }
  const Course last = retrain_in(team_of(3), killed);
  ASSERT_EQ(last.outcome.outcome, Outcome::completed) << last.outcome.error;
  EXPECT_GE(last.epochs.front().epoch, 6);
  EXPECT_NEAR(last.epochs.back().train_loss, whole.epochs.back().train_loss, 1e-4);
  expect_same_weights(undisturbed, killed);
}

TEST(RankTeamTest, AnAttemptThatGainedNothingFailed) {
  const SmallRetraining small;
  const RetrainingJob job = small.job(SmallRetraining::options(), "dying");
  std::jthread killer([](const std::stop_token& stop) {
    std::vector<pid_t> ranks;
    while (ranks.empty() && !stop.stop_requested()) ranks = rank_processes(::getpid());
    for (const pid_t rank : ranks) ::kill(rank, SIGKILL);
  });
  const Course course = retrain_in(team_of(2), job);
  EXPECT_EQ(course.outcome.outcome, Outcome::failed);
  EXPECT_THAT(course.outcome.error, AllOf(HasSubstr("signal 9 in epoch 1 of 4"), HasSubstr("the retraining begins again")));
}

TEST(RankTeamTest, AProcessThatIsSilentIsNotWaitedForForEver) {
  const SmallRetraining small;
  RetrainingOptions options = SmallRetraining::options();
  options.epochs = 200;
  RankTeamOptions team = team_of(2);
  team.timeout = std::chrono::seconds(10);
  const Course course = retrain_in(team, small.job(options, "silent"), [](int epoch) {
    if (epoch == 2) ::kill(rank_processes(::getpid()).at(1), SIGSTOP);
  });
  EXPECT_EQ(course.outcome.outcome, Outcome::preempted);
  EXPECT_THAT(course.outcome.error, AllOf(HasSubstr("rank 0 of 2 could not hear from the others"), HasSubstr("goes on behind epoch ")));
}

TEST(RankTeamTest, IsHandedBackBehindAnEpochAndDeafToSignals) {
  const SmallRetraining small;
  const RetrainingJob job = small.job(SmallRetraining::options(), "handed-back");
  std::stop_source hand_back;
  RankTeamOptions team = team_of(2);
  team.hand_back = hand_back.get_token();
  RetrainingJob longer = job;
  longer.options.epochs = 500;
  const Course course = retrain_in(team, longer, [&](int epoch) {
    if (epoch != 1) return;
    for (const pid_t rank : rank_processes(::getpid())) ::kill(rank, SIGTERM);
    hand_back.request_stop();
  });
  EXPECT_EQ(course.outcome.outcome, Outcome::preempted);
  EXPECT_THAT(course.outcome.error, AllOf(HasSubstr("was handed back; it goes on behind epoch " + std::to_string(course.epochs.back().epoch))));
}

TEST(RankTeamTest, IsCancelled) {
  const SmallRetraining small;
  RetrainingOptions options = SmallRetraining::options();
  options.epochs = 500;
  std::stop_source cancel;
  RankTeamOptions team = team_of(2);
  team.cancel = cancel.get_token();
  const Course course = retrain_in(team, small.job(options, "cancelled"), [&](int epoch) {
    if (epoch == 2) cancel.request_stop();
  });
  EXPECT_EQ(course.outcome.outcome, Outcome::cancelled);
  EXPECT_THAT(course.outcome.error, HasSubstr("was cancelled in epoch "));
}

/// A backbone for "dots" with a statement of its own, which knows `x` and `self.training`.
std::filesystem::path save_backbone(const std::filesystem::path& file, const std::string& statement) {
  torch::jit::Module module("Net");
  module.register_parameter("weight", at::ones({1}), false);
  module.register_attribute("training", c10::BoolType::get(), true);
  module.define(
      "def forward(self, x: Tensor) -> Dict[str, Tensor]:\n"
      "    " + statement + "\n"
      "    h = x * self.weight\n"
      "    return {\"a\": h.repeat([1, 4, 1, 1]), \"b\": h, \"logits\": h.mean([2, 3]).repeat([1, 3])}\n");
  module.save(file.string());
  return file;
}

TEST(RankTeamTest, WhatOneProcessSaysIsWrongIsTheReason) {
  SmallRetraining small;
  small.extract({{"dots", save_backbone(small.data.folder / "lost.pt", "x = x * float(\"nan\") if self.training else x")}});
  const Course lost = retrain_in(team_of(2), small.job(SmallRetraining::options(), "lost"));
  EXPECT_EQ(lost.outcome.outcome, Outcome::failed);
  EXPECT_THAT(lost.outcome.error, AllOf(HasSubstr("the training loss became"), HasSubstr("in epoch 2"), HasSubstr("eta_max")));
  RetrainingJob job = small.job(SmallRetraining::options(), "changed");
  job.dataset_digest = std::string(64, '0');
  const Course changed = retrain_in(team_of(2), job);
  EXPECT_EQ(changed.outcome.outcome, Outcome::failed);
  EXPECT_THAT(changed.outcome.error, HasSubstr("features.json"));
}

TEST(RankTeamTest, AllBeginAgainWithFewerRowsWhereMemoryRunsOut) {
  SmallRetraining small;
  // More than five rows are too many for a process while it trains.
  small.extract({{"dots", save_backbone(small.data.folder / "hungry.pt", "assert not (self.training and x.size(0) > 5), \"CUDA out of memory\"")}});
  const Course course = retrain_in(team_of(2), small.job(SmallRetraining::options(), "halved"));
  ASSERT_EQ(course.outcome.outcome, Outcome::completed) << course.outcome.error;
  EXPECT_EQ(course.outcome.score->batch, 8) << "two processes with four rows each";
}

TEST(RankTeamTest, AProgramThatIsNotThereIsNamed) {
  const SmallRetraining small;
  RankTeamOptions team = team_of(2);
  team.program = "/absent/fusion-rank";
  try {
    retrain_with_ranks(small.job(SmallRetraining::options(), "absent"), team);
    FAIL();
  } catch (const std::system_error& error) {
    EXPECT_THAT(error.what(), HasSubstr("/absent/fusion-rank"));
  }
}

TEST(RankTeamTest, TheProgramSaysWhatItIsForWhenAPersonStartsIt) {
  const testing::Finished finished = testing::run({testing::program("fusion-rank")}, {std::filesystem::temp_directory_path(), {}});
  EXPECT_EQ(finished.status, 2);
  EXPECT_THAT(finished.err, HasSubstr("is started by fusion-worker"));
}

}  // namespace
}  // namespace fusion
