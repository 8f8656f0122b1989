#include "tools/worker_trainer.h"

#include <utility>

#include "base/error.h"

namespace fusion {

namespace {

/// Those that fit the features; the others end failed.
std::vector<PackTrial> fitting(const std::vector<SessionTrial>& trials, const DatasetSpec& dataset, PackSession& session) {
  std::vector<PackTrial> fit;
  for (const SessionTrial& trial : trials) {
    try {
      dataset.check(trial.job.architecture);
      fit.push_back({trial.job, trial.cancel, trial.prune});
    } catch (const Error& error) {
      TrialOutcome outcome;
      outcome.trial = trial.job.trial;
      outcome.attempt = trial.job.attempt;
      outcome.outcome = Outcome::failed;
      outcome.error = error.what();
      session.on_end(std::move(outcome));
    }
  }
  return fit;
}

}  // namespace

const FeatureSet& WorkerTrainer::features(const protocol::PackHeader& header) {
  if (!open_ || open_path_ != header.dataset_path || open_->spec().digest != header.dataset_digest) {
    open_.reset();
    open_ = FeatureSet::open(header.dataset_path, header.dataset_digest);
    open_path_ = header.dataset_path;
  }
  return *open_;
}

void WorkerTrainer::operator()(PackSession& session) {
  const protocol::PackHeader& header = session.header();
  const FeatureSet& set = features(header);
  PackContext context;
  context.device = device_;
  context.room = pack_;
  context.order_seed = header.order_seed;
  if (header.training.weight_sharing) context.bank = &banks_[header.study];
  context.on_epoch = [&](const TrialJob& job, const EpochReport& report) { session.on_epoch(job, report); };
  context.on_end = [&](TrialOutcome outcome) { session.on_end(std::move(outcome)); };
  context.more = [&](std::size_t room) { return fitting(session.more(room), set.spec(), session); };
  std::vector<PackTrial> trials = fitting(session.trials(), set.spec(), session);
  if (!trials.empty()) train_pack(std::move(trials), header.training, training_data(set), context);
}

}  // namespace fusion
