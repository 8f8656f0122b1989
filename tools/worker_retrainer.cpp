#include "tools/worker_retrainer.h"

#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "workers/train/export_model.h"
#include "workers/train/retrain.h"

namespace fusion {

void WorkerRetrainer::operator()(RetrainingSession& session) const {
  RetrainContext context;
  context.device = device_;
  context.cancel = session.cancel();
  context.hand_back = session.hand_back();
  context.on_epoch = [&](const RetrainingEpoch& epoch) { session.on_epoch(epoch); };
  context.on_progress = [&](const RetrainingProgress& progress) { session.on_progress(progress); };
  context.export_model = export_model;
  work_on_device(lost_, [&] {
    RetrainingOutcome outcome = retrain(session.job(), context);
    if (outcome.outcome != Outcome::failed) return session.on_end(std::move(outcome));
    if (const auto lost = lost_ ? lost_() : std::nullopt) throw DeviceLost(*lost);
    session.on_end(std::move(outcome));
  });
}

}  // namespace fusion
