// Every event in every state, and long random histories, against a small model of the rules in space/trial.h and store.h.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <string>

#include "store/store.h"
#include "tests/store/fixtures.h"

namespace fusion {
namespace {

using fusion::testing::add_study;
using fusion::testing::add_trials;
using fusion::testing::ended;

constexpr int kRetries = 1, kDeaths = 8;

/// The rules, once more and without SQL.
struct Model {
  struct Attempt {
    std::optional<Outcome> outcome;  ///< nullopt: open
    bool alone = false, died = false;
  };
  TrialState state = TrialState::queued;
  int failures = 0;
  bool pruned = false, alone = false;
  std::vector<Attempt> attempts;

  int attempt() const { return static_cast<int>(attempts.size()); }
  int count(Outcome outcome) const {
    return static_cast<int>(std::ranges::count(attempts, std::optional(outcome), &Attempt::outcome));
  }
  int deaths() const {
    return static_cast<int>(std::ranges::count_if(attempts, [](const Attempt& a) { return a.alone && a.died; }));
  }
  bool lease() {
    if (state != TrialState::queued) return false;
    state = TrialState::leased;
    attempts.push_back({std::nullopt, alone, false});
    return true;
  }
  bool readopt(int number) {
    if (state != TrialState::queued || number != attempt() || number < 1) return false;
    if (attempts.back().outcome != Outcome::lost) return false;
    state = TrialState::leased;
    attempts.back().outcome.reset();
    attempts.back().died = false;
    return true;
  }
  bool finish(int number, Outcome outcome, bool died = false) {
    if (is_final(state) || number < 1 || number > attempt()) return false;
    if (outcome == Outcome::completed || outcome == Outcome::pruned) {
      if (state == TrialState::leased) attempts.back().outcome = Outcome::cancelled;
      attempts[static_cast<std::size_t>(number - 1)].outcome = outcome;
      attempts[static_cast<std::size_t>(number - 1)].died = false;
      state = TrialState::completed;
      pruned = outcome == Outcome::pruned;
      return true;
    }
    if (state != TrialState::leased || number != attempt()) return false;
    attempts.back().outcome = outcome;
    attempts.back().died = died && outcome == Outcome::lost;
    const bool failure = outcome == Outcome::failed || (outcome == Outcome::oom && count(Outcome::oom) > 1);
    if (failure) ++failures;
    if (outcome == Outcome::failed) alone = false;
    if (outcome == Outcome::oom || attempts.back().died) alone = true;
    const bool poison = attempts.back().died && attempts.back().alone && deaths() > kDeaths;
    if (outcome == Outcome::cancelled) {
      state = TrialState::cancelled;
    } else {
      state = poison || (failure && failures > kRetries) ? TrialState::failed : TrialState::queued;
    }
    return true;
  }
};

/// The ways into each situation: what happened to a trial before the event under test.
const std::map<std::string, std::vector<Outcome>>& histories() {
  static const std::map<std::string, std::vector<Outcome>> kHistories{
      {"new", {}},
      {"lost", {Outcome::lost}},
      {"preempted", {Outcome::preempted}},
      {"failed once", {Outcome::failed}},
      {"lost, then failed once", {Outcome::lost, Outcome::oom}},
      {"failed for good", {Outcome::failed, Outcome::oom, Outcome::failed}},
      {"out of memory once", {Outcome::oom}},
      {"out of memory twice", {Outcome::oom, Outcome::oom}},
      {"completed", {Outcome::completed}},
      {"completed after a loss", {Outcome::lost, Outcome::completed}},
      {"cancelled", {Outcome::cancelled}},
      {"pruned", {Outcome::pruned}},
      {"pruned after a loss", {Outcome::lost, Outcome::pruned}},
  };
  return kHistories;
}

class TransitionsTest : public ::testing::Test {
 protected:
  void expect_equal(const Model& model, TrialId id, const std::string& what) {
    const Trial trial = store.trial(id).value();
    EXPECT_EQ(trial.state, model.state) << what << ": " << name_of(trial.state) << ", not " << name_of(model.state);
    EXPECT_EQ(trial.attempt, model.attempt()) << what;
    EXPECT_EQ(trial.failures, model.failures) << what;
    EXPECT_EQ(trial.told_index >= 0, is_final(model.state)) << what;
    EXPECT_EQ(trial.score.has_value(), model.state == TrialState::completed) << what;
    EXPECT_EQ(trial.pruned, model.pruned) << what;
    EXPECT_EQ(trial.failed, model.count(Outcome::failed)) << what;
    EXPECT_EQ(trial.oom, model.count(Outcome::oom)) << what;
    EXPECT_EQ(trial.preempted, model.count(Outcome::preempted)) << what;
    EXPECT_EQ(trial.lost, model.count(Outcome::lost)) << what;
    EXPECT_EQ(trial.deaths, model.deaths()) << what;
    EXPECT_EQ(trial.alone, model.alone) << what;
  }

