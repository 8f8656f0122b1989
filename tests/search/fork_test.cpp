// Studies that begin with the first trials of another, through a real store.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <set>

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
using ::testing::ThrowsMessage;

/// What workers are sent and what the strategy noted, a line per proposal.
std::string line_of(const Trial& trial) {
  return canonical_text(trial.architecture) + " " + std::to_string(trial.replica) + " " + std::to_string(trial.seed) + " " + trial.facts;
}

/// Some fail, none is cancelled: one could not be forked behind it.
Told failing(const Architecture& architecture, int replica) {
  Told told = sometimes_failing(architecture, replica);
  if (told.state == TrialState::cancelled) told.state = TrialState::failed;
  return told;
}

class ForkTest : public ::testing::Test {
 protected:
  StudySpec spec_of(const json& strategy, std::uint64_t seed = 5) {
    StudySpec spec;
    spec.name = "parent";
    spec.dataset = "d";
    spec.space = {{"steps", {{"max", 3}}}};
    spec.strategy = strategy;
    spec.seed = seed;
    spec.retries = RetryBudget::of(0);
    return spec;
  }
  StudyId begin(const json& strategy) { return store.create_study(spec_of(strategy), testing::tiny_spec(), "/d"); }
  void run(StudyId study, std::size_t workers, std::size_t enough = SIZE_MAX) {
    RecordedStudy(store, study, rng, failing).run(workers, enough);
  }
  std::vector<Trial> in_order_of_ends(StudyId study) {
    std::vector<Trial> trials = store.trials(study);
    std::erase_if(trials, [](const Trial& trial) { return !is_final(trial.state); });
    std::sort(trials.begin(), trials.end(), [](const Trial& a, const Trial& b) { return a.told_index < b.told_index; });
    return trials;
  }
  /// Proposals of the study in their order, but for its first `inherited` trials in the order of ends.
  std::vector<std::string> behind(StudyId study, std::size_t inherited) {
    std::set<TrialId> left_out;
    for (const Trial& trial : in_order_of_ends(study)) {
      if (left_out.size() < inherited) left_out.insert(trial.id);
    }
    std::vector<std::string> lines;
    for (const Trial& trial : store.trials(study)) {
      if (!left_out.contains(trial.id)) lines.push_back(line_of(trial));
    }
    return lines;
  }
  void expect_replayable(StudyId study) {
    const StoreReader reader = StoreReader::open(path);
    const StudyHistory history = reader.history(study).value();
    for (const auto asking : {ReplayOptions::Asking::early, ReplayOptions::Asking::late}) {
      const auto strategy = make_study_strategy(history.study, history.trials);
      const auto difference = Replay(history.study, history.trials, history.fits, *strategy, {true, asking, {}}).run();
      EXPECT_FALSE(difference) << difference->sentence();
    }
    if (!history.study.fork) return;
    const auto difference = compare_inherited(history, reader.history(history.study.fork->from).value());
    EXPECT_FALSE(difference) << difference->sentence();
  }

  const json kMfas{{"name", "mfas"}, {"samples", 6}, {"surrogate", {{"name", "lstm"}, {"hidden", 6}, {"embedding", 5}, {"epochs", 3}}}};
  testing::TemporaryFolder folder;
  std::string path = (folder / "fusion.db").string();
  SystemClock clock;
  Store store = Store::open(path, clock);
  Rng rng{std::random_device{}()};
};

