#include "tools/bench/lstm_twin.h"

#include <ATen/ATen.h>
#include <torch/optim/adam.h>

namespace fusion::bench {

struct LstmTwin::Twin {
  struct Bucket {
    at::Tensor values;   ///< [T, B, input]
    at::Tensor targets;  ///< [B]
  };

  at::Tensor predict(const at::Tensor& x) const {  // [B]
    const at::Tensor e = at::sigmoid(at::linear(x, tensors[0], tensors[1]));  // [T, B, E]
    const at::Tensor zero = at::zeros({1, x.size(1), tensors[3].size(1)});
    const auto [all, h, c] = at::lstm(e, {zero, zero}, {tensors[2], tensors[3], tensors[4], tensors[5]}, true, 1, 0.0, true, false, false);
    return at::sigmoid(at::linear(all[-1], tensors[6], tensors[7])).squeeze(1);
  }

  double step(const Bucket& bucket) {
    adam->zero_grad();
    const at::Tensor loss = at::mse_loss(predict(bucket.values), bucket.targets);
    loss.backward();
    adam->step();
    return loss.item<double>();
  }

  std::vector<at::Tensor> tensors;
  std::unique_ptr<torch::optim::Adam> adam;
  std::vector<Bucket> buckets;
};

LstmTwin::LstmTwin(const LstmNetwork& network) : twin_(std::make_unique<Twin>()) {
  const LstmShape& shape = network.shape();
  const auto e = static_cast<std::int64_t>(shape.embedding), h = static_cast<std::int64_t>(shape.hidden),
             i = static_cast<std::int64_t>(shape.input);
  const std::vector<std::vector<std::int64_t>> shapes{{e, i}, {e}, {4 * h, e}, {4 * h, h}, {4 * h}, {4 * h}, {1, h}, {1}};
  for (std::size_t n = 0; n < shapes.size(); ++n) {
    const auto weights = network.weights(LstmNetwork::tensor_names()[n]);
    const std::vector<float> copy(weights.begin(), weights.end());
    twin_->tensors.push_back(at::tensor(copy).reshape(shapes[n]).set_requires_grad(true));
  }
  twin_->adam = std::make_unique<torch::optim::Adam>(twin_->tensors, torch::optim::AdamOptions(1e-3));
}
LstmTwin::~LstmTwin() = default;

void LstmTwin::add_bucket(const std::vector<float>& values, std::size_t length, const std::vector<float>& targets) {
  const std::int64_t width = twin_->tensors[0].size(1);
  const at::Tensor x = at::tensor(values).reshape({-1, static_cast<std::int64_t>(length), width}).transpose(0, 1).contiguous();
  twin_->buckets.push_back({x, at::tensor(targets)});
}

std::vector<double> LstmTwin::fit(int epochs) {
  std::vector<double> losses(twin_->buckets.size());
  for (int epoch = 0; epoch < epochs; ++epoch) {
    for (std::size_t b = 0; b < losses.size(); ++b) losses[b] = twin_->step(twin_->buckets[b]);
  }
  return losses;
}

}  // namespace fusion::bench
