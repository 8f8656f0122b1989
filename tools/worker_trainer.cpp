#include "tools/worker_trainer.h"

#include <algorithm>
#include <optional>
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

const FeatureSet& WorkerTrainer::features(const protocol::PackHeader& header, const std::function<bool()>& stopped) {
  if (open_ && open_path_ == header.dataset_path && open_->spec().digest == header.dataset_digest) return *open_;
  open_.reset();
  located_ = {};  // may be evicted for those that come
  open(header, stopped);
  open_path_ = header.dataset_path;
  return *open_;
}

// What lies in the cache was whole when it came; if it is not any more, it is fetched again.
void WorkerTrainer::open(const protocol::PackHeader& header, const std::function<bool()>& stopped) {
  located_ = source_.locate(header.dataset_path, header.dataset_digest, DatasetSource::Depth::features, stopped);
  try {
    open_ = FeatureSet::open(located_.manifest, header.dataset_digest);
  } catch (const DataError&) {
    if (!source_.drop_damaged(located_)) throw;
    located_ = source_.locate(header.dataset_path, header.dataset_digest, DatasetSource::Depth::features, stopped);
    open_ = FeatureSet::open(located_.manifest, header.dataset_digest);
  }
}

void WorkerTrainer::operator()(PackSession& session) {
  try {
    work_on_device(lost_, [&] { train(session); });
  } catch (const FetchStopped& error) {
    session.end_rest(Outcome::cancelled, error.what());
  }
}

/// All but the callbacks that end trials.
PackContext WorkerTrainer::context_of(PackSession& session, const DatasetSpec& dataset) {
  const Room most = room_ ? room_() : Room{pack_, 0};
  PackContext context;
  context.device = device_;
  context.room = std::clamp<std::size_t>(most.trials, 1, pack_);
  context.memory_bytes = most.memory_bytes;
  context.order_seed = session.header().order_seed;
  if (session.header().training.weight_sharing) context.bank = &banks_[session.header().study];
  context.on_epoch = [&session](const TrialJob& job, const EpochReport& report) { session.on_epoch(job, report); };
  context.more = [&session, &dataset](std::size_t room) { return fitting(session.more(room), dataset, session); };
  return context;
}

void WorkerTrainer::train(PackSession& session) {
  const protocol::PackHeader& header = session.header();
  const auto stopped = [&session] {
    return std::ranges::all_of(session.trials(), [](const SessionTrial& trial) { return trial.cancel.stop_requested(); });
  };
  const FeatureSet& set = features(header, stopped);
  PackContext context = context_of(session, set.spec());
  std::optional<std::string> lost;
  context.on_end = [&](TrialOutcome outcome) {
    if (outcome.outcome == Outcome::failed && lost_ && !lost) lost = lost_();
    if (outcome.outcome == Outcome::failed && lost) outcome.outcome = Outcome::preempted, outcome.error = *lost;
    session.on_end(std::move(outcome));
  };
  std::vector<PackTrial> trials = fitting(session.trials(), set.spec(), session);
  if (!trials.empty()) train_pack(std::move(trials), header.training, training_data(set), context);
  if (lost) throw DeviceLost(*lost);
}

}  // namespace fusion
