// fusionctl retrain --gpus 2, through the real daemon and worker; a process is killed amid it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include "base/clock.h"
#include "base/files.h"
#include "store/store.h"
#include "tests/end_to_end/found_trial.h"
#include "tests/end_to_end/rank_processes.h"
#include "tests/end_to_end/system.h"

namespace fusion {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr std::size_t kEpochs = 41;  // of both phases

class ParallelRetrainingTest : public testing::FoundTrialTest {
 protected:
  ParallelRetrainingTest() { system.start(1, {{"--lease-s", "20"}}); }
  std::int64_t retrain(const std::vector<std::string>& more) {
    std::vector<std::string> options{"--finetune", "none", "--batchnorm", "true", "--width", "32", "--epochs", std::to_string(kEpochs - 1)};
    options.insert(options.end(), more.begin(), more.end());
    return FoundTrialTest::retrain(options);
  }
  /// Of the last attempt that trained it.
  json losses(std::int64_t id) {
    return system.sql("select train_loss, dev_loss from retraining_epochs as e where retraining_id = " + std::to_string(id) +
                      " and attempt = (select max(attempt) from retraining_epochs where retraining_id = e.retraining_id and epoch = e.epoch)"
                      " order by epoch");
  }
  /// As if an earlier worker on this kind of device had needed two hours for each of many epochs. No daemon may be running.
  void put_slow_epochs(std::int64_t id) {
    SystemClock clock;
    Store store = Store::open((system.folder() / "fusion.db").string(), clock);
    const int done = store.retraining(RetrainingId{id})->job.attempt;
    for (int epoch = 4000; epoch < 4009; ++epoch) {
      ASSERT_TRUE(store.add_retraining_epoch(RetrainingId{id}, done, {epoch, 2, 0.5, 0.5, 0.5, 1e-3, 7200, 1}));
    }
  }
  void expect_same_course(std::int64_t one, std::int64_t other) {
    const json a = losses(one), b = losses(other);
    ASSERT_EQ(a.size(), kEpochs);
    ASSERT_EQ(b.size(), kEpochs);
    for (std::size_t i = 0; i < kEpochs; ++i) {
      EXPECT_NEAR(a[i][0].get<double>(), b[i][0].get<double>(), 1e-3) << "train loss of epoch " << i + 1;
      EXPECT_NEAR(a[i][1].get<double>(), b[i][1].get<double>(), 1e-3) << "dev loss of epoch " << i + 1;
    }
  }
};

TEST_F(ParallelRetrainingTest, TwoProcessesOneOfThemKilledGiveTheCourseOfOne) {
  const std::int64_t alone = retrain({});
  wait_for_completion(alone, std::chrono::minutes(8));
  const std::int64_t two = retrain({"--gpus", "2"});
  wait_for_epoch(two, 3);
  const std::vector<pid_t> ranks = testing::rank_processes(system.daemon().pid());
  ASSERT_EQ(ranks.size(), 2U) << "the retraining must not have ended by now";
  ::kill(ranks[1], SIGKILL);
  wait_for_completion(two, std::chrono::minutes(8));
  const json attempts = system.sql("select outcome, error from retraining_attempts where retraining_id = " + std::to_string(two) + " order by attempt");
  ASSERT_EQ(attempts.size(), 2U) << attempts;
  EXPECT_EQ(attempts[0][0], "preempted") << "no retry was used";
  EXPECT_THAT(attempts[0][1].get<std::string>(), AllOf(HasSubstr("process 2 of 2 (cpu) ended with signal 9"), HasSubstr("goes on behind epoch")));
  EXPECT_EQ(attempts[1][0], "completed");
  expect_same_course(alone, two);
  EXPECT_EQ(system.ctl_json({"show", "--retraining", std::to_string(two)})["retraining"]["options"]["processes"], 2);
  EXPECT_TRUE(testing::rank_processes(system.daemon().pid()).empty());
  EXPECT_EQ(system.stop(), 0);
}

TEST_F(ParallelRetrainingTest, AWorkerWhoseWallTimeEndsHandsItBackAndLeaves) {
  EXPECT_EQ(system.stop(), 0);
  system.start(0, {{"--lease-s", "20"}});
  const std::int64_t id = FoundTrialTest::retrain({"--finetune", "none", "--width", "32", "--epochs", "5000", "--gpus", "2"});
  testing::Process brief({testing::program("fusion-worker"), "--name", "brief", "--wall-time", "30", "--first-pack-time", "1"}, system.options());
  wait_for_epoch(id, 1);
  EXPECT_EQ(brief.wait(std::chrono::seconds(120)), 0) << brief.err();
  EXPECT_TRUE(testing::rank_processes(brief.pid()).empty());
  const std::string of = " from retraining_attempts where retraining_id = " + std::to_string(id);
  system.wait_until([&] { return system.sql("select count(*)" + of + " and outcome is null")[0][0] == 0; });
  const json attempts = system.sql("select outcome, error" + of);
  ASSERT_EQ(attempts.size(), 1U) << attempts;
  EXPECT_EQ(attempts[0][0], "preempted");
  EXPECT_THAT(attempts[0][1].get<std::string>(), HasSubstr("wall time ends in"));
  EXPECT_EQ(system.sql("select failures, state from retrainings where id = " + std::to_string(id))[0], json::array({0, "queued"}));
  EXPECT_EQ(system.stop(), 0);
}

TEST_F(ParallelRetrainingTest, APoolKeepsNoWorkerForWhatItsWorkersHaveNoTimeFor) {
  const std::int64_t id = FoundTrialTest::retrain({"--finetune", "none", "--width", "32", "--epochs", "5000"});
  wait_for_epoch(id, 1);
  EXPECT_EQ(system.stop(), 0);
  put_slow_epochs(id);
  const json pool{{"name", "brief"}, {"launcher", "local"}, {"max", 1}, {"shrink_after_s", 1}, {"worker_program", testing::program("fusion-worker")},
                  {"worker_args", {"--wall-time", "300"}}};
  write_atomically(system.folder() / "daemon.json", json{{"pools", {pool}}}.dump());
  system.start(0, {{"--config", (system.folder() / "daemon.json").string()}});
  const auto now = [&] { return system.ctl_json({"workers"}); };
  const auto problem = [&] { return now()["pools"][0]["problem"].get<std::string>(); };
  const auto has_said_so = HasSubstr("it wants about 7200 s for an epoch, and these have at most 2");
  system.wait_until([&] { return ::testing::Matches(has_said_so)(problem()); });  // the first worker has come
  system.wait_until([&] { return now()["workers"].empty() && now()["pools"][0]["wanted"] == 0; });
  EXPECT_THAT(problem(), has_said_so);
  EXPECT_EQ(system.sql("select count(*) from retraining_attempts where outcome is null")[0][0], 0);
  EXPECT_EQ(system.stop(), 0);
}

TEST_F(ParallelRetrainingTest, MoreProcessesThanABatchHasRowsForAreRefused) {
  const testing::Finished refused = system.ctl({"retrain", "--trial", "1", "--gpus", "9", "--batch", "16"});
  EXPECT_EQ(refused.status, 2);
  EXPECT_THAT(refused.err, AllOf(HasSubstr("/options/processes"), HasSubstr("half as many as rows in a batch, which has 16, got 9")));
  EXPECT_EQ(system.stop(), 0);
}

}  // namespace
}  // namespace fusion
