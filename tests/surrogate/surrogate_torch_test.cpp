// The plain C++ network held to LibTorch: at::lstm, autograd and torch's Adam from the same weights.
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/optim/adam.h>

#include "surrogate/lstm_network.h"
#include "tests/surrogate/sequences.h"

namespace fusion {
namespace {

using testing::random_targets;
using testing::random_values;

class TorchTwin {
 public:
  explicit TorchTwin(const LstmNetwork& network) : shape_(network.shape()) {
    const auto e = static_cast<std::int64_t>(shape_.embedding), h = static_cast<std::int64_t>(shape_.hidden),
               i = static_cast<std::int64_t>(shape_.input);
    const std::vector<std::vector<std::int64_t>> shapes{{e, i},  {e},     {4 * h, e}, {4 * h, h},
                                                        {4 * h}, {4 * h}, {1, h},     {1}};
    for (std::size_t n = 0; n < shapes.size(); ++n) {
      const auto weights = network.weights(LstmNetwork::tensor_names()[n]);
      const std::vector<float> copy(weights.begin(), weights.end());
      tensors_.push_back(at::tensor(copy).reshape(shapes[n]).set_requires_grad(true));
    }
    adam_ = std::make_unique<torch::optim::Adam>(tensors_, torch::optim::AdamOptions(1e-3));
  }

  at::Tensor predict(const std::vector<float>& values, std::size_t length) const {  // [B]
    const auto width = static_cast<std::int64_t>(shape_.input), hidden = static_cast<std::int64_t>(shape_.hidden);
    const at::Tensor x = at::tensor(values).reshape({-1, static_cast<std::int64_t>(length), width}).transpose(0, 1);
    const at::Tensor e = at::sigmoid(at::linear(x, tensors_[0], tensors_[1]));  // [T, B, E]
    const at::Tensor zero = at::zeros({1, x.size(1), hidden});
    const auto [all, h, c] = at::lstm(e, {zero, zero}, {tensors_[2], tensors_[3], tensors_[4], tensors_[5]}, true, 1,
                                      0.0, true, false, false);
    return at::sigmoid(at::linear(all[-1], tensors_[6], tensors_[7])).squeeze(1);
  }
  double train_step(const std::vector<float>& values, std::size_t length, const std::vector<float>& targets) {
    adam_->zero_grad();
    const at::Tensor loss = at::mse_loss(predict(values, length), at::tensor(targets));
    loss.backward();
    adam_->step();
    return loss.item<double>();
  }
  const at::Tensor& tensor(std::size_t n) const { return tensors_[n]; }

 private:
  LstmShape shape_;
  std::vector<at::Tensor> tensors_;
  std::unique_ptr<torch::optim::Adam> adam_;
};

void expect_near(std::span<const float> ours, const at::Tensor& theirs, double atol, double rtol,
                 const std::string& what) {
  const at::Tensor flat = theirs.detach().reshape({-1}).contiguous();
  ASSERT_EQ(static_cast<std::int64_t>(ours.size()), flat.numel()) << what;
  const float* expected = flat.data_ptr<float>();
  for (std::size_t i = 0; i < ours.size(); ++i) {
    const double value = static_cast<double>(expected[i]);
    ASSERT_NEAR(static_cast<double>(ours[i]), value, atol + rtol * std::abs(value)) << what << " [" << i << "]";
  }
}

struct Sizes {
  LstmShape shape;
  std::size_t count, length;
};

TEST(SurrogateTorchTest, PredictionsAndGradientsAreThoseOfAutograd) {
  for (const Sizes& sizes : std::vector<Sizes>{{{3, 100, 100}, 150, 4}, {{4, 7, 13}, 5, 6}, {{2, 32, 16}, 1, 1}}) {
    Rng rng(31);
    LstmNetwork network(sizes.shape, 32);
    TorchTwin twin(network);
    const auto values = random_values(rng, sizes.count, sizes.length, sizes.shape.input);
    const auto targets = random_targets(rng, sizes.count);
    const SequenceBatch batch(sizes.shape.input, sizes.length, values);
    expect_near(network.predict(batch), twin.predict(values, sizes.length), 1e-6, 0, "prediction");
    EXPECT_NEAR(network.backpropagate(batch, targets), twin.train_step(values, sizes.length, targets), 1e-6);
    for (std::size_t n = 0; n < LstmNetwork::tensor_names().size(); ++n) {
      const std::string name(LstmNetwork::tensor_names()[n]);
      expect_near(network.gradient(name), twin.tensor(n).grad(), 1e-7, 1e-3, name);
    }
  }
}

TEST(SurrogateTorchTest, FiftyEpochsOverFourLengthsStayTogether) {
  Rng rng(33);
  LstmNetwork network({3, 100, 100}, 34);
  TorchTwin twin(network);
  const std::vector<std::size_t> counts{30, 15, 15, 80};
  std::vector<std::vector<float>> values, targets;
  std::vector<SequenceBatch> batches;
  for (std::size_t n = 0; n < counts.size(); ++n) {
    values.push_back(random_values(rng, counts[n], n + 1, 3));
    targets.push_back(random_targets(rng, counts[n]));
    batches.emplace_back(3, n + 1, values[n]);
  }
  for (int epoch = 0; epoch < 50; ++epoch) {
    for (std::size_t n = 0; n < counts.size(); ++n) {
      const double ours = network.train_step(batches[n], targets[n], {});
      EXPECT_NEAR(ours, twin.train_step(values[n], n + 1, targets[n]), 2e-4)
          << "epoch " << epoch << " length " << n + 1;
    }
  }
  for (std::size_t n = 0; n < counts.size(); ++n) {
    expect_near(network.predict(batches[n]), twin.predict(values[n], n + 1), 5e-3, 0,
                "length " + std::to_string(n + 1));
  }
}

}  // namespace
}  // namespace fusion
