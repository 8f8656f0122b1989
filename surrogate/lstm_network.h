#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "surrogate/lstm_kernels.h"

namespace fusion {

/// Sizes: numbers per step, embedding E, hidden H.
struct LstmShape {
  std::size_t input = 3;
  std::size_t embedding = 100;
  std::size_t hidden = 100;
  bool operator==(const LstmShape&) const = default;
};

/// Adam as in the reference: no weight decay.
struct AdamOptions {
  double lr = 1e-3;
  double beta1 = 0.9, beta2 = 0.999;
  double epsilon = 1e-8;
};

/// B sequences of the same length T, prepared for a network: steps that are equal (a search has a few dozen different
/// ones) are kept once, so that everything before the recurrence is computed once per different step.
class SequenceBatch {
 public:
  /// `values` is [B, T, width] row-major. Throws Error unless width and T are positive and divide its size.
  SequenceBatch(std::size_t width, std::size_t length, std::span<const float> values);

  std::size_t width() const { return width_; }
  std::size_t length() const { return length_; }
  std::size_t count() const { return count_; }
  std::size_t different_steps() const { return steps_.size() / width_; }
  /// [different steps, width], in the order in which they first appear.
  std::span<const float> steps() const { return steps_; }
  /// Which different step stands at place t of every sequence, [B].
  std::span<const std::uint32_t> places(std::size_t t) const { return {places_.data() + t * count_, count_}; }

 private:
  std::size_t width_, length_, count_;
  std::vector<float> steps_;
  std::vector<std::uint32_t> places_;  ///< [T, B]
};

/// Floats on cache lines.
template <typename T>
struct CacheLineAllocator {
  using value_type = T;
  CacheLineAllocator() = default;
  template <typename U>
  explicit CacheLineAllocator(const CacheLineAllocator<U>&) {}
  T* allocate(std::size_t n) { return static_cast<T*>(::operator new (n * sizeof(T), std::align_val_t{64})); }
  void deallocate(T* memory, std::size_t) { ::operator delete (memory, std::align_val_t{64}); }
  bool operator==(const CacheLineAllocator&) const { return true; }
};
using AlignedFloats = std::vector<float, CacheLineAllocator<float>>;

/// The MFAS surrogate's network: from a sequence of steps to one score in (0, 1).
///
///   e_t = sigmoid(E x_t + e)                                        embedding.weight [E, input], embedding.bias [E]
///   i, f, g, o = sigmoid, sigmoid, tanh, sigmoid of W e_t + b + U h_(t-1) + d
///       lstm.weight_ih W [4H, E], lstm.weight_hh U [4H, H], lstm.bias_ih b [4H], lstm.bias_hh d [4H]; gates i, f, g, o
///   c_t = f c_(t-1) + i g,   h_t = o tanh(c_t),   zero start
///   prediction = sigmoid(head.weight [1, H] h_T + head.bias [1])
///
/// Float32, gradients derived by hand, Adam. Plain C++ with a fixed order of summation: equal bits on every x86-64
/// machine. The prediction for a sequence does not depend, to the last bit, on what else is in the batch. Copyable; one
/// thread at a time.
class LstmNetwork {
 public:
  /// Initialised as in the reference: weights of the two linear layers uniform in +-0.1 and their biases 1.8 (so the
  /// untrained network answers well above 0.8), everything in the LSTM uniform in +-1/sqrt(H). Throws Error for a size
  /// of 0.
  LstmNetwork(const LstmShape& shape, std::uint64_t seed);

  const LstmShape& shape() const { return shape_; }
  /// The names above, in that order.
  static std::span<const std::string_view> tensor_names();
  /// A tensor's weights, row-major, to read or to set; throws Error for a name that is not there.
  std::span<float> weights(std::string_view name);
  std::span<const float> weights(std::string_view name) const;
  /// The gradient of the last train_step or gradient().
  std::span<const float> gradient(std::string_view name) const;
  /// All weights, tensors one after another.
  std::span<const float> all_weights() const { return {weights_.data(), weight_count_}; }

  /// One number per sequence. Throws Error if the batch's width is not the network's.
  std::vector<float> predict(const SequenceBatch& batch) const;
  /// Mean squared error of the batch, whose gradient is left for `gradient(name)`; changes no weight.
  double backpropagate(const SequenceBatch& batch, std::span<const float> targets);
  /// One full-batch step: backpropagate, then Adam. Returns the loss before the update.
  double train_step(const SequenceBatch& batch, std::span<const float> targets, const AdamOptions& adam);

  /// Uses another set of inner loops; results are the same bits (the tests hold every set to it).
  void use(const LstmKernels& kernels) { kernels_ = &kernels; }

 private:
  class Pass;
  /// What a pass computes in, kept from one to the next: to allocate it anew for each step of a fit costs as much as some of the step.
  struct Buffers {
    AlignedFloats scratch;
    AlignedFloats embedded;                    ///< [E][U]
    AlignedFloats from_steps;                  ///< [4H][U]: W e + b + d
    AlignedFloats step_gradient;               ///< [4H][U]: sums of the gate gradients by different step
    AlignedFloats hh_gradient;                 ///< [4H][padded H]
    AlignedFloats head_sum;                    ///< [padded H]
    AlignedFloats gates, c, tanh_c, h;         ///< [T][4H or H][B]
    AlignedFloats h_by_row;                    ///< [T][B][padded H]
    AlignedFloats h_gradient, c_gradient;      ///< [H][B]
    AlignedFloats prediction, logit_gradient;  ///< [B]
    AlignedFloats by_step, ih_gradient, embedded_gradient;  ///< [U][padded E], [4H][padded E], [E][U]
  };
  struct Place {
    std::size_t begin, count;
  };
  Place place_of(std::string_view name) const;
  void check(const SequenceBatch& batch) const;

  LstmShape shape_;
  const LstmKernels* kernels_ = &lstm_kernels();
  std::size_t weight_count_ = 0;
  // All of them hold the eight tensors one after another, padded with zeros at the end to a multiple of kLanes.
  AlignedFloats weights_, gradient_, first_, second_;
  mutable Buffers buffers_;
  double beta1_power_ = 1,
         beta2_power_ = 1;  ///< beta^n after n updates, by multiplication: pow differs between C libraries
};

}  // namespace fusion
