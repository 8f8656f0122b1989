#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "search/replay.h"
#include "search/study_strategy.h"
#include "store/store.h"
#include "tests/search/strategies.h"

namespace fusion::testing {

/// Runs the study through a real store, as a daemon with so many workers would: what is asked for in pieces of random size is leased by
/// chance, ends in random order, and the strategy is told in the order of commits. Goes on from what is stored; stops after `enough` ends.
/// One in ten lost attempts is tried again, `ending` says how trials end for good.
class RecordedStudy {
 public:
  RecordedStudy(Store& store, StudyId study, Rng& rng, Ending ending);

  void run(std::size_t workers, std::size_t enough = SIZE_MAX);

 private:
  struct Open {
    TrialId trial;
    std::int64_t ask_index = 0;
    Architecture architecture;
    int replica = 0;
    int attempt = 0;  ///< 0: waits for a worker
  };
  bool ask(std::size_t count);
  void work_on(std::size_t place);
  void end(std::size_t place);
  void store_fits();

  Store& store_;
  const StudyRecord study_;
  Rng& rng_;
  Ending ending_;
  std::unique_ptr<Strategy> strategy_;
  WorkerId worker_;
  std::vector<Open> open_;
  std::int64_t asked_ = 0;
  std::size_t ended_ = 0;
};

inline RecordedStudy::RecordedStudy(Store& store, StudyId study, Rng& rng, Ending ending)
    : store_(store), study_(*store.study(study)), rng_(rng), ending_(std::move(ending)) {
  store.requeue_leased();
  worker_ = store.join_worker({{}, "w", "h", "cpu", "1", "1", 1, 1});
  const std::vector<Trial> trials = store.trials(study);
  strategy_ = make_study_strategy(study_, trials);
  Replay replay(study_, trials, {}, *strategy_, {false, ReplayOptions::Asking::early, {}});
  const auto difference = replay.run();
  EXPECT_FALSE(difference) << difference->sentence();
  asked_ = static_cast<std::int64_t>(trials.size());
  for (const Trial& trial : trials) {
    if (!is_final(trial.state)) open_.push_back({trial.id, trial.ask_index, trial.architecture, trial.replica, 0});
  }
}

inline void RecordedStudy::store_fits() {
  for (const FitRecord& fit : strategy_->take_fit_records()) {
    store_.add_fit(study_.id, {fit.fit_index, fit.surrogate, fit.observations, fit.loss, fit.rank_correlation, fit.mean_abs_error,
                               fit.seconds, fit.details});
  }
}

inline bool RecordedStudy::ask(std::size_t count) {
  std::vector<NewTrial> trials;
  for (Proposal& proposal : strategy_->ask(count)) {
    const std::uint64_t seed = trial_seed(study_.spec.seed, proposal.architecture, proposal.replica);
    trials.push_back({asked_++, std::move(proposal.architecture), proposal.replica, seed, std::move(proposal.facts)});
  }
  store_fits();
  const std::vector<TrialId> ids = store_.add_trials(study_.id, trials);
  for (std::size_t i = 0; i < ids.size(); ++i) {
    open_.push_back({ids[i], trials[i].ask_index, trials[i].architecture, trials[i].replica, 0});
  }
  return !ids.empty();
}

inline void RecordedStudy::work_on(std::size_t place) {
  Open& open = open_[place];
  if (open.attempt == 0) {
    open.attempt = store_.lease(open.trial, worker_).value();
  } else if (rng_.below(10) == 0) {
    store_.finish({open.trial, open.attempt, Outcome::lost, {}, "its worker died", "", "", "", ""});
    open.attempt = 0;
  } else {
    end(place);
  }
}

inline void RecordedStudy::end(std::size_t place) {
  const Open open = open_[place];
  open_.erase(open_.begin() + static_cast<std::ptrdiff_t>(place));
  Told told = ending_(open.architecture, open.replica);
  TrialOutcome outcome{open.trial, open.attempt, Outcome::completed, {}, "", "none", "cpu", "1", "1"};
  if (told.state == TrialState::completed) {
    outcome.score.emplace();
    outcome.score->dev_score = told.score;
  } else {
    outcome.outcome = told.state == TrialState::failed ? Outcome::failed : Outcome::cancelled;
    outcome.error = "it ended so";
  }
  const FinishResult finished = store_.finish(outcome);
  EXPECT_EQ(finished.state, told.state);
  told.ask_index = open.ask_index;
  strategy_->tell(told);
  store_fits();
  ++ended_;
}

inline void RecordedStudy::run(std::size_t workers, std::size_t enough) {
  store_.begin_group();  // one sync to disk is enough here
  while (!strategy_->finished() && ended_ < enough) {
    const std::size_t room = workers - open_.size();
    if (room > 0 && rng_.below(3) > 0) ask(1 + rng_.below(room));
    if (open_.empty() && !ask(1) && !strategy_->finished()) {
      ADD_FAILURE() << "the strategy neither proposes nor finishes";
      break;
    }
    if (!open_.empty()) work_on(rng_.below(open_.size()));
  }
  if (strategy_->finished()) store_.set_study_state(study_.id, StudyState::completed);
  store_.commit_group();
}

}  // namespace fusion::testing