  void apply(Model& model, TrialId id, const std::vector<Outcome>& history) {
    for (const Outcome outcome : history) {
      ASSERT_EQ(store.lease(id, WorkerId{}).has_value(), model.lease());
      ASSERT_EQ(store.finish(ended(id, model.attempt(), outcome)).accepted, model.finish(model.attempt(), outcome));
    }
  }

  void check_finish(Model& model, TrialId id, int number, Outcome outcome, const std::string& what, bool died = false) {
    const TrialState before = model.state;
    const bool accepted = model.finish(number, outcome, died);
    const FinishResult result = store.finish(ended(id, number, outcome, "text"), died);
    EXPECT_EQ(result.accepted, accepted) << what;
    EXPECT_EQ(result.state, model.state) << what;
    EXPECT_EQ(result.requeued, accepted && model.state == TrialState::queued) << what;
    EXPECT_EQ(result.told_index >= 0, accepted && is_final(model.state)) << what;
    EXPECT_TRUE(before == model.state || can_follow(before, model.state)) << what;
    expect_equal(model, id, what);
  }

  ManualClock clock;
  Store store = Store::open(":memory:", clock);
  std::int64_t next = 0;
  StudyId study = add_study(store, "transitions", kRetries);
  TrialId new_trial_id() { return add_trials(store, study, 1, next++)[0]; }
};

TEST_F(TransitionsTest, EveryOutcomeInEverySituation) {
  for (const auto& [name, history] : histories()) {
    for (const bool leased : {false, true}) {
      for (const auto& [outcome, outcome_name] : EnumNames<Outcome>::kTable) {
        for (int number = 0; number <= static_cast<int>(history.size()) + 2; ++number) {
          Model model;
          const TrialId id = new_trial_id();
          apply(model, id, history);
          if (leased) {
            ASSERT_EQ(store.lease(id, WorkerId{}).has_value(), model.lease());
          }
          const bool died = outcome == Outcome::lost && number % 2 == 0;
          check_finish(model, id, number, outcome,
                       name + (leased ? ", leased" : "") + ": attempt " + std::to_string(number) + " " + std::string(outcome_name), died);
        }
      }
    }
  }
}

TEST_F(TransitionsTest, EveryReadoptionInEverySituation) {
  for (const auto& [name, history] : histories()) {
    for (const bool leased : {false, true}) {
      for (int number = 0; number <= static_cast<int>(history.size()) + 2; ++number) {
        Model model;
        const TrialId id = new_trial_id();
        apply(model, id, history);
        if (leased) {
          ASSERT_EQ(store.lease(id, WorkerId{}).has_value(), model.lease());
        }
        EXPECT_EQ(store.readopt(id, number, WorkerId{}), model.readopt(number)) << name << " " << number;
        expect_equal(model, id, name);
      }
    }
  }
}

TEST_F(TransitionsTest, LongRandomHistoriesEndWhereTheModelEnds) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  const auto below = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
  constexpr int kTrials = 40;
  std::vector<TrialId> ids;
  std::vector<Model> models(kTrials);
  for (int n = 0; n < kTrials; ++n) ids.push_back(new_trial_id());
  std::int64_t told = 0;
  for (int event = 0; event < 3000 && !HasFailure(); ++event) {
    const auto n = static_cast<std::size_t>(below(kTrials));
    const int number = models[n].attempt() - below(3) + below(2);
    switch (below(4)) {
      case 0:
      case 1: EXPECT_EQ(store.lease(ids[n], WorkerId{}).has_value(), models[n].lease()); break;
      case 2: EXPECT_EQ(store.readopt(ids[n], number, WorkerId{}), models[n].readopt(number)); break;
      default: {
        // Ends are rare, so that histories get long.
        const Outcome outcome = below(12) == 0 ? EnumNames<Outcome>::kTable[static_cast<std::size_t>(below(7))].first
                                : below(2)     ? Outcome::lost
                                               : Outcome::preempted;
        check_finish(models[n], ids[n], number, outcome, "event " + std::to_string(event), below(3) == 0);
      }
    }
  }
  std::set<std::int64_t> places;
  for (const Trial& trial : store.trials(study)) {
    if (trial.told_index < 0) continue;
    places.insert(trial.told_index);
    ++told;
  }
  EXPECT_EQ(static_cast<std::int64_t>(places.size()), told);
  EXPECT_EQ(places.empty() ? 0 : *places.rbegin() + 1, told) << "the order of ends has no gap";
}

}  // namespace
}  // namespace fusion
