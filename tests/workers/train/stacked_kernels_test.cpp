// The stacked engine's kernels against formulas written as plainly as can be: on the CPU by LibTorch's products and by the block programs
// that a GPU runs, and on a GPU where there is one.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <deque>

#include "base/random.h"
#include "model/dropout.h"
#include "model/random_streams.h"
#include "workers/train/stacked_backend.h"
#include "workers/train/stacked_bodies.h"

namespace fusion::stacked {
namespace {

enum class Device { torch, blocks, gpu };
std::string name_of_device(const ::testing::TestParamInfo<Device>& info) {
  return info.param == Device::torch ? "torch" : info.param == Device::blocks ? "blocks" : "gpu";
}

class StackedKernelsTest : public ::testing::TestWithParam<Device> {
 protected:
  void SetUp() override {
    if (GetParam() == Device::gpu) {
      if (cuda_devices() == 0) GTEST_SKIP() << "there is no GPU that this program can use";
      backend_ = make_cuda_backend<double>(0);
    } else {
      backend_ = make_cpu_backend<double>(GetParam() == Device::torch ? CpuProducts::torch : CpuProducts::blocks);
    }
    scene_.position = put<Position>({position_});
    scene_.live = put<std::uint8_t>({1, 0});
    scene_.cohorts = put<Cohort<double>>({cohort_});
    scene_.trials = 2;
    scene_.width = 5;
    scene_.classes = 7;
    scene_.rows = position_.batch;
    scene_.training = true;
  }
  void TearDown() override { memory_.clear(); }

  template <typename Item>
  Item* put(const std::vector<Item>& items) {
    memory_.emplace_back(*backend_, static_cast<std::int64_t>(items.size() * sizeof(Item)));
    backend_->upload(memory_.back().data(), items.data(), memory_.back().bytes());
    return static_cast<Item*>(memory_.back().data());
  }
  template <typename Item>
  std::vector<Item> get(const Item* from, std::size_t count) {
    std::vector<Item> items(count);
    backend_->download(items.data(), from, static_cast<std::int64_t>(count * sizeof(Item)));
    return items;
  }
  std::vector<double> numbers(std::size_t count) {
    std::vector<double> all(count);
    for (double& number : all) number = rng_.normal();
    return all;
  }

  Rng rng_{3};
  std::unique_ptr<Backend<double>> backend_;
  std::deque<DeviceMemory<double>> memory_;
  Position position_{.first = 37, .end = 100, .tile_first = 0, .batch = 41, .step = 2, .chunk_step = 1};
  Cohort<double> cohort_{};
  Scene<double> scene_;
};

/// One product's numbers on the host: inputs of every kind of source, side by side.
struct Given {
  static constexpr std::int32_t kRows = 41, kFirst = 37, kTap = 35, kHalfTap = 6, kOwn = 5, kInputs = kTap + kHalfTap + kOwn + 1;
  std::int32_t columns;
  double share;  // of the taps in float
  std::vector<float> features;
  std::vector<std::uint16_t> halves;
  std::vector<double> own, weights, upstream;
  std::vector<std::uint32_t> order;

