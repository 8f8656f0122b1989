#include "tools/ctl/dry_run.h"

#include <algorithm>
#include <deque>
#include <functional>
#include <memory>
#include <queue>
#include <utility>

#include "search/strategy.h"
#include "search/study_strategy.h"
#include "workers/dispatch/early_stopping.h"

namespace fusion::ctl {

namespace {

struct Waiting {
  std::int64_t ask_index = 0;
  TrialJob job;      // attempt: of the last one that was begun
  int failed = 0, oom = 0;  // attempts that ended so and used up a retry: the first that runs out of memory is free
  bool oom_before = false;
};

/// One attempt under way: an event of it waits in the queue.
struct Working {
  Waiting trial;
  SimulatedFate fate;
  std::vector<double> curve;
  int done = 0;  // epochs
};

struct Event {
  double at = 0;
  std::int64_t order = 0;  // of equal times the first made
  std::size_t slot = 0;
  bool operator>(const Event& other) const { return std::pair(at, order) > std::pair(other.at, other.order); }
};

class Simulation {
 public:
  Simulation(const StudyRecord& study, const SimulatedObjective& objective, const DryRunOptions& options)
      : study_(study), objective_(objective), options_(options), strategy_(make_study_strategy(study)),
        stopping_(study.spec.early_stopping, study.spec.training.epochs), slots_(static_cast<std::size_t>(options.workers)) {
    for (std::size_t slot = slots_.size(); slot > 0; --slot) free_.push_back(slot - 1);
    run_.seed = study.spec.seed;
  }

  DryRun run() {
    ask();
    while (true) {
      begin_waiting();
      if (events_.empty()) break;
      const Event event = events_.top();
      events_.pop();
      now_ = event.at;
      advance(event.slot);
    }
    run_.seconds = now_;
    return std::move(run_);
  }

 private:
  void ask();
  void begin_waiting();
  void begin(std::size_t slot, Waiting trial);
  void await_next(std::size_t slot);
  void advance(std::size_t slot);
  void end(std::size_t slot, Outcome outcome);
  void tell(const Waiting& trial, TrialState state, std::optional<double> score, bool pruned);

  const StudyRecord& study_;
  const SimulatedObjective& objective_;
  const DryRunOptions& options_;
  std::unique_ptr<Strategy> strategy_;
  EarlyStopping stopping_;
  std::vector<Working> slots_;
  std::vector<std::size_t> free_;
  std::deque<Waiting> again_, fresh_;  // those that are tried again go first
  std::priority_queue<Event, std::vector<Event>, std::greater<>> events_;
  double now_ = 0;
  std::int64_t made_ = 0, outstanding_ = 0;
  DryRun run_;
};

void Simulation::ask() {
  while (outstanding_ < study_.spec.parallel) {
    std::vector<Proposal> proposals = strategy_->ask(static_cast<std::size_t>(study_.spec.parallel - outstanding_));
    strategy_->take_fit_records();
    if (proposals.empty()) return;
    for (Proposal& proposal : proposals) {
      Waiting trial;
      trial.ask_index = run_.trials++;
      trial.job.trial = TrialId{trial.ask_index + 1};
      trial.job.seed = trial_seed(study_.spec.seed, proposal.architecture, proposal.replica);
      trial.job.architecture = std::move(proposal.architecture);
      fresh_.push_back(std::move(trial));
      ++outstanding_;
    }
  }
}

void Simulation::begin_waiting() {
  while (!free_.empty() && !(again_.empty() && fresh_.empty())) {
    std::deque<Waiting>& from = again_.empty() ? fresh_ : again_;
    const std::size_t slot = free_.back();
    free_.pop_back();
    Waiting trial = std::move(from.front());
    from.pop_front();
    begin(slot, std::move(trial));
  }
}

void Simulation::begin(std::size_t slot, Waiting trial) {
  ++trial.job.attempt;
  ++run_.attempts;
  const int epochs = study_.spec.training.epochs;
  Working& working = slots_[slot];
  working.fate = fate_of(options_.simulation, trial.job, epochs);
  working.curve = objective_.curve(trial.job.architecture, trial.job.seed, epochs);
  working.trial = std::move(trial);
  working.done = 0;
  if (working.curve.empty()) {
    ++run_.unknown;
    tell(working.trial, TrialState::failed, std::nullopt, false);
    free_.push_back(slot);
    return;
  }
  await_next(slot);
}

void Simulation::await_next(std::size_t slot) {
  const Working& working = slots_[slot];
  const double takes = working.done < working.fate.epochs ? working.fate.epoch_s[static_cast<std::size_t>(working.done)] : working.fate.rest_s;
  events_.push({now_ + takes, made_++, slot});
}

// Either one more epoch is over, or the attempt ends amid one.
void Simulation::advance(std::size_t slot) {
  Working& working = slots_[slot];
  if (working.done == working.fate.epochs) return end(slot, working.fate.outcome);
  const double score = working.curve[static_cast<std::size_t>(working.done++)];
  if (working.done == study_.spec.training.epochs) return end(slot, Outcome::completed);
  if (stopping_.report(working.trial.job.trial, working.done, score)) return end(slot, Outcome::pruned);
  await_next(slot);
}

void Simulation::end(std::size_t slot, Outcome outcome) {
  Working& working = slots_[slot];
  free_.push_back(slot);
  if (outcome == Outcome::completed || outcome == Outcome::pruned) {
    const double score = *std::max_element(working.curve.begin(), working.curve.begin() + working.done);
    return tell(working.trial, TrialState::completed, score, outcome == Outcome::pruned);
  }
  Waiting& trial = working.trial;
  if (outcome == Outcome::failed) ++trial.failed;
  if (outcome == Outcome::oom && std::exchange(trial.oom_before, true)) ++trial.oom;
  const RetryBudget& budget = study_.spec.retries;
  if (trial.failed > budget.failed || trial.oom > budget.oom || trial.failed + trial.oom > budget.failures) {
    return tell(trial, TrialState::failed, std::nullopt, false);
  }
  again_.push_back(std::move(trial));
}

void Simulation::tell(const Waiting& trial, TrialState state, std::optional<double> score, bool pruned) {
  const Architecture& architecture = trial.job.architecture;
  if (state == TrialState::failed) ++run_.failed;
  else ++run_.completed;
  if (pruned) ++run_.pruned;
  if (score && !pruned && (!run_.best || *score > run_.best_score)) {
    run_.best = architecture;
    run_.best_score = *score;
    run_.best_truth = objective_.truth(architecture).value();
    run_.best_test = objective_.test_score(architecture, trial.job.seed);
  }
  run_.best_truth_after.push_back(run_.best_truth);
  --outstanding_;
  strategy_->tell({trial.ask_index, architecture, state, score.value_or(0)});
  ask();
}

}  // namespace

DryRun dry_run(const StudyRecord& study, const SimulatedObjective& objective, const DryRunOptions& options) {
  return Simulation(study, objective, options).run();
}

}  // namespace fusion::ctl
