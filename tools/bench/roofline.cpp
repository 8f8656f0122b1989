#include "tools/bench/roofline.h"

#include <chrono>
#include <map>
#include <memory>

#include "model/device.h"
#include "tools/bench/engine_run.h"
#include "workers/train/stacked_forwarding.h"
#include "workers/train/stacked_trainer.h"

namespace fusion::bench {
namespace {

using stacked::Scene;

constexpr int kLaunches = 20;  // of each kernel in a row

/// Does everything several times and notes how long it took. What is computed is of no use afterwards, how long it takes is.
class TimedBackend final : public stacked::ForwardingBackend<float> {
 public:
  using Base = stacked::ForwardingBackend<float>;
  using Base::Base;

  void product(const stacked::ProductList<float>& list, const Scene<float>& scene) override {
    timed("product", scene, [&] { Base::product(list, scene); });
  }
  void activate(const stacked::StepTask<float>* tasks, std::int32_t count, const Scene<float>& scene) override {
    timed("activate", scene, [&] { Base::activate(tasks, count, scene); });
  }
  void activate_back(const stacked::StepTask<float>* tasks, std::int32_t count, const Scene<float>& scene) override {
    timed("activate_back", scene, [&] { Base::activate_back(tasks, count, scene); });
  }
  void softmax_loss(const stacked::HeadTask<float>* tasks, std::int32_t count, const Scene<float>& scene) override {
    timed("softmax_loss", scene, [&] { Base::softmax_loss(tasks, count, scene); });
  }
  void adam(const stacked::AdamTask<float>* tasks, std::int32_t count, std::int64_t most, const Scene<float>& scene) override {
    timed("adam", scene, [&] { Base::adam(tasks, count, most, scene); });
  }
  void repeat(std::int32_t times, std::uint64_t, const std::function<void()>& work) override {
    for (std::int32_t i = 0; i < times; ++i) work();
    steps_ += times;
  }

  /// Per step.
  KernelFigures figures(const std::string& name) const {
    const auto found = figures_.find(name);
    KernelFigures mean = found == figures_.end() ? KernelFigures{} : found->second;
    mean.name = name;
    mean.launches /= steps_;
    mean.seconds /= steps_;
    return mean;
  }

 private:
  template <typename Launch>
  void timed(const char* name, const Scene<float>& scene, Launch launch) {
    if (!scene.training) return launch();
    launch();
    wait(scene);
    const auto begin = std::chrono::steady_clock::now();
    for (int i = 0; i < kLaunches; ++i) launch();
    wait(scene);
    KernelFigures& of = figures_[name];
    of.seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() / kLaunches;
    ++of.launches;
  }
  void wait(const Scene<float>& scene) {
    stacked::Position unused;
    download(&unused, scene.position, sizeof unused);
  }

  std::map<std::string, KernelFigures> figures_;
  int steps_ = 0;
};

/// What docs/trainer-stacked.md says of one trial's step, added up.
void add_costs(const Architecture& architecture, const Shape& shape, std::map<std::string, KernelFigures>& costs) {
  const double rows = static_cast<double>(shape.options.batch), width = shape.options.width;
  const auto classes = static_cast<double>(shape.classes);
  double parameters = (width + 1) * classes;
  double inputs = 0;
  for (const FusionStep& step : architecture.steps) {
    for (std::size_t m = 0; m < step.taps.size(); ++m) {
      inputs += static_cast<double>(shape.widths[m][static_cast<std::size_t>(step.taps[m])]);
    }
    const double outputs = step.op == FusionOp::glu ? 2 * width : width;
    parameters += (inputs + 1) * outputs;
    KernelFigures& product = costs["product"];
    product.operations += 4 * rows * (inputs + 1) * outputs + (&step == &architecture.steps.front() ? 0 : 2 * rows * width * outputs);
    product.bytes += 12 * (inputs + 1) * outputs + 12 * rows * outputs + 8 * rows * width;
    for (const char* const name : {"activate", "activate_back"}) {
      costs[name].operations += 5 * rows * outputs;
      costs[name].bytes += 8 * rows * outputs + 4 * rows * width;
    }
    inputs = width;
  }
  costs["product"].operations += 6 * rows * (width + 1) * classes;
  costs["product"].bytes += 16 * (width + 1) * classes + 12 * rows * classes + 12 * rows * width;
  costs["softmax_loss"].operations += 5 * rows * classes;
  costs["softmax_loss"].bytes += 8 * rows * classes + 4 * rows;
  costs["adam"].operations += 12 * parameters;
  costs["adam"].bytes += 28 * parameters;
}

}  // namespace

std::vector<KernelFigures> roofline(const Shape& shape, std::size_t trials, const std::string& device) {
  const int gpu = gpu_index(device);
  TimedBackend backend(gpu < 0 ? stacked::make_cpu_backend<float>() : stacked::make_cuda_backend<float>(gpu));
  const std::vector<Architecture> architectures = architectures_of(shape, trials);
  const FeatureSplit train = make_split(shape, shape.options.batch, 7), dev = first_rows(train, 16);
  std::vector<PackTrial> pack;
  std::map<std::string, KernelFigures> costs;
  for (std::size_t i = 0; i < trials; ++i) {
    pack.emplace_back().job = TrialJob{TrialId{static_cast<std::int64_t>(i + 1)}, 1, architectures[i], seed_of(i)};
    add_costs(architectures[i], shape, costs);
  }
  for (const auto& of_modality : shape.widths) {  // forwards and backwards
    for (const std::int64_t width : of_modality) costs["product"].bytes += 8 * static_cast<double>(shape.options.batch * width);
  }
  PackContext context;
  context.on_end = [](const TrialOutcome&) {};  // they may well fail: their steps were taken many times over
  train_stacked<float>(std::move(pack), shape.options, TrainingData{shape.classes, train, dev}, context, backend);
  std::vector<KernelFigures> all;
  for (const char* const name : {"product", "activate", "softmax_loss", "activate_back", "adam"}) {
    KernelFigures figures = backend.figures(name);
    figures.operations = costs[name].operations;
    figures.bytes = costs[name].bytes;
    all.push_back(figures);
  }
  return all;
}

}  // namespace fusion::bench
