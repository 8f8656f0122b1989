#include "search/controller.h"

#include "base/log.h"
#include "search/replay.h"

namespace fusion {

Controller::Controller(StudyRecord study, std::unique_ptr<Strategy> strategy, GroupCommit& store,
                       asio::any_io_executor strand, Hooks hooks)
    : study_(std::move(study)),
      strategy_(std::move(strategy)),
      store_(store),
      strand_(std::move(strand)),
      hooks_(std::move(hooks)),
      paused_(study_.state == StudyState::paused) {}

void Controller::resume(const std::vector<Trial>& trials) {
  try {
    replay(trials);
  } catch (...) {
    stopped_ = true;  // what ends meanwhile must not be told to a strategy that stands halfway
    throw;
  }
  std::vector<ReadyTrial> ready;
  for (const Trial& trial : trials) {
    if (is_final(trial.state)) {
      ++told_;
      continue;
    }
    ++outstanding_;
    ready.push_back({trial.id, trial.ask_index, trial.architecture, trial.seed, trial.attempt, trial.attempt > 0, trial.alone});
  }
  if (!trials.empty()) {
    logger("search")->info("study resumed study={} asked={} waiting={}", study_.id.value, asked_, ready.size());
  }
  if (!ready.empty()) hooks_.ready(std::move(ready));
  pump();
}

void Controller::replay(const std::vector<Trial>& trials) {
  ReplayOptions options;
  options.facts_and_fits = false;
  Replay replay(study_, trials, {}, *strategy_, options);
  if (const auto difference = replay.run()) {
    throw StoreError("study " + to_string(study_.id) + ": replay: " + difference->sentence() +
                     "; it was written by another version of the search or changed by hand");
  }
  asked_ = replay.inherited() + replay.proposals();
  store_fits(replay.fits());
}

void Controller::tell(const Told& ended, std::int64_t told_index) {
  if (stopped_ || told_index < told_) return;
  told_ = told_index + 1;
  try {
    strategy_->tell(ended);
    --outstanding_;
    store_fits(strategy_->take_fit_records());  // before the proposals that come of it; while paused too
    pump();
  } catch (...) {
    fail(std::current_exception());
  }
}

void Controller::set_paused(bool paused) {
  paused_ = paused;
  if (!paused_) pump();
}

void Controller::stop() { stopped_ = true; }

void Controller::pump() {
  if (stopped_ || paused_) return;
  try {
    while (outstanding_ < study_.spec.parallel) {
      auto proposals = strategy_->ask(static_cast<std::size_t>(study_.spec.parallel - outstanding_));
      store_fits(strategy_->take_fit_records());
      if (proposals.empty()) break;
      propose(std::move(proposals));
    }
    if (outstanding_ == 0 && strategy_->finished()) complete();
  } catch (...) {
    fail(std::current_exception());
  }
}

void Controller::propose(std::vector<Proposal> proposals) {
  std::vector<NewTrial> trials;
  std::vector<ReadyTrial> ready;
  for (Proposal& proposal : proposals) {
    const std::uint64_t seed = trial_seed(study_.spec.seed, proposal.architecture, proposal.replica);
    ready.push_back({TrialId{}, asked_, proposal.architecture, seed, 0, false, false});
    trials.push_back({asked_, std::move(proposal.architecture), proposal.replica, seed, std::move(proposal.facts)});
    ++asked_;
    ++outstanding_;
  }
  store_.async(
      strand_, [study = study_.id, trials = std::move(trials)](Store& store) { return store.add_trials(study, trials); },
      [self = shared_from_this(), ready = std::move(ready)](StoreResult<std::vector<TrialId>> ids) mutable {
        if (self->stopped_) return;  // cancelled meanwhile: the store refuses proposals of an ended study
        try {
          for (std::size_t i = 0; i < ready.size(); ++i) ready[i].id = ids.value()[i];
          self->hooks_.ready(std::move(ready));
        } catch (...) {
          self->fail(std::current_exception());
        }
      });
}

void Controller::store_fits(const std::vector<FitRecord>& fits) {
  for (const FitRecord& fit : fits) {
    logger("search")->info("surrogate fitted study={} fit={} observations={} loss={:.5f} seconds={:.3f}", study_.id.value,
                           fit.fit_index, fit.observations, fit.loss, fit.seconds);
    const FitRow row{fit.fit_index,        fit.surrogate, fit.observations,      fit.loss, fit.rank_correlation,
                     fit.mean_abs_error,   fit.seconds,   fit.details};
    store_.async(
        strand_,
        [study = study_.id, row](Store& store) {
          store.add_fit(study, row);
          return true;
        },
        [self = shared_from_this()](StoreResult<bool> done) {
          try {
            done.value();
          } catch (...) {
            self->fail(std::current_exception());
          }
        });
  }
}

void Controller::complete() {
  stopped_ = true;
  store_.async(
      strand_, [study = study_.id](Store& store) { return store.set_study_state(study, StudyState::completed); },
      [self = shared_from_this()](StoreResult<bool> done) {
        try {
          done.value();
          logger("search")->info("study completed study={} trials={}", self->study_.id.value, self->asked_);
          self->hooks_.completed();
        } catch (...) {
          self->fail(std::current_exception());
        }
      });
}

void Controller::fail(std::exception_ptr error) {
  stopped_ = true;
  if (std::exchange(failed_, true)) return;  // what failed first explains what failed after it
  hooks_.broken(std::move(error));
}

}  // namespace fusion
