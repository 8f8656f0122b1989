#include "search/replay.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "base/clock.h"
#include "store/store_reader.h"
#include "tests/search/recorded_study.h"
#include "tests/temporary_folder.h"

namespace fusion {
namespace {

using nlohmann::json;
using testing::RecordedStudy;
using testing::scored_by_chance;
using testing::sometimes_failing;
using ::testing::HasSubstr;

const json kSmallLstm{{"name", "lstm"}, {"hidden", 6}, {"embedding", 5}, {"epochs", 2}};

struct Case {
  std::string name;
  json strategy;
  int max_steps = 3;
};
void PrintTo(const Case& value, std::ostream* out) { *out << value.strategy; }

const std::vector<Case> kCases{
    {"Mfas", {{"name", "mfas"}, {"samples", 7}, {"surrogate", kSmallLstm}}},
    {"MfasWithDuplicates", {{"name", "mfas"}, {"samples", 7}, {"surrogate", kSmallLstm}, {"duplicates", "reference"}}},
    {"MfasOnRidge", {{"name", "mfas"}, {"samples", 5}, {"iterations", 4}, {"surrogate", {{"name", "ridge"}}}}},
    {"MfasThatEatsItsSpace", {{"name", "mfas"}, {"samples", 20}, {"iterations", 5}, {"surrogate", kSmallLstm}}, 2},
    {"Random", {{"name", "random"}, {"trials", 60}}},
    {"RandomWithDuplicates", {{"name", "random"}, {"trials", 60}, {"duplicates", "reference"}}, 2},
    {"Exhaustive", {{"name", "exhaustive"}}, 2},
};

StudySpec spec_of(const Case& of, std::uint64_t seed) {
  StudySpec spec;
  spec.name = of.name;
  spec.dataset = "d";
  spec.space = {{"steps", {{"max", of.max_steps}}}};
  spec.strategy = of.strategy;
  spec.seed = seed;
  spec.retries = RetryBudget::of(0);
  return spec;
}

/// A study that is recorded in a database, and read again as `fusionctl replay` reads it.
class Recorded {
 public:
  Recorded(const Case& of, std::uint64_t seed, std::size_t workers, std::size_t enough, const testing::Ending& ending, Rng& rng) {
    Store store = Store::open(path_, clock_);
    const StudyId study = store.create_study(spec_of(of, seed), testing::tiny_spec(), "/d");
    RecordedStudy(store, study, rng, ending).run(workers, enough);
    history = StoreReader::open(path_).history(study).value();
  }
  std::optional<ReplayDifference> replay(ReplayOptions options = {}) {
    const auto strategy = make_study_strategy(history.study, history.trials);
    return Replay(history.study, history.trials, history.fits, *strategy, options).run();
  }
  /// What the strategy proposed, a line each.
  std::vector<std::string> proposals() const {
    std::vector<std::string> lines;
    for (const Trial& trial : history.trials) {
      lines.push_back(canonical_text(trial.architecture) + " " + std::to_string(trial.replica) + " " + std::to_string(trial.seed) + " " + trial.facts);
    }
    return lines;
  }
  StudyHistory history;

