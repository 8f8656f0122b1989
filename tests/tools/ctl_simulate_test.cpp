// `fusionctl simulate`: searches against known scores.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/clock.h"
#include "base/files.h"
#include "space/feature_manifest.h"
#include "space/search_space.h"
#include "store/store.h"
#include "tests/space/spaces.h"
#include "tests/temporary_folder.h"
#include "tests/tools/child.h"
#include "tools/ctl/dry_run.h"
#include "workers/simulate/planted_formula.h"

namespace fusion::testing {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;

class CtlSimulateTest : public ::testing::Test {
 protected:
  CtlSimulateTest() {
    json manifest = avmnist_spec().to_json();
    manifest["format"] = "fusiond-features-1";
    manifest.erase("digest");
    manifest["digest"] = manifest_digest(manifest);
    write_atomically(folder / "features.json", manifest.dump());
  }
  std::string study(const json& strategy, const json& more = json::object(), const std::string& name = "dry") {
    json document{{"name", name}, {"dataset", (folder / "features.json").string()}, {"space", {{"steps", {{"max", 2}}}}}, {"strategy", strategy},
                  {"training", {{"epochs", 3}, {"evaluate_test", true}}}};
    document.update(more);
    const auto file = folder / (name + ".json");
    write_atomically(file, document.dump());
    return file.string();
  }
  json simulate(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "simulate");
    arguments.push_back("--json");
    const ChildResult result = run_fusionctl(arguments);
    EXPECT_EQ(result.status, 0) << result.err;
    return json::parse(result.out);
  }
  static StudyRecord record(const json& strategy, int parallel = 64) {
    StudyRecord study;
    study.spec.name = "dry";
    study.spec.dataset = "d";
    study.spec.space = {{"steps", {{"max", 2}}}};
    study.spec.strategy = strategy;
    study.spec.seed = 3;
    study.spec.parallel = parallel;
    study.dataset = avmnist_spec();
    return study;
  }

  TemporaryFolder folder;
  const json kMfas{{"name", "mfas"}, {"samples", 10}, {"surrogate", {{"name", "ridge"}}}};
};

TEST_F(CtlSimulateTest, AnExhaustiveSearchFindsTheBestAndHasNoRegret) {
  const json answer = simulate({study({{"name", "exhaustive"}}), "--seeds", "3", "--table", "formula:5"});
  const json& found = answer["studies"][0];
  EXPECT_EQ(found["space"], "930");
  EXPECT_EQ(found["trials"]["mean"], 930);
  double best = 0;
  const SearchSpace space = SearchSpace::whole(avmnist_spec(), 2);
  for (std::uint64_t i = 0; i < space.count_saturated(); ++i) best = std::max(best, *PlantedFormula(5).truth(space.at(i)));
  EXPECT_EQ(found["optimum"], best);
  EXPECT_LT(found["regret"]["mean"], 0.02) << "only the noise of one training stands between";
  EXPECT_EQ(found["course"].back()["trials"], 500);
  ASSERT_EQ(found["runs"].size(), 3u);
  EXPECT_EQ(found["runs"][2]["seed"], 2);
  EXPECT_TRUE(found["runs"][2]["best_test"].is_number());
}

TEST_F(CtlSimulateTest, MfasBeatsRandomSearchOnAPlantedFormula) {
  const json wide{{"name", "mfas"}, {"samples", 30}, {"surrogate", {{"name", "ridge"}}}};
  const json answer = simulate({study(wide, {{"space", {{"steps", {{"max", 4}}}}}}), "--table", "formula:3", "--seeds", "30"});
  ASSERT_EQ(answer["studies"].size(), 2u) << "random search with as many trials stands beside it";
  EXPECT_EQ(answer["studies"][1]["strategy"]["name"], "random");
  EXPECT_EQ(answer["studies"][0]["trials"]["max"], answer["studies"][1]["trials"]["max"]);
  EXPECT_LT(answer["studies"][0]["regret"]["mean"], answer["studies"][1]["regret"]["mean"]);
  EXPECT_EQ(simulate({study(kMfas), "--seeds", "2", "--no-baseline"})["studies"].size(), 1u);
}

TEST_F(CtlSimulateTest, TheSameAgainWhateverTheThreads) {
  const std::string file = study(kMfas, {{"early_stopping", {{"policy", "asha"}, {"reduction", 2}}}});
  const std::vector<std::string> arguments{file, "--seeds", "6", "--epoch-s", "10", "--failures", "0.1", "--preemptions", "0.1", "--no-baseline", "--jobs"};
  auto one = arguments, four = arguments;
  one.push_back("1");
  four.push_back("4");
  const json first = simulate(one), second = simulate(four);
  EXPECT_EQ(first["studies"][0]["runs"], second["studies"][0]["runs"]);
  const json& run = first["studies"][0]["runs"][0];
  EXPECT_GT(run["pruned"], 0);
  EXPECT_GT(run["attempts"], run["trials"]) << "what failed was tried again";
  EXPECT_GT(run["seconds"], 30);
}

