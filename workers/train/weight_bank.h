#pragma once

#include <map>
#include <string>
#include <vector>

#include "model/fusion_network.h"

namespace fusion {

/// Weight sharing between the trials of one study, as in the reference: what is shared is a whole fusion step (linear, gate and batch
/// normalisation tensors), not alphas, classifier or backbones.
///
/// The key is the step's place, the widths in and out, and the activation: "0.L_36_16.A_relu" ("G" for a gated step). The taps are not
/// part of it, so different taps of equal total width share. With sharing a score depends on what this worker trained before.
/// Not thread-safe; kept on the CPU.
class WeightBank {
 public:
  static std::string key(const FusionNetwork& network, std::size_t step);

  /// Copies every step that is known into the network; returns the keys of those, in the order of the steps.
  std::vector<std::string> load(FusionNetwork& network) const;
  /// Keeps a copy of every step, in place of what its key held.
  void store(const FusionNetwork& network);
  /// Ascending.
  std::vector<std::string> keys() const;
  void clear() { steps_.clear(); }

 private:
  std::map<std::string, NamedTensors> steps_;
};

}  // namespace fusion
