#include "surrogate/lstm_network.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>

#include "base/error.h"
#include "base/random.h"

namespace fusion {

namespace {

enum Tensor : std::size_t {
  kEmbeddingWeight,
  kEmbeddingBias,
  kWeightIh,
  kWeightHh,
  kBiasIh,
  kBiasHh,
  kHeadWeight,
  kHeadBias,
  kTensors
};

constexpr std::array<std::string_view, kTensors> kNames{"embedding.weight", "embedding.bias", "lstm.weight_ih",
                                                        "lstm.weight_hh",   "lstm.bias_ih",   "lstm.bias_hh",
                                                        "head.weight",      "head.bias"};

std::array<std::size_t, kTensors> sizes_of(const LstmShape& shape) {
  const std::size_t gates = 4 * shape.hidden;
  return {shape.embedding * shape.input,
          shape.embedding,
          gates * shape.embedding,
          gates * shape.hidden,
          gates,
          gates,
          shape.hidden,
          1};
}

std::array<std::size_t, kTensors> offsets_of(const LstmShape& shape) {
  const auto sizes = sizes_of(shape);
  std::array<std::size_t, kTensors> offsets{};
  for (std::size_t i = 1; i < kTensors; ++i) offsets[i] = offsets[i - 1] + sizes[i - 1];
  return offsets;
}

/// Only ever grows: what is there already is not cleared again.
void room_for(AlignedFloats& values, std::size_t count) {
  if (values.size() < count) values.resize(count);
}

}  // namespace

SequenceBatch::SequenceBatch(std::size_t width, std::size_t length, std::span<const float> values)
    : width_(width), length_(length), count_(0) {
  if (width == 0 || length == 0 || values.size() % (width * length) != 0) {
    throw Error("sequences: " + std::to_string(values.size()) + " numbers are not a whole number of sequences of " +
                std::to_string(length) + " steps of " + std::to_string(width) + " numbers");
  }
  count_ = values.size() / (width * length);
  places_.resize(count_ * length_);
  std::map<std::vector<float>, std::uint32_t> known;
  for (std::size_t b = 0; b < count_; ++b) {
    for (std::size_t t = 0; t < length_; ++t) {
      const std::span<const float> step = values.subspan((b * length_ + t) * width_, width_);
      const auto [found, fresh] =
          known.try_emplace(std::vector<float>(step.begin(), step.end()), static_cast<std::uint32_t>(known.size()));
      if (fresh) steps_.insert(steps_.end(), step.begin(), step.end());
      places_[t * count_ + b] = found->second;
    }
  }
}

/// One batch through the network and back. The batch is cut into blocks of rows that fit in the cache.
///
/// Arrays are [features][rows], rows contiguous and padded to lanes. U different steps, B rows of a block, T steps.
/// Padding rows carry finite numbers that nobody reads; their gradients are zero.
class LstmNetwork::Pass {
 public:
  Pass(const LstmNetwork& network, const SequenceBatch& batch, float* gradient)
      : shape_(network.shape_),
        kernels_(*network.kernels_),
        batch_(batch),
        weights_(network.weights_.data()),
        gradient_(gradient),
        offsets_(offsets_of(network.shape_)),
        gate_count_(4 * shape_.hidden),
        steps_(padded(batch.different_steps())),
        most_(std::min(kBlock, padded(batch.count()))),
        block_(most_),
        b_(network.buffers_) {
    embed();
    allocate_block();
  }

  /// Predictions of the rows from `begin` on, at most block() of them.
  std::span<const float> forward(std::size_t begin);
  /// After forward(begin): adds the block's gradient, given d loss / d prediction of its rows.
  void backward(std::size_t begin, std::span<const float> prediction_gradient);
  /// After the last block: what goes through the different steps.
  void finish_gradient();
  std::size_t block() const { return most_; }

 private:
  static constexpr std::size_t kBlock = 64;

