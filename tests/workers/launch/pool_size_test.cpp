#include "workers/launch/pool_size.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "workers/launch/pool_options.h"

namespace fusion {
namespace {

using namespace std::chrono_literals;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

PoolState pool(int min, int max, int busy = 0, int trials_per_worker = 8, bool stuck = false) { return {min, max, trials_per_worker, busy, stuck}; }

/// Retrainings of so many processes each.
std::vector<OpenRetraining> of(std::initializer_list<int> processes) {
  std::vector<OpenRetraining> all;
  for (const int each : processes) all.push_back({each});
  return all;
}

TEST(WantedSizesTest, GrowsWithWorkUpToTheMost) {
  EXPECT_THAT(wanted_sizes({0, {}}, {pool(0, 16)}), ElementsAre(0));
  EXPECT_THAT(wanted_sizes({0, {}}, {pool(2, 16)}), ElementsAre(2));
  EXPECT_THAT(wanted_sizes({1, {}}, {pool(0, 16)}), ElementsAre(1));
  EXPECT_THAT(wanted_sizes({64, {}}, {pool(0, 16)}), ElementsAre(8));
  EXPECT_THAT(wanted_sizes({65, of({1, 1})}, {pool(0, 16, 3)}), ElementsAre(3 + 2 + 9));
  EXPECT_THAT(wanted_sizes({1000, {}}, {pool(0, 16)}), ElementsAre(16));
}

TEST(WantedSizesTest, IsTheSameHoweverMuchOfTheWorkHasBegun) {
  // 64 trials, 8 a worker: queued, half in training, all in training.
  EXPECT_THAT(wanted_sizes({64, {}}, {pool(0, 16, 0)}), ElementsAre(8));
  EXPECT_THAT(wanted_sizes({32, {}}, {pool(0, 16, 4)}), ElementsAre(8));
  EXPECT_THAT(wanted_sizes({0, {}}, {pool(0, 16, 8)}), ElementsAre(8));
}

TEST(WantedSizesTest, LeavesTheRestToTheNextPool) {
  EXPECT_THAT(wanted_sizes({64, of({1})}, {pool(0, 2), pool(0, 16, 1, 4)}), ElementsAre(2, 1 + 14));
  EXPECT_THAT(wanted_sizes({8, {}}, {pool(0, 2), pool(0, 16)}), ElementsAre(1, 0));
}

TEST(WantedSizesTest, OneThatIsStuckTakesNothingFromOthers) {
  EXPECT_THAT(wanted_sizes({16, of({1})}, {pool(0, 4, 0, 8, true), pool(0, 4)}), ElementsAre(3, 3));
}

TEST(WantedSizesTest, ARetrainingOfSeveralProcessesBringsOnlyWorkersThatCanDoIt) {
  PoolState one_gpu = pool(0, 8), four_gpus = pool(0, 8);
  one_gpu.processes = 1;
  four_gpus.processes = 4;
  EXPECT_THAT(wanted_sizes({0, of({4})}, {one_gpu}), ElementsAre(0));
  EXPECT_THAT(wanted_sizes({0, of({4, 1, 8})}, {one_gpu, four_gpus}), ElementsAre(1, 1)) << "nobody has eight";
  EXPECT_THAT(wanted_sizes({0, of({4, 8})}, {pool(0, 8)}), ElementsAre(2)) << "on the CPU any number";
}

TEST(WantedSizesTest, ARetrainingWhoseEpochIsTooLongForAPoolsWorkersBringsNone) {
  PoolState brief = pool(0, 8), longer = pool(0, 8);
  brief.longest_epoch_s = 100;
  brief.first_epoch_s = 48;
  longer.longest_epoch_s = 5000;
  const OpenRetraining unknown{1}, fits{1, 100.0}, slow{1, 101.0};
  EXPECT_THAT(wanted_sizes({0, {unknown, fits, slow}}, {brief}), ElementsAre(2));
  EXPECT_THAT(wanted_sizes({0, {unknown, fits, slow}}, {brief, longer}), ElementsAre(2, 1));
  EXPECT_THAT(wanted_sizes({0, {slow}}, {pool(0, 8)}), ElementsAre(1)) << "no wall time, or nobody has come yet and said so";
  PoolState on_gpu = brief;
  on_gpu.gpu = true;
  EXPECT_THAT(wanted_sizes({0, {slow}}, {on_gpu}), ElementsAre(1)) << "what it takes on the CPU says nothing of a GPU";
  brief.longest_epoch_s = 47;
  EXPECT_THAT(wanted_sizes({0, {unknown}}, {brief}), ElementsAre(0));
  EXPECT_THAT(wanted_sizes({8, {slow}}, {brief}), ElementsAre(1)) << "trials bring workers all the same";
}

TEST(WantedSizesTest, APoolSaysWhatItLacksForARetrainingThatNoneCanDo) {
  PoolState brief = pool(0, 8), single = pool(0, 8);
  brief.longest_epoch_s = 2708;
  single.processes = 1;
  const std::vector<PoolState> both{brief, single};
  EXPECT_EQ(what_it_lacks(brief, {0, {{4}, {1, 7200.0}}}, both), "");
  const OpenWork large{0, {{1}, {4, 7200.0}}};
  EXPECT_EQ(what_it_lacks(brief, large, both),
            "a retraining waits that no pool's workers can do: it wants about 7200 s for an epoch, and these have at most 2708 s (time)");
  EXPECT_EQ(what_it_lacks(single, large, both), "a retraining waits that no pool's workers can do: it wants 4 GPUs, and these have 1 (gpus_per_worker)");
  single.processes = 0;
  EXPECT_EQ(what_it_lacks(single, large, {single}), "a retraining waits that no pool's workers can do: it wants workers that retrain, and these train trials only");
}

class PoolSizerTest : public ::testing::Test {
 protected:
  int step(std::chrono::seconds at, int want, int have) { return sizer.step(SteadyTime{} + 1h + at, want, have); }
  PoolSizer sizer{60s};
};

TEST_F(PoolSizerTest, GrowsAtOnce) { EXPECT_EQ(step(0s, 5, 2), 3); }

TEST_F(PoolSizerTest, ShrinksAfterAWhileByWhatWasAlwaysTooMuch) {
  EXPECT_EQ(step(0s, 0, 8), 0);
  EXPECT_EQ(step(30s, 5, 8), 0) << "for a moment five were wanted";
  EXPECT_EQ(step(59s, 0, 8), 0);
  EXPECT_EQ(step(60s, 0, 8), -3);
  EXPECT_EQ(step(61s, 0, 5), 0);
  EXPECT_EQ(step(120s, 0, 5), -5);
}

TEST_F(PoolSizerTest, NeverFlapsBetweenTheStepsOfASearch) {
  // Every few seconds the queue is empty while a strategy thinks.
  for (int i = 0; i < 100; ++i) EXPECT_EQ(step(std::chrono::seconds(10 * i), i % 2 == 0 ? 8 : 0, 8), 0);
}

std::vector<std::string> problems_of(const std::string& text, std::vector<PoolOptions>* pools = nullptr) {
  const auto document = nlohmann::json::parse(text);
  JsonProblems problems;
  JsonReader reader(document, "daemon.json", problems);
  const auto read = read_pools(reader);
  if (pools != nullptr) *pools = read;
  return problems.list();
}

TEST(PoolOptionsTest, ReadsAPoolAndItsDefaults) {
  std::vector<PoolOptions> pools;
  EXPECT_THAT(problems_of(R"({"pools": [{"name": "a100", "launcher": "slurm", "min": 0, "max": 16, "gpus_per_worker": 1, "time": "4:00:00",
                              "partition": "gpu", "extra_args": ["--exclusive"], "prologue": "module load cuda"}, {"name": "cpu", "launcher": "local", "max": 2}]})",
                          &pools),
              ElementsAre());
  ASSERT_EQ(pools.size(), 2u);
  EXPECT_EQ(pools[0].device, "cuda:0");
  EXPECT_EQ(pools[0].on_stop, OnStop::keep);
  EXPECT_EQ(pools[1].device, "cpu");
  const nlohmann::json again{{"pools", pools_json(pools)}};
  std::vector<PoolOptions> same;
  EXPECT_THAT(problems_of(again.dump(), &same), ElementsAre());
  EXPECT_EQ(pools_json(same), pools_json(pools));
}

TEST(PoolOptionsTest, NamesEveryProblem) {
  EXPECT_THAT(problems_of(R"({"pools": [{"name": "a b", "launcher": "pbs", "max": 1, "min": 2}, {"name": "x", "launcher": "local", "max": 1, "partition": "gpu"},
                                        {"name": "x", "launcher": "slurm", "max": 1, "extra_args": ["--comment=mine", "-J", "me"], "environment": {"MY_TOKEN": "1"}}]})"),
              ElementsAre(HasSubstr("/pools/0/name: expected 1 to 40 letters"), HasSubstr("/pools/0/launcher: expected one of local, slurm, got \"pbs\""),
                          HasSubstr("/pools/0/min: expected at most max"), HasSubstr("/pools/1/partition"),
                          HasSubstr("/pools/2/environment/MY_TOKEN: expected no secret here"), HasSubstr("expected no --comment, which fusiond gives sbatch itself"),
                          HasSubstr("expected no -J"), HasSubstr("/pools/2/name: expected a name that no other pool has")));
}

}  // namespace
}  // namespace fusion