 private:
  testing::TemporaryFolder folder_;
  SystemClock clock_;
  std::string path_ = (folder_ / "fusion.db").string();
};

class ReplayTest : public ::testing::TestWithParam<Case> {};

// Any number of workers, any order of ends, any place to stop: what is stored is made again byte for byte, whether the strategy is asked
// early or late; and at the end of a study every number of workers has proposed the same.
TEST_P(ReplayTest, WhateverTheOrderWasEveryHistoryIsMadeAgain) {
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  Rng rng(seed);
  for (const testing::Ending& ending : {testing::Ending(scored_by_chance), testing::Ending(sometimes_failing)}) {
    std::vector<std::string> expected;
    for (const std::size_t workers : {1u, 64u, 7u}) {
      for (const std::size_t enough : {SIZE_MAX, static_cast<std::size_t>(rng.below(40))}) {
        Recorded recorded(GetParam(), seed, workers, enough, ending, rng);
        for (const auto asking : {ReplayOptions::Asking::early, ReplayOptions::Asking::late}) {
          const auto difference = recorded.replay({true, asking, {}});
          EXPECT_FALSE(difference) << workers << " workers, stopped after " << enough << ": " << difference->sentence();
        }
        if (enough != SIZE_MAX) continue;
        if (expected.empty()) expected = recorded.proposals();
        EXPECT_EQ(recorded.proposals(), expected) << workers << " workers";
      }
    }
  }
}

TEST_P(ReplayTest, CountsWhatItMade) {
  Rng rng(1);
  Recorded recorded(GetParam(), 1, 5, SIZE_MAX, scored_by_chance, rng);
  const auto strategy = make_study_strategy(recorded.history.study, recorded.history.trials);
  std::int64_t last = 0;
  ReplayOptions options;
  options.progress = [&last](std::int64_t told) { EXPECT_EQ(told, ++last); };
  Replay replay(recorded.history.study, recorded.history.trials, recorded.history.fits, *strategy, options);
  EXPECT_FALSE(replay.run());
  const auto size = static_cast<std::int64_t>(recorded.history.trials.size());
  EXPECT_EQ(replay.proposals(), size);
  EXPECT_EQ(replay.told(), size);
  EXPECT_EQ(last, size);
  EXPECT_EQ(replay.fits().size(), recorded.history.fits.size());
  EXPECT_TRUE(strategy->finished());
}

INSTANTIATE_TEST_SUITE_P(All, ReplayTest, ::testing::ValuesIn(kCases),
                         [](const ::testing::TestParamInfo<Case>& param) { return param.param.name; });

/// A study whose database is changed by hand afterwards.
class ReplayOfAnotherStoryTest : public ::testing::Test {
 protected:
  ReplayOfAnotherStoryTest() : recorded(kCases[0], 3, 64, SIZE_MAX, scored_by_chance, rng) {}
  /// Proposals behind the first step: those that have predictions.
  std::size_t a_later_one() const { return recorded.history.trials.size() - 3; }
  std::string difference(ReplayOptions options = {}) {
    const auto found = recorded.replay(std::move(options));
    return found ? found->sentence() : "none";
  }
  Rng rng{1};
  Recorded recorded;
};

TEST_F(ReplayOfAnotherStoryTest, NamesProposalAndBothValues) {
  const std::size_t place = a_later_one();
  const std::string subject = "proposal " + std::to_string(place) + ": ";
  Trial& trial = recorded.history.trials[place];
  const Trial before = trial;
  trial.facts = json{{"level", 1}}.dump();
  EXPECT_EQ(difference(), subject + "facts: stored {\"level\":1}, recomputed " + before.facts);
  EXPECT_EQ(difference({false, ReplayOptions::Asking::early, {}}), "none") << "what workers are sent is the same";
  trial = before;
  trial.seed = 5;
  EXPECT_EQ(difference(), subject + "seed: stored 5, recomputed " + std::to_string(before.seed));
  trial = before;
  trial.replica = 2;
  EXPECT_EQ(difference(), subject + "replica: stored 2, recomputed 0");
  trial = before;
  trial.architecture = recorded.history.trials[0].architecture;
  EXPECT_EQ(difference(), subject + "architecture: stored [[0,0,0,0]], recomputed " + canonical_text(before.architecture));
}

TEST_F(ReplayOfAnotherStoryTest, AnotherScoreShowsInTheFitThatLearnedIt) {
  double& score = recorded.history.trials[1].score->dev_score;
  score = score < 0.5 ? score + 1e-6 : score - 1e-6;
  EXPECT_THAT(difference(), HasSubstr("surrogate fit"));
}

TEST_F(ReplayOfAnotherStoryTest, NamesTheFit) {
  FitRow& fit = recorded.history.fits[1];
  const FitRow before = fit;
  fit.loss = 0.5;
  EXPECT_EQ(difference(), "surrogate fit 1: loss: stored 0.5, recomputed " + json(before.loss).dump());
  fit = before;
  fit.rank_correlation = std::nullopt;
  EXPECT_THAT(difference(), HasSubstr("surrogate fit 1: rank_correlation: stored none, recomputed "));
  fit = before;
  ++fit.observations;
  EXPECT_THAT(difference(), HasSubstr("surrogate fit 1: observations: "));
  fit = before;
  fit.seconds += 1;
  EXPECT_EQ(difference(), "none") << "seconds are not the search's";
}

TEST_F(ReplayOfAnotherStoryTest, ACompletedStudyHasAllItsFits) {
  recorded.history.fits.pop_back();
  EXPECT_THAT(difference(), HasSubstr("fit: stored none, recomputed one of"));
  recorded.history.study.state = StudyState::cancelled;
  EXPECT_EQ(difference(), "none");
  recorded.history.fits.resize(recorded.history.fits.size() - 2);
  EXPECT_THAT(difference(), HasSubstr("fit: stored none, recomputed one of"));
}

TEST_F(ReplayOfAnotherStoryTest, NamesAProposalThatCouldNotHaveBeenMadeThen) {
  std::swap(recorded.history.trials[0].told_index, recorded.history.trials.back().told_index);
  EXPECT_THAT(difference(), HasSubstr("recomputed none: the search waits"));
}

TEST_F(ReplayOfAnotherStoryTest, NamesGapsAndWhatIsTooMuch) {
  StudyHistory& history = recorded.history;
  Trial more = history.trials.back();
  ++more.ask_index;
  more.told_index = static_cast<std::int64_t>(history.trials.size());
  history.trials.push_back(more);
  EXPECT_THAT(difference(), HasSubstr("proposal " + std::to_string(more.ask_index) + ": architecture"));
  history.trials.pop_back();
  history.trials.erase(history.trials.begin() + 4);
  EXPECT_EQ(difference(), "proposal 4: ask_index: stored 5, recomputed 4");
}

}  // namespace
}  // namespace fusion
