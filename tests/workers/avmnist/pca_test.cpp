#include "workers/avmnist/pca.h"

#include <gmock/gmock.h>

#include <cmath>

#include "base/error.h"
#include "tests/workers/avmnist/sources.h"
#include "workers/avmnist/idx.h"

namespace fusion {
namespace {

using ::testing::HasSubstr;
using testing::message_of;

/// The largest error in A v = lambda v and in the orthonormality of the vectors.
double eigen_error(const std::vector<double>& a, const SymmetricEigen& eigen, std::size_t n) {
  double worst = 0;
  for (std::size_t r = 0; r < n; ++r) {
    const double* v = &eigen.vectors[r * n];
    for (std::size_t i = 0; i < n; ++i) {
      double sum = 0, product = 0;
      for (std::size_t j = 0; j < n; ++j) sum += a[i * n + j] * v[j];
      for (std::size_t j = 0; j < n; ++j) product += eigen.vectors[i * n + j] * v[j];
      worst = std::max({worst, std::abs(sum - eigen.values[r] * v[i]), std::abs(product - (i == r ? 1.0 : 0.0))});
    }
  }
  return worst;
}

TEST(SymmetricEigenTest, KnowsSmallMatrices) {
  EXPECT_EQ(symmetric_eigen({3}, 1).values, std::vector<double>{3});
  const SymmetricEigen two = symmetric_eigen({2, 1, 1, 2}, 2);
  EXPECT_NEAR(two.values[0], 3, 1e-15);
  EXPECT_NEAR(two.values[1], 1, 1e-15);
  EXPECT_NEAR(std::abs(two.vectors[0]), std::sqrt(0.5), 1e-15);
}

TEST(SymmetricEigenTest, SolvesRandomMatrices) {
  for (const std::size_t n : {3u, 10u, 65u}) {
    SCOPED_TRACE("seed 7, size " + std::to_string(n));
    Rng rng(7, n);
    std::vector<double> a(n * n);
    for (std::size_t i = 0; i < n; ++i) {
      for (std::size_t j = i; j < n; ++j) a[i * n + j] = a[j * n + i] = rng.normal();
    }
    const SymmetricEigen eigen = symmetric_eigen(a, static_cast<std::int64_t>(n));
    EXPECT_TRUE(std::is_sorted(eigen.values.rbegin(), eigen.values.rend()));
    EXPECT_LT(eigen_error(a, eigen, n), 1e-12 * static_cast<double>(n));
  }
}

TEST(SymmetricEigenTest, SolvesMatricesOfLowRank) {  // as the blank border of the images makes them
  const std::size_t n = 40;
  Rng rng(8);
  std::vector<double> a(n * n);
  for (int rank = 0; rank < 5; ++rank) {
    std::vector<double> v(n);
    for (std::size_t i = 10; i < n; ++i) v[i] = 100 * rng.normal();
    for (std::size_t i = 0; i < n * n; ++i) a[i] += v[i / n] * v[i % n];
  }
  const SymmetricEigen eigen = symmetric_eigen(a, n);
  EXPECT_LT(eigen_error(a, eigen, n), 1e-9);
  EXPECT_NEAR(eigen.values[5], 0, 1e-9);
}

std::vector<std::uint8_t> random_rows(std::size_t bytes) {
  Rng rng(9);
  std::vector<std::uint8_t> rows(bytes);
  for (auto& x : rows) x = static_cast<std::uint8_t>(rng.below(256));
  return rows;
}

TEST(PcaTest, AllComponentsGiveTheRowWithoutItsMean) {
  const std::int64_t dims = 20;
  const auto rows = random_rows(static_cast<std::size_t>(700 * dims));
  const Pca pca = fit_pca(rows, dims, 1);
  EXPECT_NEAR(pca.kept(dims), 1, 1e-12);
  std::vector<double> out(dims);
  const auto row = std::span(rows).subspan(40, 20);
  pca.project(row, dims, out);
  for (std::size_t i = 0; i < out.size(); ++i) EXPECT_NEAR(out[i], row[i] - pca.mean[i], 1e-10);
}

TEST(PcaTest, DoesNotDependOnThreads) {
  const auto rows = random_rows(1300 * 50);
  const Pca one = fit_pca(rows, 50, 1), three = fit_pca(rows, 50, 3);
  EXPECT_EQ(one.ratios, three.ratios);
  EXPECT_EQ(one.components, three.components);
  EXPECT_EQ(one.mean, three.mean);
}

TEST(PcaTest, CountsComponentsBelowTheThreshold) {
  Pca pca;
  pca.dims = 4;
  pca.ratios = {0.2, 0.1, 0.4, 0.3};
  EXPECT_EQ(pca.count_for(0.25), 1);
  EXPECT_EQ(pca.count_for(0.25, true), 2);
  EXPECT_EQ(pca.count_for(0.1), 0);
  EXPECT_EQ(pca.count_for(2), 4);
}

TEST(PcaTest, RefusesWhatHasNoVariance) {
  EXPECT_THAT(message_of<DataError>([] { fit_pca(std::vector<std::uint8_t>(30), 10, 1); }), HasSubstr("3 images are all equal"));
  EXPECT_THAT(message_of<DataError>([] { fit_pca(std::vector<std::uint8_t>(10), 10, 1); }), HasSubstr("at least 2 images"));
}

TEST(PcaTest, FindsTheKnownVarianceOfMnist) {
  REQUIRE_REAL_DATA(data);
  const std::vector<double> train{.0970, .1680, .2297, .2836, .3323, .3754, .4081};
  const std::vector<double> test{.1005, .1759, .2373, .2916, .3419, .3844, .4175};
  for (const auto& [part, expected] : {std::pair{"train", train}, {"t10k", test}}) {
    const Pca pca = fit_pca(read_mnist(*data / "mnist", part).pixels, 784, 2);
    for (std::size_t i = 0; i < expected.size(); ++i) {
      EXPECT_NEAR(pca.kept(static_cast<std::int64_t>(i) + 1), expected[i], 5.1e-5) << part << " " << i;
    }
    EXPECT_EQ(pca.count_for(0.25), 3);
    EXPECT_EQ(pca.count_for(0.25, true), 4);
  }
}

}  // namespace
}  // namespace fusion
