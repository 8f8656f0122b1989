// Every set of kernels that this processor has, against loops that anyone can read.
#include "workers/train/plain_kernels.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "base/random.h"
#include "workers/train/plain_kernel_sets.h"

namespace fusion::plain {
namespace {

template <typename T>
std::vector<const Kernels<T>*> sets() {
  std::vector<const Kernels<T>*> all{&portable_kernels<T>()};
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) all.push_back(&avx2_kernels<T>());
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl")) {
    all.push_back(&avx512_kernels<T>());
  }
#endif
  return all;
}

template <typename T>
class PlainKernelsTest : public ::testing::Test {
 protected:
  std::vector<T> numbers(std::int64_t count, double deviation = 1) {
    std::vector<T> out(static_cast<std::size_t>(count));
    for (T& x : out) x = static_cast<T>(deviation * rng_.normal());
    return out;
  }
  static constexpr double kTight = sizeof(T) == 4 ? 2e-5 : 1e-12;
  Rng rng_{11};
};
using Types = ::testing::Types<float, double>;
TYPED_TEST_SUITE(PlainKernelsTest, Types);

template <typename T>
void expect_near(const std::vector<T>& got, const std::vector<double>& expected, double tolerance, const std::string& what) {
  ASSERT_EQ(got.size(), expected.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    ASSERT_NEAR(static_cast<double>(got[i]), expected[i], tolerance * (1 + std::abs(expected[i]))) << what << ", number " << i;
  }
}

// Every height of a tile and every width of a panel, both ways round, with factors long enough to be cut.
TYPED_TEST(PlainKernelsTest, MultipliesAsTheDefinitionSays) {
  using T = TypeParam;
  struct Shape {
    std::int64_t rows, columns;
    std::vector<std::int64_t> depths;
    bool along;
  };
  std::vector<Shape> shapes;
  for (std::int64_t rows = 1; rows <= 35; ++rows) shapes.push_back({rows, 16 * (1 + rows % 9), {3, 1, 16}, rows % 2 == 0});
  shapes.push_back({32, 16, {48, 12, 16}, false});
  shapes.push_back({13, 64, {700, 333, 64}, false});
  shapes.push_back({128, 128, {1000}, true});
  for (int i = 0; i < 20; ++i) shapes.back().depths.push_back(5 + i);  // more factors than one part holds
  for (const Kernels<T>* const k : sets<T>()) {
    for (const Shape& shape : shapes) {
      std::int64_t depth = 0;
      for (const std::int64_t d : shape.depths) depth += d;
      const auto b = this->numbers(depth * shape.columns), bias = this->numbers(shape.columns);
      std::vector<double> expected(static_cast<std::size_t>(shape.rows * shape.columns));
      for (std::size_t i = 0; i < expected.size(); ++i) {
        expected[i] = static_cast<double>(bias[i % static_cast<std::size_t>(shape.columns)]);
      }
      std::vector<std::vector<T>> inputs;
      std::vector<Factor<T>> factors;
      std::int64_t k0 = 0;
      for (const std::int64_t d : shape.depths) {
        const std::int64_t stride = (shape.along ? shape.rows : d) + 2;
        inputs.push_back(this->numbers(stride * (shape.along ? d : shape.rows)));
        const T* const a = inputs.back().data();
        factors.push_back(shape.along ? Factor<T>{a, 1, stride, d} : Factor<T>{a, stride, 1, d});
        for (std::int64_t i = 0; i < shape.rows; ++i) {
          for (std::int64_t x = 0; x < d; ++x) {
            const auto value = static_cast<double>(shape.along ? a[x * stride + i] : a[i * stride + x]);
            for (std::int64_t c = 0; c < shape.columns; ++c) {
              expected[static_cast<std::size_t>(i * shape.columns + c)] +=
                  value * static_cast<double>(b[static_cast<std::size_t>((k0 + x) * shape.columns + c)]);
            }
          }
        }
        k0 += d;
      }
      std::vector<T> c(expected.size(), T{7});
      k->product(c.data(), shape.columns, shape.rows, shape.columns, factors.data(), factors.size(), b.data(), shape.columns,
                 bias.data());
      expect_near(c, expected, this->kTight * std::sqrt(static_cast<double>(depth)),
                  std::string(k->name) + ", " + std::to_string(shape.rows) + " rows, " + std::to_string(shape.columns) + " columns");
    }
  }
}