  const float* weights(Tensor tensor) const { return weights_ + offsets_[tensor]; }
  float* gradient(Tensor tensor) const { return gradient_ + offsets_[tensor]; }
  std::size_t plane() const { return shape_.hidden * block_; }
  float* at(AlignedFloats& steps, std::size_t t, std::size_t size) const { return steps.data() + t * size; }
  void multiply(MatrixProduct product) {
    product.scratch = b_.scratch.data();
    kernels_.multiply(product);
  }
  void embed();
  void allocate_block();
  void gather(std::size_t t, std::size_t begin, std::size_t rows, float* gates) const;
  void scatter(std::size_t t, std::size_t begin, std::size_t rows, const float* gates);
  void transpose(const float* h, float* by_row) const;
  void head_gradient(std::size_t rows, std::span<const float> prediction_gradient);
  LstmCell cell(std::size_t t);
  void copy_rows(const AlignedFloats& from, std::size_t from_stride, std::size_t rows, std::size_t columns,
                 float* to) const;

  const LstmShape shape_;
  const LstmKernels& kernels_;
  const SequenceBatch& batch_;
  const float* const weights_;
  float* const gradient_;
  const std::array<std::size_t, kTensors> offsets_;
  const std::size_t gate_count_;
  const std::size_t steps_;  ///< U, padded
  const std::size_t most_;   ///< rows of the longest block, padded
  std::size_t block_;        ///< rows of the block in hand, padded: the last one may be shorter

