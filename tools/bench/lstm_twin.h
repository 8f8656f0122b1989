#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "surrogate/lstm_network.h"

namespace fusion::bench {

/// The surrogate's network as a user of LibTorch writes it: at::lstm, autograd, torch::optim::Adam, one full batch per step. Begins
/// with the weights of a LstmNetwork.
class LstmTwin {
 public:
  explicit LstmTwin(const LstmNetwork& network);
  ~LstmTwin();

  /// values: [B, T, input], targets: [B]. The next bucket of sequences of one length.
  void add_bucket(const std::vector<float>& values, std::size_t length, const std::vector<float>& targets);
  /// So many times one step per bucket. The last step's loss of each.
  std::vector<double> fit(int epochs);

 private:
  struct Twin;
  std::unique_ptr<Twin> twin_;
};

}  // namespace fusion::bench
