// The one file that includes all of torch/torch.h: this is what a user of LibTorch would write.
#include <torch/torch.h>

#include "tools/bench/naive_loop.h"

#include "workers/train/epoch_order.h"
#include "workers/train/schedule.h"

namespace fusion::bench {
namespace {

class NaiveNetwork : public torch::nn::Module {
 public:
  NaiveNetwork(const FusionNetwork& like, double dropout) : architecture_(like.architecture()), dropout_(dropout) {
    for (std::size_t i = 0; i < architecture_.steps.size(); ++i) {
      const std::string layer = "layer" + std::to_string(i);
      layers_.push_back(register_module(layer, torch::nn::Linear(like.input_width(i), like.options().width)));
      copy(like, layer + ".linear", layers_.back());
    }
    classifier_ = register_module("classifier", torch::nn::Linear(like.options().width, like.options().classes));
    copy(like, "classifier", classifier_);
  }

  /// taps[m][i]: [B, width], of those that are read.
  torch::Tensor forward(const std::vector<std::vector<torch::Tensor>>& taps) {
    torch::Tensor h;
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      const FusionStep& step = architecture_.steps[i];
      std::vector<torch::Tensor> parts;
      for (std::size_t m = 0; m < taps.size(); ++m) parts.push_back(taps[m][static_cast<std::size_t>(step.taps[m])]);
      if (i > 0) parts.push_back(h);
      h = layers_[i](torch::cat(parts, 1));  // [B, R]
      h = step.activation == Activation::relu ? torch::relu(h) : torch::sigmoid(h);
      if (dropout_ > 0) h = torch::dropout(h, dropout_, is_training());
    }
    return classifier_(h);  // [B, classes]
  }

 private:
  static void copy(const FusionNetwork& from, const std::string& name, torch::nn::Linear& to) {
    const torch::NoGradGuard no_grad;
    to->weight.copy_(from.parameters().at(name + ".weight"));
    to->bias.copy_(from.parameters().at(name + ".bias"));
  }

  Architecture architecture_;
  double dropout_;
  std::vector<torch::nn::Linear> layers_;
  torch::nn::Linear classifier_{nullptr};
};

}  // namespace

struct NaiveLoop::Loop {
  Loop(const Architecture& of, const Shape& shape, const TrainingOptions& with, const FeatureSplit& split, std::uint64_t seed,
       std::uint64_t order_seed)
      : architecture(of),
        options(with),
        train(split),
        network(FusionNetwork(of, shape.widths, FusionOptions{with.width, shape.classes}, seed), with.dropout),
        adam(network.parameters(), torch::optim::AdamOptions(with.eta_max).weight_decay(with.weight_decay)),
        schedule(with, split.rows) {
    const EpochOrder rows = epoch_order(split.rows, with.shuffle, order_seed, 0);
    order = torch::empty({split.rows}, torch::kLong);
    std::copy(rows->begin(), rows->end(), order.data_ptr<std::int64_t>());
  }

  double step(const torch::Tensor& rows) {
    std::vector<std::vector<torch::Tensor>> taps(train.taps.size());
    for (std::size_t m = 0; m < taps.size(); ++m) {
      taps[m].resize(train.taps[m].size());
      for (const FusionStep& of : architecture.steps) {
        const auto i = static_cast<std::size_t>(of.taps[m]);
        if (!taps[m][i].defined()) taps[m][i] = train.taps[m][i].index_select(0, rows);
      }
    }
    const torch::Tensor labels = train.labels.index_select(0, rows);
    adam.zero_grad();
    const torch::Tensor loss = torch::nn::functional::cross_entropy(network.forward(taps), labels);
    for (auto& group : adam.param_groups()) static_cast<torch::optim::AdamOptions&>(group.options()).lr(schedule.next());
    loss.backward();
    adam.step();
    return loss.item<double>();
  }

  const Architecture architecture;
  const TrainingOptions options;
  const FeatureSplit& train;
  NaiveNetwork network;
  torch::optim::Adam adam;
  CosineSchedule schedule;
  torch::Tensor order;
  std::int64_t place = 0;
};

NaiveLoop::NaiveLoop(const Architecture& architecture, const Shape& shape, const TrainingOptions& options, const FeatureSplit& train,
                     std::uint64_t seed, std::uint64_t order_seed)
    : loop_(std::make_unique<Loop>(architecture, shape, options, train, seed, order_seed)) {}
NaiveLoop::~NaiveLoop() = default;
NaiveLoop::NaiveLoop(NaiveLoop&&) noexcept = default;

double NaiveLoop::run(std::int64_t steps) {
  double sum = 0;
  std::int64_t seen = 0;
  for (std::int64_t s = 0; s < steps; ++s) {
    if (loop_->place == loop_->train.rows) loop_->place = 0;
    const std::int64_t rows = std::min<std::int64_t>(loop_->options.batch, loop_->train.rows - loop_->place);
    sum += loop_->step(loop_->order.narrow(0, loop_->place, rows)) * static_cast<double>(rows);
    loop_->place += rows;
    seen += rows;
  }
  return sum / static_cast<double>(seen);
}

}  // namespace fusion::bench
