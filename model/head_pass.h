#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace fusion {

/// What one pass of B rows through a temporal head has to know besides the rows.
///
/// Everything random in it is drawn by counter (model/dropout.h): it is a function of the seed, the place in the network and the number
/// of the row over the whole training. So a training that was resumed, or cut into other batches, draws the same.
struct HeadPass {
  bool training = false;       ///< dropout and masking on, batch statistics in batch normalisation
  std::uint64_t seed = 0;      ///< of everything drawn
  std::int64_t rows_seen = 0;  ///< rows that passed in training before this batch's first one
  /// [B, T + 1], classification token first: 1 where a token may be attended to, 0 where it is hidden. Given: used as it is, in training
  /// and evaluation. Undefined: drawn in training, all ones in evaluation.
  at::Tensor visible = {};

  static HeadPass evaluation() { return {}; }
  static HeadPass train(std::uint64_t seed, std::int64_t rows_seen) { return {true, seed, rows_seen, {}}; }
};

/// Numbers the places in a network where something is drawn.
class MaskPlaces {
 public:
  std::uint32_t next() { return next_++; }

 private:
  std::uint32_t next_ = 0;
};

/// x [B, ...] with elements set to zero with probability p and the others divided by 1 - p while training; x itself in evaluation.
at::Tensor dropout(const at::Tensor& x, double p, std::uint32_t place, const HeadPass& pass);

/// [B, columns] of ones with probability `keep` and zeros otherwise, like `like` in type and device.
at::Tensor draw_kept(std::int64_t rows, std::int64_t columns, double keep, std::uint32_t place, const HeadPass& pass,
                     const at::Tensor& like);

}  // namespace fusion
