#include "workers/simulate/simulated_trainer.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <list>
#include <numbers>
#include <optional>
#include <stop_token>
#include <system_error>
#include <utility>

namespace fusion {

namespace {

using Clock = std::chrono::steady_clock;

/// Something to sleep on that another thread can end: cancelling and pruning come from the I/O thread.
class Alarm {
 public:
  Alarm() : descriptor_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
    if (descriptor_ < 0) throw std::system_error(errno, std::generic_category(), "eventfd");
  }
  ~Alarm() { ::close(descriptor_); }
  Alarm(const Alarm&) = delete;
  Alarm& operator=(const Alarm&) = delete;

  void ring() const { ::eventfd_write(descriptor_, 1); }
  void sleep_until(Clock::time_point end) const {
    pollfd waiting{descriptor_, POLLIN, 0};
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - Clock::now()).count();
    if (left > 0) ::poll(&waiting, 1, static_cast<int>(std::min<std::int64_t>(left, 60'000)));
    eventfd_t rung = 0;
    ::eventfd_read(descriptor_, &rung);
  }

 private:
  int descriptor_;
};

/// One attempt at work.
class Attempt {
 public:
  Attempt(SessionTrial trial, const protocol::PackHeader& header, const SimulatedObjective& objective, const SimulationOptions& options,
          const Alarm& alarm)
      : trial_(std::move(trial)),
        training_(header.training),
        objective_(objective),
        fate_(fate_of(options, trial_.job, training_.epochs)),
        curve_(objective.curve(trial_.job.architecture, trial_.job.seed, training_.epochs)),
        due_(Clock::now()),
        on_cancel_(trial_.cancel, [&alarm] { alarm.ring(); }),
        on_prune_(trial_.prune, [&alarm] { alarm.ring(); }) {
    await_next();
  }

  Clock::time_point due() const { return due_; }

  /// Reports what is due by now. True once it has ended.
  bool advance(PackSession& session) {
    if (curve_.empty()) return end(session, Outcome::failed, unknown());
    while (true) {
      if (trial_.cancel.stop_requested()) return end(session, Outcome::cancelled, "told to stop");
      if (trial_.prune.stop_requested() && done_ > 0 && done_ < training_.epochs) return end(session, Outcome::pruned, "told to end early");
      if (Clock::now() < due_) return false;
      if (done_ == fate_.epochs) return end(session, fate_.outcome, what_happened());
      session.on_epoch(trial_.job, report());
      await_next();
    }
  }

 private:
  /// What comes after `done_` epochs: one more, or the end amid it.
  void await_next() {
    const double seconds = done_ < fate_.epochs ? fate_.epoch_s[static_cast<std::size_t>(done_)] : fate_.rest_s;
    due_ += std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
  }

  EpochReport report() {
    const auto at = static_cast<std::size_t>(done_++);
    const double share = static_cast<double>(done_) / training_.epochs;
    EpochReport report;
    report.epoch = done_;
    report.dev_score = curve_[at];
    report.train_loss = loss(curve_[at]);
    report.learning_rate = training_.eta_min + (training_.eta_max - training_.eta_min) * (1 + std::cos(std::numbers::pi * share)) / 2;
    report.seconds = fate_.epoch_s[at];
    train_s_ += report.seconds;
    return report;
  }

  bool end(PackSession& session, Outcome how, const std::string& why) const {
    if (how == Outcome::lost) ::kill(::getpid(), SIGKILL);
    TrialOutcome outcome;
    outcome.trial = trial_.job.trial;
    outcome.attempt = trial_.job.attempt;
    outcome.outcome = how;
    outcome.engine = "simulated";
    if (how == Outcome::completed || how == Outcome::pruned) outcome.score = score();
    if (how != Outcome::completed) outcome.error = why;
    session.on_end(std::move(outcome));
    return true;
  }

  Score score() const {
    const auto best = std::max_element(curve_.begin(), curve_.begin() + done_);
    Score score;
    score.dev_score = score.dev_accuracy = score.dev_weighted_f1 = score.dev_macro_f1 = *best;
    score.best_epoch = *best > 0 ? static_cast<int>(best - curve_.begin()) + 1 : 0;
    if (training_.evaluate_test && done_ == training_.epochs) score.test_score = objective_.test_score(trial_.job.architecture, trial_.job.seed);
    score.train_loss = loss(curve_[static_cast<std::size_t>(done_ - 1)]);
    score.train_s = train_s_;
    score.parameters = objective_.parameters(trial_.job.architecture);
    return score;
  }

  /// The cross entropy of one who is right that often and as sure as that.
  static double loss(double dev_score) { return -std::log(std::max(dev_score, 1e-6)); }

  std::string what_happened() const {
    const std::string when = " after " + std::to_string(done_) + (done_ == 1 ? " epoch" : " epochs");
    if (fate_.outcome == Outcome::failed) return "simulated failure" + when;
    if (fate_.outcome == Outcome::oom) return "simulated: out of memory" + when;
    return "simulated: preempted" + when;
  }

  std::string unknown() const {
    return objective_.name() + " has no score of " + canonical_text(trial_.job.architecture) + "; a table must hold every architecture that is proposed";
  }

  SessionTrial trial_;
  const TrainingOptions& training_;
  const SimulatedObjective& objective_;
  SimulatedFate fate_;
  std::vector<double> curve_;
  int done_ = 0;
  double train_s_ = 0;
  Clock::time_point due_;
  std::stop_callback<std::function<void()>> on_cancel_, on_prune_;
};

}  // namespace

SimulatedTrainer::SimulatedTrainer(std::shared_ptr<const SimulatedObjective> objective, const SimulationOptions& options, std::size_t pack)
    : objective_(std::move(objective)), options_(options), pack_(std::max<std::size_t>(pack, 1)) {}

void SimulatedTrainer::operator()(PackSession& session) const {
  const Alarm alarm;
  std::list<Attempt> at_work;  // they do not move: stop callbacks refer to them
  const auto begin = [&](const std::vector<SessionTrial>& trials) {
    for (const SessionTrial& trial : trials) at_work.emplace_back(trial, session.header(), *objective_, options_, alarm);
  };
  begin(session.trials());
  while (!at_work.empty()) {
    at_work.remove_if([&](Attempt& attempt) { return attempt.advance(session); });
    if (at_work.size() < pack_) begin(session.more(pack_ - at_work.size()));
    if (at_work.empty()) return;
    const auto earlier = [](const Attempt& a, const Attempt& b) { return a.due() < b.due(); };
    alarm.sleep_until(std::min_element(at_work.begin(), at_work.end(), earlier)->due());
  }
}

void refuse_to_simulate_retraining(RetrainingSession& session) {
  session.on_end(Outcome::failed, "a simulated worker makes no models; start a fusion-worker without --simulate for retrainings");
}

}  // namespace fusion