TYPED_TEST(PlainKernelsTest, UpdatesAsAdamDoes) {
  using T = TypeParam;
  const AdamStep<T> adam{T(0.9), T(0.1), T(0.999), T(0.001), T(1e-8), T(0.01), T(1.7), T(0.003)};
  for (const Kernels<T>* const k : sets<T>()) {
    for (const bool far : {false, true}) {
      const std::int64_t rows = 37, columns = 80, depth = 9;
      const auto a = this->numbers(depth * rows), b = this->numbers(depth * columns);
      auto theta = this->numbers(rows * columns), m = this->numbers(rows * columns), v = this->numbers(rows * columns);
      for (T& x : v) x *= x;
      v[3] = 0;  // a number without a history
      std::vector<double> gradient(theta.size()), to_theta, to_m, to_v;
      for (std::int64_t i = 0; i < rows; ++i) {
        for (std::int64_t c = 0; c < columns; ++c) {
          for (std::int64_t x = 0; x < depth; ++x) {
            gradient[static_cast<std::size_t>(i * columns + c)] += static_cast<double>(a[static_cast<std::size_t>(x * rows + i)]) *
                                                                    static_cast<double>(b[static_cast<std::size_t>(x * columns + c)]);
          }
        }
      }
      for (std::size_t i = 0; i < theta.size(); ++i) {
        const double g = gradient[i] + 0.01 * static_cast<double>(theta[i]);
        to_m.push_back(0.9 * static_cast<double>(m[i]) + 0.1 * g);
        to_v.push_back(0.999 * static_cast<double>(v[i]) + 0.001 * g * g);
        to_theta.push_back(static_cast<double>(theta[i]) - 0.003 * to_m.back() / (std::sqrt(to_v.back()) * 1.7 + 1e-8));
      }
      auto theta2 = theta, m2 = m, v2 = v;
      k->update({theta.data(), m.data(), v.data(), columns, far}, rows, columns, {a.data(), 1, rows, depth}, b.data(), columns, adam);
      expect_near(theta, to_theta, this->kTight, k->name);
      expect_near(m, to_m, this->kTight, k->name);
      expect_near(v, to_v, this->kTight, k->name);
      const std::vector<T> stored(gradient.begin(), gradient.end());
      k->adam(theta2.data(), m2.data(), v2.data(), stored.data(), rows * columns, adam);
      expect_near(theta2, to_theta, this->kTight, k->name);
      expect_near(v2, to_v, this->kTight, k->name);
    }
  }
}

TYPED_TEST(PlainKernelsTest, KnowsTheLossAndItsGradient) {
  using T = TypeParam;
  for (const Kernels<T>* const k : sets<T>()) {
    for (const std::int64_t classes : {2, 10, 16, 60, 64, 65, 400, 1024, 1500}) {
      for (const std::int64_t rows : {1, 7, 32, 33}) {
        const std::int64_t stride = padded(classes);
        auto logits = this->numbers(rows * stride, 3);
        logits[0] = T(60);  // far ahead of the others
        std::vector<std::int64_t> labels;
        for (std::int64_t r = 0; r < rows; ++r) labels.push_back((r * 7 + 1) % classes);
        double loss = 0;
        std::vector<double> expected(logits.size());
        for (std::int64_t r = 0; r < rows; ++r) {
          const auto row = logits.begin() + r * stride;
          const double most = static_cast<double>(*std::max_element(row, row + classes));
          double sum = 0;
          for (std::int64_t c = 0; c < classes; ++c) sum += std::exp(static_cast<double>(row[c]) - most);
          for (std::int64_t c = 0; c < classes; ++c) {
            const double p = std::exp(static_cast<double>(row[c]) - most) / sum;
            expected[static_cast<std::size_t>(r * stride + c)] =
                (p - (c == labels[static_cast<std::size_t>(r)] ? 1 : 0)) / static_cast<double>(rows);
          }
          loss += std::log(sum) + most - static_cast<double>(row[labels[static_cast<std::size_t>(r)]]);
        }
        const double got = k->softmax_loss(logits.data(), stride, rows, classes, labels.data());
        EXPECT_NEAR(got, loss, this->kTight * (1 + loss)) << k->name << ", " << classes << " classes, " << rows << " rows";
        expect_near(logits, expected, this->kTight, k->name);
      }
    }
  }
}