  /// [rows, inputs], as the definition says.
  std::vector<double> left() const {
    std::vector<double> all;
    for (std::int32_t r = 0; r < kRows; ++r) {
      const std::size_t row = order[static_cast<std::size_t>(kFirst + r)];
      for (std::size_t c = 0; c < kTap; ++c) all.push_back(share * static_cast<double>(features[row * kTap + c]));
      for (std::size_t c = 0; c < kHalfTap; ++c) {
        const std::uint32_t bits = std::uint32_t{halves[row * kHalfTap + c]} << 16;
        float wide;
        std::memcpy(&wide, &bits, sizeof wide);
        all.push_back((1 - share) * static_cast<double>(wide));
      }
      for (std::int32_t c = 0; c < kOwn; ++c) all.push_back(own[static_cast<std::size_t>(r * kOwn + c)]);
      all.push_back(1);
    }
    return all;
  }
};

class StackedProductTest : public StackedKernelsTest {
 protected:
  static std::size_t count(std::int32_t rows, std::int32_t columns) { return static_cast<std::size_t>(rows * columns); }
  static double at(const std::vector<double>& matrix, std::int32_t stride, std::int32_t r, std::int32_t c) {
    return matrix[static_cast<std::size_t>(r * stride + c)];
  }
  Given given(std::int32_t columns, double share) {
    Given given{columns, share, {}, {}, {}, {}, {}, {}};
    for (const double x : numbers(100 * Given::kTap)) given.features.push_back(static_cast<float>(x));
    for (const double x : numbers(100 * Given::kHalfTap)) {
      const auto wide = static_cast<float>(x);
      std::uint32_t bits;
      std::memcpy(&bits, &wide, sizeof bits);
      given.halves.push_back(static_cast<std::uint16_t>(bits >> 16));
    }
    given.own = numbers(Given::kRows * Given::kOwn);
    given.weights = numbers(count(Given::kInputs, columns));
    given.upstream = numbers(count(Given::kRows, columns));
    for (std::uint32_t r = 0; r < 100; ++r) given.order.push_back((r * 37 + 11) % 100);
    return given;
  }
  /// Both kinds of blocks in turn, and more of them than needed.
  static void spread(const std::vector<ProductTask<double>>& tasks, std::int32_t columns, std::vector<BlockRef>& narrow, std::vector<BlockRef>& wide) {
    for (std::size_t t = 0; t < tasks.size(); ++t) {
      const bool in_wide = (t + static_cast<std::size_t>(columns)) % 2 == 0;
      for (std::int32_t r = 0; r < 96; r += in_wide ? 64 : 32) {
        for (std::int32_t c = 0; c < tasks[t].columns; c += in_wide ? 64 : 16) {
          (in_wide ? wide : narrow).push_back({static_cast<std::int32_t>(t), r, c});
        }
      }
    }
  }
  void run(const std::vector<ProductTask<double>>& tasks, const std::vector<Segment<double>>& segments, std::int32_t columns) {
    std::vector<BlockRef> narrow, wide;
    spread(tasks, columns, narrow, wide);
    backend_->product({put(tasks), put(segments), static_cast<std::int32_t>(tasks.size()), put(narrow), static_cast<std::int32_t>(narrow.size()),
                       put(wide), static_cast<std::int32_t>(wide.size())},
                      scene_);
  }
  /// got[r, c] is the sum of `term(r, c, k)` over `terms` k's.
  template <typename Term>
  void expect_sums(const double* there, std::int32_t rows, std::int32_t columns, std::int32_t terms, Term term) {
    const std::vector<double> got = get(there, count(rows, columns));
    for (std::int32_t r = 0; r < rows; ++r) {
      for (std::int32_t c = 0; c < columns; ++c) {
        double sum = 0;
        for (std::int32_t k = 0; k < terms; ++k) sum += term(r, c, k);
        ASSERT_NEAR(at(got, columns, r, c), sum, 1e-12) << r << " " << c;
      }
    }
  }
  void expect_products(std::int32_t columns);
};

void StackedProductTest::expect_products(std::int32_t columns) {
  constexpr std::int32_t kRows = Given::kRows, kTap = Given::kTap, kHalfTap = Given::kHalfTap, kOwn = Given::kOwn, kInputs = Given::kInputs;
  const double alpha = 0.3;
  const Given host = given(columns, 1 / (1 + std::exp(-alpha)));
  cohort_.order = put(host.order);
  scene_.cohorts = put<Cohort<double>>({cohort_});
  const double* const alpha_there = put<double>({alpha});
  const std::vector<Segment<double>> segments{{put(host.features), kTap, kTap, 0, Source::float32, Share::first, alpha_there},
                                              {put(host.halves), kHalfTap, kHalfTap, kTap, Source::bfloat16, Share::others, alpha_there},
                                              {put(host.own), kOwn, kOwn, kTap + kHalfTap, Source::numbers, Share::none, nullptr},
                                              {nullptr, 0, 1, kInputs - 1, Source::ones, Share::none, nullptr}};
  const double* const upstream = put(host.upstream);
  const double* const weights = put(host.weights);
  double* const out = put(std::vector<double>(count(kRows, columns)));
  double* const gradient = put(std::vector<double>(count(kInputs, columns)));
  double* const down = put(std::vector<double>(count(kRows, kOwn)));
  double* const untouched = put(std::vector<double>(count(kRows, columns), 4.0));
  std::vector<ProductTask<double>> tasks{
      {ProductKind::forward, 0, 0, 0, 4, columns, 0, nullptr, weights, out},
      {ProductKind::forward, 1, 0, 0, 4, columns, 0, nullptr, weights, untouched},  // of a trial that is not live
      {ProductKind::input_gradient, 0, 0, 0, 1, kOwn, columns, upstream, weights + (kTap + kHalfTap) * columns, down}};
  for (std::int32_t i = 0; i < 4; ++i) {
    double* const rows = gradient + segments[static_cast<std::size_t>(i)].weight_row * columns;
    tasks.push_back({ProductKind::weight_gradient, 0, 0, i, 1, columns, 0, nullptr, upstream, rows});
  }
  run(tasks, segments, columns);

  const std::vector<double> left = host.left();
  expect_sums(out, kRows, columns, kInputs, [&](auto r, auto c, auto k) { return at(left, kInputs, r, k) * at(host.weights, columns, k, c); });
  expect_sums(gradient, kInputs, columns, kRows, [&](auto r, auto c, auto k) { return at(left, kInputs, k, r) * at(host.upstream, columns, k, c); });
  expect_sums(down, kRows, kOwn, columns,
              [&](auto r, auto c, auto k) { return at(host.upstream, columns, r, k) * at(host.weights, columns, kTap + kHalfTap + c, k); });
  EXPECT_THAT(get(untouched, count(kRows, columns)), ::testing::Each(4.0));
}

TEST_P(StackedProductTest, MultipliesWhatSegmentsName) {
  for (const std::int32_t columns : {1, 7, 16, 17, 48, 70}) {
    SCOPED_TRACE(columns);
    expect_products(columns);
  }
}

TEST_P(StackedKernelsTest, DrawsTheMasksOfTheOtherEngines) {
  constexpr double kDropout = 0.3;
  const std::uint64_t seed = 0x123456789ABCDEF;
  cohort_.seen = 1000;
  scene_.cohorts = put<Cohort<double>>({cohort_});
  scene_.dropout = true;
  scene_.mask_threshold = static_cast<std::uint32_t>(kDropout * 0x1p32);
  scene_.mask_kept = static_cast<double>(static_cast<float>(1 / (1 - kDropout)));
  for (const bool gated : {false, true}) {
    const std::vector<double> z = numbers(41 * (gated ? 10 : 5)), upstream = numbers(41 * 5);
    StepTask<double> task;
    task.nonlinearity = Nonlinearity::leaky_relu;
    task.gated = gated;
    task.mask_seed = seed;
    task.mask_stream = random_stream(StreamKind::dropout, 2);
    task.product = put(z);
    task.hidden = put(std::vector<double>(41 * 5));
    task.gradient = put(upstream);
    task.product_gradient = put(std::vector<double>(z.size()));
    const StepTask<double>* const tasks = put<StepTask<double>>({task});
    backend_->activate(tasks, 1, scene_);
    backend_->activate_back(tasks, 1, scene_);
    std::vector<float> mask(41 * 5);
    fill_dropout_mask(mask.data(), 41 * 5, (1000 + 37) * 5, kDropout, seed, 2);
    const auto hidden = get(task.hidden, 41 * 5), back = get(task.product_gradient, z.size());
    for (std::size_t i = 0; i < mask.size(); ++i) {
      const std::size_t r = i / 5, c = i % 5, at = r * (gated ? 10 : 5) + c;
      const double slope = z[at] > 0 ? 1 : 0.01, value = slope * z[at], keep = static_cast<double>(mask[i]);
      const double open = gated ? 1 / (1 + std::exp(-z[at + 5])) : 1;
      ASSERT_NEAR(hidden[i], value * open * keep, 1e-14);
      ASSERT_NEAR(back[at], upstream[i] * keep * slope * open, 1e-14);
      if (!gated) continue;
      ASSERT_NEAR(back[at + 5], upstream[i] * keep * value * open * (1 - open), 1e-14);
    }
  }
}

TEST_P(StackedKernelsTest, NormalisesByTheBatch) {
  scene_.batchnorm = true;
  const std::vector<double> a = numbers(41 * 5), gamma = numbers(5), beta = numbers(5), upstream = numbers(41 * 5);
  StepTask<double> task;
  task.hidden = put(a);
  task.normalised = put(std::vector<double>(41 * 5));
  task.rstd = put(std::vector<double>(5));
  task.gamma = put(gamma);
  task.beta = put(beta);
  task.gamma_gradient = put(std::vector<double>(5));
  task.beta_gradient = put(std::vector<double>(5));
  task.running_mean = put(std::vector<double>(5, 0.5));
  task.running_var = put(std::vector<double>(5, 2.0));
  task.gradient = put(upstream);
  const StepTask<double>* const tasks = put<StepTask<double>>({task});
  backend_->normalise(tasks, 1, scene_);
  backend_->normalise_back(tasks, 1, scene_);
  const auto hidden = get(task.hidden, 41 * 5), back = get(task.gradient, 41 * 5);
  const auto mean = get(task.running_mean, 5), var = get(task.running_var, 5), to_gamma = get(task.gamma_gradient, 5);
  for (std::size_t c = 0; c < 5; ++c) {
    double sum = 0, squares = 0, dot = 0, all = 0;
    for (std::size_t r = 0; r < 41; ++r) sum += a[r * 5 + c];
    for (std::size_t r = 0; r < 41; ++r) squares += std::pow(a[r * 5 + c] - sum / 41, 2);
    const double root = std::sqrt(squares / 41 + 1e-5);
    for (std::size_t r = 0; r < 41; ++r) {
      const double x = (a[r * 5 + c] - sum / 41) / root;
      ASSERT_NEAR(hidden[r * 5 + c], gamma[c] * x + beta[c], 1e-13);
      dot += upstream[r * 5 + c] * x;
      all += upstream[r * 5 + c];
    }
    for (std::size_t r = 0; r < 41; ++r) {
      const double x = (a[r * 5 + c] - sum / 41) / root;
      ASSERT_NEAR(back[r * 5 + c], gamma[c] / root * (upstream[r * 5 + c] - all / 41 - x * dot / 41), 1e-13);
    }
    EXPECT_NEAR(mean[c], 0.9 * 0.5 + 0.1 * sum / 41, 1e-14);
    EXPECT_NEAR(var[c], 0.9 * 2 + 0.1 * squares / 40, 1e-14);
    EXPECT_NEAR(to_gamma[c], dot, 1e-12);
    EXPECT_NEAR(get(task.beta_gradient, 5)[c], all, 1e-12);
  }
}

TEST_P(StackedKernelsTest, MeasuresTheLossAndChoosesTheFirstOfEquals) {
  const std::vector<double> logits = numbers(41 * 7);
  std::vector<std::int64_t> labels(100);
  for (std::size_t r = 0; r < 100; ++r) labels[r] = static_cast<std::int64_t>(r * r % 7);
  scene_.row_losses = put(std::vector<double>(2 * 2 * 41));
  HeadTask<double> task;
  task.logits = put(logits);
  task.labels = put(labels);
  backend_->softmax_loss(put<HeadTask<double>>({task}), 1, scene_);
  double* const sums = put(std::vector<double>(4));
  backend_->sum_losses(scene_, 2, 0, 100, sums);
  const auto gradient = get(task.logits, 41 * 7);
  double expected = 0;
  for (std::size_t r = 0; r < 41; ++r) {
    double sum = 0;
    for (std::size_t c = 0; c < 7; ++c) sum += std::exp(logits[r * 7 + c]);
    const auto label = static_cast<std::size_t>(labels[37 + r]);
    expected += std::log(sum) - logits[r * 7 + label];
    for (std::size_t c = 0; c < 7; ++c) {
      ASSERT_NEAR(gradient[r * 7 + c], (std::exp(logits[r * 7 + c]) / sum - (c == label ? 1 : 0)) / 41, 1e-15);
    }
  }
  EXPECT_NEAR(get(sums, 4)[2], expected, 1e-12);  // the second step, the first trial
  EXPECT_EQ(get(sums, 4)[3], 0);                  // not live

  std::vector<float> stored(100 * 7);
  for (std::size_t r = 0; r < 41; ++r) stored[(37 + r) * 7 + r % 7] = stored[(37 + r) * 7 + (r + 2) % 7] = 50;
  const std::vector<double> even(41 * 7, 1.0);
  task.logits = put(even);
  task.stored = put(stored);
  task.predictions = put(std::vector<std::int32_t>(100, -1));
  backend_->choose_class(put<HeadTask<double>>({task}), 1, scene_);
  const auto classes = get(task.predictions, 100);
  for (std::size_t r = 0; r < 100; ++r) {
    const bool scored = r >= 37 && r < 37 + 41;
    EXPECT_EQ(classes[r], scored ? static_cast<std::int32_t>(std::min((r - 37) % 7, (r - 35) % 7)) : -1) << r;
  }
}

TEST_P(StackedKernelsTest, UpdatesAsAdamDoes) {
  const std::vector<double> theta = numbers(1000), m = numbers(1000), gradient = numbers(1000);
  std::vector<double> v = numbers(1000);
  for (double& x : v) x = x * x;
  const AdamStep<double> unused{}, step{0.9, 0.1, 0.999, 0.001, 1e-8, 0.02, 1 / std::sqrt(1 - std::pow(0.999, 3)), 0.01 / (1 - std::pow(0.9, 3))};
  cohort_.adam = put<AdamStep<double>>({unused, unused, step});
  scene_.cohorts = put<Cohort<double>>({cohort_});
  AdamTask<double> task{0, 0, 1000, put(theta), put(m), put(v), put(gradient)};
  backend_->adam(put<AdamTask<double>>({task}), 1, 1000, scene_);
  const auto after = get(task.theta, 1000);
  for (std::size_t i = 0; i < 1000; ++i) {
    const double g = gradient[i] + 0.02 * theta[i], m1 = 0.9 * m[i] + 0.1 * g, v1 = 0.999 * v[i] + 0.001 * g * g;
    const double corrected = std::sqrt(v1 / (1 - std::pow(0.999, 3)));
    ASSERT_NEAR(after[i], theta[i] - 0.01 / (1 - std::pow(0.9, 3)) * m1 / (corrected + 1e-8), 1e-13);
  }
  backend_->advance(scene_);
  const Position moved = get(scene_.position, 1)[0];
  EXPECT_EQ(moved.first, 37 + 41);
  EXPECT_EQ(moved.step, 3);
  EXPECT_EQ(moved.chunk_step, 2);
}

TEST_P(StackedKernelsTest, SumsTheGradientOfAShare) {
  const std::vector<double> weights = numbers(1300), gradient = numbers(1300);
  ShareTask<double> task;
  task.weights = put(weights);
  task.weight_gradient = put(gradient);
  task.alpha = put<double>({-0.7});
  task.first = 517;
  task.others = 783;
  task.gradient = put<double>({9});
  backend_->share_gradient(put<ShareTask<double>>({task}), 1, scene_);
  const double s = 1 / (1 + std::exp(0.7));
  double expected = 0;
  for (std::size_t i = 0; i < 1300; ++i) expected += (i < 517 ? 1 - s : -s) * weights[i] * gradient[i];
  EXPECT_NEAR(get(task.gradient, 1)[0], expected, 1e-12);
}

INSTANTIATE_TEST_SUITE_P(Cpu, StackedKernelsTest, ::testing::Values(Device::torch, Device::blocks), name_of_device);
INSTANTIATE_TEST_SUITE_P(Gpu, StackedKernelsTest, ::testing::Values(Device::gpu), name_of_device);
INSTANTIATE_TEST_SUITE_P(Cpu, StackedProductTest, ::testing::Values(Device::torch, Device::blocks), name_of_device);
INSTANTIATE_TEST_SUITE_P(Gpu, StackedProductTest, ::testing::Values(Device::gpu), name_of_device);

}  // namespace
}  // namespace fusion::stacked
