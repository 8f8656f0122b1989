#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "space/encoding.h"
#include "surrogate/lstm_network.h"
#include "surrogate/surrogate.h"

namespace fusion {

/// Defaults are the reference's.
struct LstmSurrogateOptions {
  int hidden = 100;
  int embedding = 100;
  int epochs = 50;         ///< per fit
  double lr = 1e-3;        ///< Adam
  std::uint64_t seed = 0;  ///< initial weights
};

/// The surrogate of MFAS: LstmNetwork on the raw numbers of each step (Encoding::sequence).
///
/// One fit: `epochs` times one full-batch Adam step per sequence length, lengths in the order in which they first came,
/// nothing shuffled. Weights and Adam's state go on from the last fit. Differs from the reference: fit reports the loss
/// of every length, not only of the last one.
class LstmSurrogate final : public Surrogate {
 public:
  LstmSurrogate(const SearchSpace& space, const LstmSurrogateOptions& options);

  FitReport fit(std::span<const Observation> observations) override;
  std::vector<double> predict(std::span<const Architecture> candidates) const override;
  std::string_view name() const override { return "lstm"; }
  const LstmNetwork& network() const { return network_; }

 private:
  SequenceBatch batch_of(std::size_t length, std::span<const Architecture> candidates) const;

  Encoding encoding_;
  LstmSurrogateOptions options_;
  LstmNetwork network_;
};

}  // namespace fusion