// At 0, in the middle of a level, at its end, at the end of the search; with one worker and with many.
TEST_F(ForkTest, WithTheSameOptionsItProposesWhatTheParentProposedNext) {
  const std::vector<json> strategies{kMfas,
                                     {{"name", "mfas"}, {"samples", 6}, {"duplicates", "reference"}, {"surrogate", {{"name", "ridge"}}}},
                                     {{"name", "random"}, {"trials", 40}},
                                     {{"name", "exhaustive"}, {"max_steps", 2}}};
  for (const json& strategy : strategies) {
    for (const std::size_t workers : {1u, 64u}) {
      SCOPED_TRACE(strategy.dump() + " with " + std::to_string(workers) + " workers");
      const StudyId parent = begin(strategy);
      run(parent, workers);
      const auto all = static_cast<std::int64_t>(store.trials(parent).size());
      for (const std::int64_t at : {std::int64_t{0}, std::int64_t{3}, std::int64_t{8}, std::int64_t{11}, all - 1, all}) {
        SCOPED_TRACE("forked at " + std::to_string(at));
        const StudyId fork = store.fork_study({parent, at, 0}, spec_of(strategy));
        expect_replayable(fork);
        run(fork, workers == 1 ? 9 : 1);
        EXPECT_EQ(behind(fork, static_cast<std::size_t>(at)), behind(parent, static_cast<std::size_t>(at)));
        EXPECT_EQ(store.study(fork)->state, StudyState::completed);
        EXPECT_EQ(StoreReader::open(path).fits(fork).size(), StoreReader::open(path).fits(parent).size());
        expect_replayable(fork);
      }
    }
  }
}

TEST_F(ForkTest, InheritedTrialsAreCopiesThatNobodyTrainsAgain) {
  const StudyId parent = begin(kMfas);
  run(parent, 5, 20);
  const StudyId fork = store.fork_study({parent, 12, 0}, spec_of(kMfas));
  const std::vector<Trial> originals = in_order_of_ends(parent), copies = store.trials(fork);
  ASSERT_EQ(copies.size(), 12u);
  for (std::size_t i = 0; i < copies.size(); ++i) {
    EXPECT_EQ(line_of(copies[i]), line_of(originals[i]));
    EXPECT_EQ(copies[i].inherited_from, originals[i].id);
    EXPECT_EQ(copies[i].told_index, i);
    EXPECT_EQ(copies[i].ask_index, i);
    EXPECT_EQ(copies[i].state, originals[i].state);
    EXPECT_EQ(copies[i].score, originals[i].score);
    EXPECT_EQ(copies[i].attempt, originals[i].attempt);
  }
  const json attempts = StoreReader::open(path).query("SELECT count(*), sum(a.inherited), sum(a.started_ms = o.started_ms) FROM attempts AS a"
                                                      " JOIN trials AS t ON t.id = a.trial_id JOIN attempts AS o ON o.trial_id = t.inherited_from"
                                                      " AND o.attempt = a.attempt WHERE t.study_id = " + to_string(fork), 10, std::chrono::seconds(10));
  EXPECT_GE(attempts["rows"][0][0], 12);
  EXPECT_EQ(attempts["rows"][0][1], attempts["rows"][0][0]);
  EXPECT_EQ(attempts["rows"][0][2], attempts["rows"][0][0]);
  EXPECT_EQ(store.study(fork)->fork, (Lineage{parent, 12, 0}));
  EXPECT_EQ(store.requeue_leased(), 0) << "of the fork nothing was leased";
}

TEST_F(ForkTest, OtherOptionsGoTheirOwnWayKnowingWhatWasInherited) {
  const StudyId parent = begin({{"name", "random"}, {"trials", 60}});
  run(parent, 64);
  const StudyId blind = store.fork_study({parent, 60, 0}, spec_of(kMfas)), seeing = store.fork_study({parent, 60, 60}, spec_of(kMfas));
  run(blind, 4);
  run(seeing, 64);
  for (const StudyId fork : {blind, seeing}) {
    expect_replayable(fork);
    std::set<std::string> seen;
    for (const Trial& trial : store.trials(fork)) EXPECT_TRUE(seen.insert(canonical_text(trial.architecture)).second) << "trained twice";
  }
  const StoreReader reader = StoreReader::open(path);
  EXPECT_GT(reader.fits(seeing)[0]["observations"], reader.fits(blind)[0]["observations"]) << "the surrogate learns what was inherited";
  EXPECT_NE(behind(seeing, 60), behind(blind, 60));
}