TYPED_TEST(PlainKernelsTest, KnowsTheActivationsAndTheirDerivatives) {
  using T = TypeParam;
  constexpr std::int64_t kRows = 3, kWide = 32, kCount = kRows * kWide;
  const auto function = [](Nonlinearity f, double z) {
    switch (f) {
      case Nonlinearity::relu: return std::max(z, 0.0);
      case Nonlinearity::sigmoid: return 1 / (1 + std::exp(-z));
      case Nonlinearity::leaky_relu: return z > 0 ? z : 0.01 * z;
      default: return z;
    }
  };
  for (const Kernels<T>* const k : sets<T>()) {
    for (const Nonlinearity f : {Nonlinearity::relu, Nonlinearity::sigmoid, Nonlinearity::leaky_relu, Nonlinearity::identity}) {
      auto z = this->numbers(2 * kCount, 4);
      z[0] = T(80), z[1] = T(-80);
      const auto mask = this->numbers(kCount), dh = this->numbers(kCount);
      std::vector<T> a(kCount), h(kCount), dz(2 * kCount);
      std::vector<double> to_a, to_h, to_dz;
      for (std::size_t i = 0; i < kCount; ++i) {
        const auto x = static_cast<double>(z[i]);
        constexpr double kStep = 1e-6;
        const double slope = (function(f, x + kStep) - function(f, x - kStep)) / (2 * kStep);
        to_a.push_back(function(f, x));
        to_h.push_back(to_a.back() * static_cast<double>(mask[i]));
        to_dz.push_back(static_cast<double>(dh[i]) * static_cast<double>(mask[i]) * slope);
      }
      k->activate(f, z.data(), a.data(), h.data(), mask.data(), kCount);
      expect_near(a, to_a, this->kTight, k->name);
      expect_near(h, to_h, this->kTight, k->name);
      std::vector<T> plain(kCount);
      k->activate_back(f, a.data(), dh.data(), mask.data(), plain.data(), kCount);
      expect_near(plain, to_dz, 1e-4, k->name);

      // gated: two columns of z for each of a
      to_a.clear(), to_h.clear(), to_dz.assign(2 * kCount, 0);
      for (std::int64_t r = 0; r < kRows; ++r) {
        for (std::int64_t c = 0; c < kWide; ++c) {
          const auto x = static_cast<double>(z[static_cast<std::size_t>(r * 2 * kWide + c)]);
          const auto y = static_cast<double>(z[static_cast<std::size_t>(r * 2 * kWide + kWide + c)]);
          const auto at = static_cast<std::size_t>(r * kWide + c);
          const double gate = 1 / (1 + std::exp(-y)), g = static_cast<double>(dh[at]) * static_cast<double>(mask[at]);
          constexpr double kStep = 1e-6;
          to_a.push_back(function(f, x) * gate);
          to_h.push_back(to_a.back() * static_cast<double>(mask[at]));
          to_dz[static_cast<std::size_t>(r * 2 * kWide + c)] = g * gate * (function(f, x + kStep) - function(f, x - kStep)) / (2 * kStep);
          to_dz[static_cast<std::size_t>(r * 2 * kWide + kWide + c)] = g * function(f, x) * gate * (1 - gate);
        }
      }
      k->gate(f, z.data(), a.data(), h.data(), mask.data(), kRows, kWide);
      expect_near(a, to_a, this->kTight, k->name);
      expect_near(h, to_h, this->kTight, k->name);
      k->gate_back(f, z.data(), dh.data(), mask.data(), dz.data(), kRows, kWide);
      expect_near(dz, to_dz, 1e-4, k->name);
    }
  }
}

TYPED_TEST(PlainKernelsTest, LetsNoNumberThatIsNoneHide) {
  using T = TypeParam;
  const T nan = std::numeric_limits<T>::quiet_NaN();
  for (const Kernels<T>* const k : sets<T>()) {
    for (const Nonlinearity f : {Nonlinearity::relu, Nonlinearity::sigmoid, Nonlinearity::leaky_relu, Nonlinearity::identity}) {
      std::vector<T> z(16, T(1));
      z[5] = nan;
      k->activate(f, z.data(), z.data(), nullptr, nullptr, 16);
      EXPECT_TRUE(std::isnan(z[5])) << k->name;
      EXPECT_FALSE(std::isnan(z[4])) << k->name;
    }
    for (const T bad : {nan, std::numeric_limits<T>::infinity()}) {
      for (const std::int64_t classes : {3, 70}) {
        std::vector<T> logits(static_cast<std::size_t>(4 * padded(classes)), T(0));
        logits[static_cast<std::size_t>(padded(classes)) + 1] = bad;
        const std::vector<std::int64_t> labels(4, 0);
        EXPECT_FALSE(std::isfinite(k->softmax_loss(logits.data(), padded(classes), 4, classes, labels.data()))) << k->name;
      }
    }
  }
}

}  // namespace
}  // namespace fusion::plain
