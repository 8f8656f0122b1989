#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "model/lenet.h"

namespace fusion {

/// A LeNet's evaluation mode on the CPU, several times as fast as LeNet::forward and equal to it within rounding (1e-5 of the values):
/// convolution, batch normalisation, relu, pooling and tap in one pass over 16 images at a time, one thread, on the widest vectors the
/// processor has.
///
/// A row's result depends on nothing but the row: not on the batch it stands in, and not on the x86-64 processor (sums are added in one
/// order, without fused multiply-add). Holds copies of the weights as they were. Not thread-safe.
class FrozenLeNet {
 public:
  /// Float32 weights on the CPU. `vector`: numbers in a vector, 4, 8 (AVX2) or 16 (AVX-512); 0 for the widest that the processor has.
  /// Throws ModelError for one that it does not have.
  explicit FrozenLeNet(const LeNet& network, int vector = 0);

  /// As LeNet::forward(x, false). x: [B, input_channels, height, width], float32.
  BackboneOutput forward(const at::Tensor& x) const;

 private:
  struct Layer {
    at::Tensor weights;       ///< [blocks of channels][in][ky][kx][channels of the block]
    at::Tensor scale, shift;  ///< [out]: batch normalisation as y = scale conv + shift
    at::Tensor input;         ///< [in][rows + border][columns + border][16]: scratch, its border stays 0
    at::Tensor sums;          ///< [out][16]: scratch
  };

  void run(std::size_t layer) const;

  LeNetOptions options_;
  int vector_;
  std::vector<Layer> layers_;
  at::Tensor rows_;  ///< scratch: two rows of four channels
  at::Tensor classifier_weight_, classifier_bias_;
};

}  // namespace fusion
