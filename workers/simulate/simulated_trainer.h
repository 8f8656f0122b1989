#pragma once

#include <cstddef>
#include <memory>

#include "workers/client/pack_session.h"
#include "workers/client/retraining_session.h"
#include "workers/simulate/objective.h"
#include "workers/simulate/simulation_options.h"

namespace fusion {

/// What a simulated worker does with a pack: as many trials as it trains at once each take their time, report their epochs and end as
/// their fate has it (simulation_options.h), with the objective's scores. No features are opened. Cancelling and pruning are honoured
/// at once, not only between epochs.
///
/// An architecture that the objective does not know fails, with a sentence. Used by the training thread only.
class SimulatedTrainer {
 public:
  /// `pack`: trials to train at once.
  SimulatedTrainer(std::shared_ptr<const SimulatedObjective> objective, const SimulationOptions& options, std::size_t pack);

  void operator()(PackSession& session) const;

 private:
  std::shared_ptr<const SimulatedObjective> objective_;
  SimulationOptions options_;
  std::size_t pack_;
};

/// Retrainings make models; there is nothing to make one of here. Ends it failed, with a sentence.
void refuse_to_simulate_retraining(RetrainingSession& session);

}  // namespace fusion
