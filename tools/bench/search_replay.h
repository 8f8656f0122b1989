#pragma once

#include <cstdint>

namespace fusion::bench {

struct SearchReplay {
  int fits = 0, predictions = 0;
  double fit_cpu_s = 0, predict_cpu_s = 0, all_cpu_s = 0;  ///< all: the strategy's work, surrogate included
  std::int64_t trials = 0;
};

/// The default mfas search on AV-MNIST's space, with made-up scores told at once: what the surrogate and the strategy cost beside the
/// training.
SearchReplay replay_default_search();

}  // namespace fusion::bench