TEST_F(ForkTest, AForkOfAForkStandsWhereItsParentStood) {
  const StudyId first = begin({{"name", "random"}, {"trials", 30}});
  run(first, 8);
  const StudyId second = store.fork_study({first, 20, 20}, spec_of(kMfas));
  run(second, 64);
  const auto all = static_cast<std::int64_t>(in_order_of_ends(second).size());
  ASSERT_GT(all, 24);
  for (const std::int64_t at : {std::int64_t{20}, std::int64_t{24}, all}) {
    const StudyId third = store.fork_study({second, at, 20}, spec_of(kMfas));
    run(third, 3);
    EXPECT_EQ(behind(third, static_cast<std::size_t>(at)), behind(second, static_cast<std::size_t>(at))) << at;
    expect_replayable(third);
  }
}

TEST_F(ForkTest, AnInterruptedForkGoesOn) {
  const StudyId parent = begin(kMfas);
  run(parent, 64);
  const StudyId fork = store.fork_study({parent, 10, 0}, spec_of(kMfas));
  for (int round = 0; round < 6; ++round) run(fork, 1 + rng.below(20), 3);
  run(fork, 7);
  EXPECT_EQ(behind(fork, 10), behind(parent, 10));
  expect_replayable(fork);
}

TEST_F(ForkTest, AnInheritedTrialThatWasChangedIsNamed) {
  const StudyId parent = begin(kMfas);
  run(parent, 4);
  const StudyId fork = store.fork_study({parent, 10, 0}, spec_of(kMfas));
  const StoreReader reader = StoreReader::open(path);
  StudyHistory changed = reader.history(fork).value(), original = reader.history(parent).value();
  changed.trials[4].seed = 1;
  const auto difference = compare_inherited(changed, original);
  ASSERT_TRUE(difference);
  EXPECT_EQ(difference->ask_index, 4);
  EXPECT_THAT(difference->stored, HasSubstr("seed 1, "));
}

TEST_F(ForkTest, FailuresThatWereInheritedPauseNothing) {
  StudySpec spec = spec_of({{"name", "random"}, {"trials", 20}});
  spec.pause_on = {3, 600};
  const StudyId parent = store.create_study(spec, testing::tiny_spec(), "/d");
  const auto always_failing = [](const Architecture& architecture, int) { return Told{0, architecture, TrialState::failed, 0}; };
  RecordedStudy(store, parent, rng, always_failing).run(1, 5);
  const StudyId fork = store.fork_study({parent, 5, 0}, spec);
  EXPECT_FALSE(store.pause_if_failing(fork));
  EXPECT_TRUE(store.pause_if_failing(parent));
}

TEST_F(ForkTest, RefusesWhatCannotBeForked) {
  EXPECT_THAT([&] { store.fork_study({StudyId{9}, 0, 0}, spec_of(kMfas)); }, ThrowsMessage<StoreError>(HasSubstr("there is no study 9")));
  const StudyId parent = begin({{"name", "random"}, {"trials", 20}});
  run(parent, 4, 7);
  EXPECT_EQ(store.forkable(parent), 7);
  EXPECT_THAT([&] { store.fork_study({parent, 8, 0}, spec_of(kMfas)); }, ThrowsMessage<StoreError>(HasSubstr("expected 0 to 7")));
  store.set_study_state(parent, StudyState::cancelled);  // what did not end is told as cancelled
  EXPECT_EQ(store.forkable(parent), 7);
  EXPECT_THROW(store.fork_study({parent, 8, 0}, spec_of(kMfas)), StoreError);
  EXPECT_EQ(store.studies().size(), 1u) << "nothing is left of a refused fork";
  EXPECT_NO_THROW(store.fork_study({parent, 7, 0}, spec_of({{"name", "random"}, {"trials", 20}})));
}

}  // namespace
}  // namespace fusion
