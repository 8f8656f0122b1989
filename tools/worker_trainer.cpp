#include "tools/worker_trainer.h"

namespace fusion {

const FeatureSet& WorkerTrainer::features(const protocol::Pack& pack) {
  if (!open_ || open_path_ != pack.dataset_path || open_->spec().digest != pack.dataset_digest) {
    open_.reset();
    open_ = FeatureSet::open(pack.dataset_path, pack.dataset_digest);
    open_path_ = pack.dataset_path;
  }
  return *open_;
}

TrialOutcome WorkerTrainer::operator()(const protocol::Pack& pack, const TrialJob& job, std::stop_token stop,
                                       const std::function<void(const EpochReport&)>& on_epoch) {
  const FeatureSet& set = features(pack);
  set.spec().check(job.architecture);
  TrainingContext context;
  context.device = device_;
  context.cancel = std::move(stop);
  context.on_epoch = on_epoch;
  if (pack.training.weight_sharing) context.bank = &banks_[pack.study];
  return train_trial(job, pack.training, training_data(set), context);
}

}  // namespace fusion