  Buffers& b_;
};

void LstmNetwork::Pass::embed() {
  const std::size_t count = batch_.different_steps();
  room_for(b_.scratch, std::max({gate_count_, shape_.embedding, shape_.input, steps_, kBlock}) * kLanes);
  AlignedFloats inputs(shape_.input * steps_);
  for (std::size_t u = 0; u < count; ++u) {
    for (std::size_t i = 0; i < shape_.input; ++i) inputs[i * steps_ + u] = batch_.steps()[u * shape_.input + i];
  }
  room_for(b_.embedded, shape_.embedding * steps_);
  for (std::size_t j = 0; j < shape_.embedding; ++j) {
    std::fill_n(b_.embedded.begin() + j * steps_, steps_, weights(kEmbeddingBias)[j]);
  }
  multiply({shape_.embedding, shape_.input, steps_, weights(kEmbeddingWeight), shape_.input, 1, inputs.data(), steps_,
            b_.embedded.data(), steps_, true});
  kernels_.sigmoid(b_.embedded.data(), shape_.embedding * steps_);
  room_for(b_.from_steps, gate_count_ * steps_);
  for (std::size_t r = 0; r < gate_count_; ++r) {
    std::fill_n(b_.from_steps.begin() + r * steps_, steps_, weights(kBiasIh)[r] + weights(kBiasHh)[r]);
  }
  multiply({gate_count_, shape_.embedding, steps_, weights(kWeightIh), shape_.embedding, 1, b_.embedded.data(), steps_,
            b_.from_steps.data(), steps_, true});
}

void LstmNetwork::Pass::allocate_block() {
  const std::size_t length = batch_.length();
  room_for(b_.gates, length * 4 * plane());
  for (AlignedFloats* values : {&b_.c, &b_.tanh_c, &b_.h}) room_for(*values, length * plane());
  room_for(b_.prediction, block_);
  if (gradient_ == nullptr) return;
  room_for(b_.h_by_row, length * block_ * padded(shape_.hidden));
  for (AlignedFloats* values : {&b_.h_gradient, &b_.c_gradient}) room_for(*values, plane());
  room_for(b_.logit_gradient, block_);
  b_.step_gradient.assign(gate_count_ * steps_, 0.0f);
  b_.hh_gradient.assign(gate_count_ * padded(shape_.hidden), 0.0f);
  b_.head_sum.assign(padded(shape_.hidden), 0.0f);
}

void LstmNetwork::Pass::gather(std::size_t t, std::size_t begin, std::size_t rows, float* gates) const {
  const std::uint32_t* places = batch_.places(t).data() + begin;
  for (std::size_t r = 0; r < gate_count_; ++r) {
    const float* from = b_.from_steps.data() + r * steps_;
    float* to = gates + r * block_;
    for (std::size_t b = 0; b < rows; ++b) to[b] = from[places[b]];
    std::fill(to + rows, to + block_, 0.0f);
  }
}

void LstmNetwork::Pass::scatter(std::size_t t, std::size_t begin, std::size_t rows, const float* gates) {
  const std::uint32_t* places = batch_.places(t).data() + begin;
  for (std::size_t r = 0; r < gate_count_; ++r) {
    float* to = b_.step_gradient.data() + r * steps_;
    const float* from = gates + r * block_;
    for (std::size_t b = 0; b < rows; ++b) to[places[b]] += from[b];
  }
}

void LstmNetwork::Pass::transpose(const float* h, float* by_row) const {
  const std::size_t stride = padded(shape_.hidden);
  for (std::size_t k = 0; k < shape_.hidden; ++k) {
    for (std::size_t b = 0; b < block_; ++b) by_row[b * stride + k] = h[k * block_ + b];
  }
}

LstmCell LstmNetwork::Pass::cell(std::size_t t) {
  LstmCell step;
  step.count = plane();
  step.gates = at(b_.gates, t, 4 * plane());
  step.c_before = t == 0 ? nullptr : at(b_.c, t - 1, plane());
  step.c = at(b_.c, t, plane());
  step.tanh_c = at(b_.tanh_c, t, plane());
  step.h = at(b_.h, t, plane());
  return step;
}

std::span<const float> LstmNetwork::Pass::forward(std::size_t begin) {
  const std::size_t rows = std::min(most_, batch_.count() - begin);
  block_ = padded(rows);
  for (std::size_t t = 0; t < batch_.length(); ++t) {
    const LstmCell step = cell(t);
    gather(t, begin, rows, step.gates);
    if (t > 0) {
      multiply({gate_count_, shape_.hidden, block_, weights(kWeightHh), shape_.hidden, 1, at(b_.h, t - 1, plane()),
                block_, step.gates, block_, true});
    }
    kernels_.forward(step);
  }
  std::fill(b_.prediction.begin(), b_.prediction.end(), weights(kHeadBias)[0]);
  multiply({1, shape_.hidden, block_, weights(kHeadWeight), shape_.hidden, 1, at(b_.h, batch_.length() - 1, plane()),
            block_, b_.prediction.data(), block_, true});
  kernels_.sigmoid(b_.prediction.data(), block_);
  return {b_.prediction.data(), rows};
}

void LstmNetwork::Pass::head_gradient(std::size_t rows, std::span<const float> prediction_gradient) {
  std::fill(b_.logit_gradient.begin(), b_.logit_gradient.end(), 0.0f);
  for (std::size_t b = 0; b < rows; ++b) {
    b_.logit_gradient[b] = prediction_gradient[b] * b_.prediction[b] * (1.0f - b_.prediction[b]);
    gradient(kHeadBias)[0] += b_.logit_gradient[b];
  }
  const std::size_t stride = padded(shape_.hidden);
  multiply({1, rows, stride, b_.logit_gradient.data(), 0, 1, at(b_.h_by_row, batch_.length() - 1, block_ * stride), stride,
            b_.head_sum.data(), stride, true});
  for (std::size_t k = 0; k < shape_.hidden; ++k) {
    for (std::size_t b = 0; b < block_; ++b) b_.h_gradient[k * block_ + b] = weights(kHeadWeight)[k] * b_.logit_gradient[b];
  }
}

void LstmNetwork::Pass::backward(std::size_t begin, std::span<const float> prediction_gradient) {
  const std::size_t rows = prediction_gradient.size();
  const std::size_t length = batch_.length();
  const std::size_t stride = padded(shape_.hidden);
  for (std::size_t t = 0; t < length; ++t) transpose(at(b_.h, t, plane()), at(b_.h_by_row, t, block_ * stride));
  head_gradient(rows, prediction_gradient);
  std::fill(b_.c_gradient.begin(), b_.c_gradient.end(), 0.0f);
  for (std::size_t t = length; t-- > 0;) {
    LstmCell step = cell(t);
    step.h_gradient = b_.h_gradient.data();
    step.c_gradient = b_.c_gradient.data();
    kernels_.backward(step);  // step.gates now holds the gradient of the pre-activations
    scatter(t, begin, rows, step.gates);
    if (t == 0) break;
    multiply({gate_count_, rows, stride, step.gates, block_, 1, at(b_.h_by_row, t - 1, block_ * stride), stride,
              b_.hh_gradient.data(), stride, true});
    multiply({shape_.hidden, gate_count_, block_, weights(kWeightHh), 1, shape_.hidden, step.gates, block_,
              b_.h_gradient.data(), block_, false});
  }
}

void LstmNetwork::Pass::copy_rows(const AlignedFloats& from, std::size_t from_stride, std::size_t rows,
                                  std::size_t columns, float* to) const {
  for (std::size_t r = 0; r < rows; ++r) std::copy_n(from.data() + r * from_stride, columns, to + r * columns);
}

void LstmNetwork::Pass::finish_gradient() {
  const std::size_t count = batch_.different_steps();
  const std::size_t width = padded(shape_.embedding);
  copy_rows(b_.hh_gradient, padded(shape_.hidden), gate_count_, shape_.hidden, gradient(kWeightHh));
  copy_rows(b_.head_sum, b_.head_sum.size(), 1, shape_.hidden, gradient(kHeadWeight));
  for (std::size_t r = 0; r < gate_count_; ++r) {
    float sum = 0;
    for (std::size_t u = 0; u < count; ++u) sum += b_.step_gradient[r * steps_ + u];
    gradient(kBiasIh)[r] = gradient(kBiasHh)[r] = sum;
  }
  room_for(b_.by_step, steps_ * width);
  room_for(b_.ih_gradient, gate_count_ * width);
  room_for(b_.embedded_gradient, shape_.embedding * steps_);
  for (std::size_t u = 0; u < count; ++u) {
    for (std::size_t j = 0; j < shape_.embedding; ++j) b_.by_step[u * width + j] = b_.embedded[j * steps_ + u];
  }
  multiply({gate_count_, count, width, b_.step_gradient.data(), steps_, 1, b_.by_step.data(), width, b_.ih_gradient.data(),
            width, false});
  copy_rows(b_.ih_gradient, width, gate_count_, shape_.embedding, gradient(kWeightIh));
  multiply({shape_.embedding, gate_count_, steps_, weights(kWeightIh), 1, shape_.embedding, b_.step_gradient.data(),
            steps_, b_.embedded_gradient.data(), steps_, false});
  for (std::size_t j = 0; j < shape_.embedding; ++j) {
    for (std::size_t u = 0; u < count; ++u) {
      const float e = b_.embedded[j * steps_ + u];
      const float before = b_.embedded_gradient[j * steps_ + u] * (e * (1.0f - e));
      gradient(kEmbeddingBias)[j] += before;
      for (std::size_t i = 0; i < shape_.input; ++i) {
        gradient(kEmbeddingWeight)[j * shape_.input + i] += before * batch_.steps()[u * shape_.input + i];
      }
    }
  }
}

LstmNetwork::LstmNetwork(const LstmShape& shape, std::uint64_t seed) : shape_(shape) {
  if (shape.input == 0 || shape.embedding == 0 || shape.hidden == 0) {
    throw Error("LSTM surrogate: every size must be positive, got input " + std::to_string(shape.input) +
                ", embedding " + std::to_string(shape.embedding) + ", hidden " + std::to_string(shape.hidden));
  }
  for (const std::size_t size : sizes_of(shape)) weight_count_ += size;
  for (AlignedFloats* values : {&weights_, &gradient_, &first_, &second_}) values->assign(padded(weight_count_), 0.0f);
  const double bound = 1.0 / std::sqrt(static_cast<double>(shape.hidden));
  const std::array<double, kTensors> bounds{0.1, 0, bound, bound, bound, bound, 0.1, 0};
  for (std::size_t i = 0; i < kTensors; ++i) {
    Rng rng(seed, i);
    for (float& weight : weights(kNames[i])) {
      weight = bounds[i] == 0 ? 1.8f : static_cast<float>(rng.uniform(-bounds[i], bounds[i]));
    }
  }
}

std::span<const std::string_view> LstmNetwork::tensor_names() { return kNames; }

LstmNetwork::Place LstmNetwork::place_of(std::string_view name) const {
  const auto found = std::find(kNames.begin(), kNames.end(), name);
  if (found == kNames.end()) throw Error("LSTM surrogate: there is no tensor \"" + std::string(name) + "\"");
  const auto index = static_cast<std::size_t>(found - kNames.begin());
  return {offsets_of(shape_)[index], sizes_of(shape_)[index]};
}

std::span<float> LstmNetwork::weights(std::string_view name) {
  const Place place = place_of(name);
  return {weights_.data() + place.begin, place.count};
}

std::span<const float> LstmNetwork::weights(std::string_view name) const {
  const Place place = place_of(name);
  return {weights_.data() + place.begin, place.count};
}

std::span<const float> LstmNetwork::gradient(std::string_view name) const {
  const Place place = place_of(name);
  return {gradient_.data() + place.begin, place.count};
}

void LstmNetwork::check(const SequenceBatch& batch) const {
  if (batch.width() != shape_.input) {
    throw Error("LSTM surrogate: expected " + std::to_string(shape_.input) + " numbers per step, got " +
                std::to_string(batch.width()));
  }
}

std::vector<float> LstmNetwork::predict(const SequenceBatch& batch) const {
  check(batch);
  std::vector<float> predictions;
  if (batch.count() == 0) return predictions;
  predictions.reserve(batch.count());
  Pass pass(*this, batch, nullptr);
  for (std::size_t begin = 0; begin < batch.count(); begin += pass.block()) {
    const std::span<const float> rows = pass.forward(begin);
    predictions.insert(predictions.end(), rows.begin(), rows.end());
  }
  return predictions;
}

double LstmNetwork::backpropagate(const SequenceBatch& batch, std::span<const float> targets) {
  check(batch);
  if (targets.size() != batch.count() || targets.empty()) {
    throw Error("LSTM surrogate: got " + std::to_string(targets.size()) + " targets for " +
                std::to_string(batch.count()) + " sequences; there must be one for each, and at least one");
  }
  std::fill(gradient_.begin(), gradient_.end(), 0.0f);
  Pass pass(*this, batch, gradient_.data());
  const float scale = 2.0f / static_cast<float>(batch.count());
  double squares = 0;
  std::vector<float> slope;
  for (std::size_t begin = 0; begin < batch.count(); begin += pass.block()) {
    const std::span<const float> rows = pass.forward(begin);
    slope.clear();
    for (std::size_t b = 0; b < rows.size(); ++b) {
      const float error = rows[b] - targets[begin + b];
      squares += static_cast<double>(error) * static_cast<double>(error);
      slope.push_back(scale * error);
    }
    pass.backward(begin, slope);
  }
  pass.finish_gradient();
  return squares / static_cast<double>(batch.count());
}

double LstmNetwork::train_step(const SequenceBatch& batch, std::span<const float> targets, const AdamOptions& adam) {
  const double loss = backpropagate(batch, targets);
  beta1_power_ *= adam.beta1;
  beta2_power_ *= adam.beta2;
  AdamUpdate update;
  update.count = weights_.size();
  update.weights = weights_.data();
  update.gradient = gradient_.data();
  update.first = first_.data();
  update.second = second_.data();
  update.beta1 = static_cast<float>(adam.beta1);
  update.one_minus_beta1 = static_cast<float>(1 - adam.beta1);
  update.beta2 = static_cast<float>(adam.beta2);
  update.one_minus_beta2 = static_cast<float>(1 - adam.beta2);
  update.step = static_cast<float>(adam.lr / (1 - beta1_power_));
  update.root_correction = static_cast<float>(std::sqrt(1 - beta2_power_));
  update.epsilon = static_cast<float>(adam.epsilon);
  kernels_->adam(update);
  return loss;
}

}  // namespace fusion