TEST_F(CtlSimulateTest, ATableStandsInForTheFormula) {
  const std::string table = (folder / "table.db").string();
  {
    SystemClock clock;
    Store store = Store::open(table, clock);
    StudyRecord study = record({{"name", "exhaustive"}, {"max_steps", 1}});
    const StudyId id = store.create_study(study.spec, study.dataset, "/d");
    const SearchSpace space = SearchSpace::whole(avmnist_spec(), 1);
    std::vector<NewTrial> trials;
    for (std::uint64_t i = 0; i < space.count_saturated(); ++i) trials.push_back({static_cast<std::int64_t>(i), space.at(i), 0, i, json::object()});
    const std::vector<TrialId> ids = store.add_trials(id, trials);
    for (std::size_t i = 0; i < ids.size(); ++i) {
      store.lease(ids[i], {});
      TrialOutcome outcome;
      outcome.trial = ids[i];
      outcome.attempt = 1;
      outcome.score.emplace();
      outcome.score->dev_score = 0.5 + 0.01 * static_cast<double>(i);
      store.finish(outcome);
    }
  }
  // The study's dataset is not asked for: the table brings its own.
  const json within{{"space", {{"steps", {{"max", 1}}}}}, {"dataset", "nowhere/dataset.json"}};
  const json found = simulate({study({{"name", "random"}, {"trials", 12}}, within), "--table", table, "--seeds", "20"})["studies"][0];
  EXPECT_DOUBLE_EQ(found["optimum"], 0.79);
  EXPECT_NEAR(found["regret"]["mean"].get<double>(), 0.0138, 0.02) << "the best of 12 out of 30 evenly spaced";
  EXPECT_EQ(found["runs"][0]["unknown"], 0);
  const ChildResult beyond = run_fusionctl({"simulate", study({{"name", "random"}, {"trials", 12}}), "--table", table, "--seeds", "2"});
  EXPECT_EQ(beyond.status, 0);
  EXPECT_THAT(beyond.out, HasSubstr("failed because the table does not have the architecture"));
}

TEST_F(CtlSimulateTest, PrintsATable) {
  const ChildResult result = run_fusionctl({"simulate", study(kMfas), "--seeds", "3", "--epoch-s", "60"});
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_THAT(result.out, AllOf(HasSubstr("dry (mfas)"), HasSubstr("dry (random, for comparison)"), HasSubstr("regret"), HasSubstr("simulated time"),
                                HasSubstr(" trials a second")));
}

TEST_F(CtlSimulateTest, BadInputIsNamed) {
  const auto refused = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "simulate");
    const ChildResult result = run_fusionctl(arguments);
    EXPECT_EQ(result.status, 2) << result.out;
    return result.err;
  };
  EXPECT_THAT(refused({study({{"name", "random"}, {"trails", 5}})}), HasSubstr("/strategy"));
  EXPECT_THAT(refused({study(kMfas, {{"dataset", "nowhere.json"}})}), HasSubstr("nowhere.json"));
  EXPECT_THAT(refused({study(kMfas), "--failures", "3"}), HasSubstr("--failures: expected a number in [0, 1], got 3"));
  EXPECT_THAT(refused({study(kMfas), "--table", "nothing.db"}), HasSubstr("nothing.db"));
}

// The search is a pure function of options, seed and order of ends; so how many may be under way must not change what an exhaustive one finds.
TEST_F(CtlSimulateTest, WorkersChangeTheClockNotTheExhaustiveResult) {
  ctl::DryRunOptions one, many;
  one.workers = 1;
  many.workers = 64;
  one.simulation.epoch_s = many.simulation.epoch_s = 1;
  const PlantedFormula formula(1);
  const ctl::DryRun slow = ctl::dry_run(record({{"name", "exhaustive"}}), formula, one), fast = ctl::dry_run(record({{"name", "exhaustive"}}), formula, many);
  EXPECT_EQ(slow.best, fast.best);
  EXPECT_EQ(slow.trials, 930);
  EXPECT_GT(slow.seconds, 30 * fast.seconds);
  EXPECT_NEAR(slow.seconds, 930 * 3.0, 200);
}

}  // namespace
}  // namespace fusion::testing
