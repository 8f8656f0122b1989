// This file is compiled with -O3 -ffp-contract=off, as spectrogram.cpp is.
#include "workers/avmnist/pca.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>

#include "base/error.h"
#include "workers/avmnist/parallel.h"

namespace fusion {

// ---------------------------------------------------------------------------------------------- eigenvectors

namespace {

/// a <- Q^T a Q, tridiagonal with diagonal d and off-diagonal e, Q = H_0 H_1 ...; the vector v of H_k = 1 - beta v v^T is left
/// in row k of a, from column k + 1 on.
void tridiagonalise(std::vector<double>& a, std::size_t n, std::vector<double>& d, std::vector<double>& e,
                    std::vector<double>& beta) {
  std::vector<double> p(n);
  for (std::size_t k = 0; k + 2 < n; ++k) {
    double* v = &a[k * n];  // row k, which is column k too
    double norm = 0;
    for (std::size_t i = k + 1; i < n; ++i) norm += v[i] * v[i];
    norm = std::sqrt(norm);
    e[k] = v[k + 1] > 0 ? -norm : norm;
    const double head = v[k + 1] - e[k];
    const double square = norm * norm - v[k + 1] * v[k + 1] + head * head;
    if (norm == 0 || square == 0) continue;
    v[k + 1] = head;
    beta[k] = 2 / square;
    double vp = 0;
    for (std::size_t i = k + 1; i < n; ++i) {
      const double* row = &a[i * n];
      double sum = 0;
      for (std::size_t j = k + 1; j < n; ++j) sum += row[j] * v[j];
      p[i] = beta[k] * sum;
      vp += v[i] * p[i];
    }
    const double half = beta[k] * vp / 2;
    for (std::size_t i = k + 1; i < n; ++i) p[i] -= half * v[i];
    for (std::size_t i = k + 1; i < n; ++i) {
      double* row = &a[i * n];
      const double vi = v[i], pi = p[i];
      for (std::size_t j = k + 1; j < n; ++j) row[j] -= vi * p[j] + pi * v[j];
    }
  }
  if (n >= 2) e[n - 2] = a[(n - 2) * n + n - 1];
  for (std::size_t i = 0; i < n; ++i) d[i] = a[i * n + i];
}

/// One implicit QL sweep over rows l..m of the tridiagonal matrix; z's rows are rotated along.
void ql_sweep(std::size_t l, std::size_t m, std::size_t n, std::vector<double>& d, std::vector<double>& e,
              std::vector<double>& z) {
  double g = (d[l + 1] - d[l]) / (2 * e[l]);
  g = d[m] - d[l] + e[l] / (g + std::copysign(std::sqrt(g * g + 1), g));
  double s = 1, c = 1, p = 0;
  for (std::size_t i = m; i-- > l;) {
    const double f = s * e[i], b = c * e[i], r = std::sqrt(f * f + g * g);
    e[i + 1] = r;
    if (r == 0) {  // split in two: start again
      d[i + 1] -= p;
      e[m] = 0;
      return;
    }
    s = f / r;
    c = g / r;
    g = d[i + 1] - p;
    const double t = (d[i] - g) * s + 2 * c * b;
    p = s * t;
    d[i + 1] = g + p;
    g = c * t - b;
    double *upper = &z[i * n], *lower = &z[(i + 1) * n];
    for (std::size_t k = 0; k < n; ++k) {
      const double x = upper[k], y = lower[k];
      lower[k] = s * x + c * y;
      upper[k] = c * x - s * y;
    }
  }
  d[l] -= p;
  e[l] = g;
  e[m] = 0;
}

/// Diagonalises; the rows of z become the eigenvectors of the tridiagonal matrix.
void diagonalise(std::size_t n, std::vector<double>& d, std::vector<double>& e, std::vector<double>& z) {
  constexpr int kMostSweeps = 60;  // two or three are usual
  // Measured against the whole matrix: an entry at its rounding error never gets smaller next to variances of zero.
  double largest = 0;
  for (std::size_t i = 0; i < n; ++i) largest = std::max(largest, std::abs(d[i]) + std::abs(e[i]));
  const double negligible = std::numeric_limits<double>::epsilon() * largest;
  for (std::size_t l = 0; l < n; ++l) {
    for (int sweep = 0;; ++sweep) {
      std::size_t m = l;
      while (m + 1 < n && std::abs(e[m]) > negligible) ++m;
      if (m == l) break;
      if (sweep == kMostSweeps) throw DataError("the principal components did not converge; are the images damaged?");
      ql_sweep(l, m, n, d, e, z);
    }
  }
}

}  // namespace

SymmetricEigen symmetric_eigen(std::vector<double> a, std::int64_t order) {
  const auto n = static_cast<std::size_t>(order);
  std::vector<double> d(n), e(n), beta(n), z(n * n);
  tridiagonalise(a, n, d, e, beta);
  for (std::size_t i = 0; i < n; ++i) z[i * n + i] = 1;
  diagonalise(n, d, e, z);
  for (std::size_t r = 0; r < n; ++r) {  // back to the coordinates of a: H_0 H_1 ... z
    double* x = &z[r * n];
    for (std::size_t k = n; k-- > 0;) {
      if (beta[k] == 0) continue;
      const double* v = &a[k * n];
      double sum = 0;
      for (std::size_t i = k + 1; i < n; ++i) sum += v[i] * x[i];
      sum *= beta[k];
      for (std::size_t i = k + 1; i < n; ++i) x[i] -= sum * v[i];
    }
  }
  std::vector<std::size_t> by_value(n);
  std::iota(by_value.begin(), by_value.end(), std::size_t{0});
  std::stable_sort(by_value.begin(), by_value.end(), [&](std::size_t i, std::size_t j) { return d[i] > d[j]; });
  SymmetricEigen result;
  result.vectors.reserve(n * n);
  for (const std::size_t i : by_value) {
    result.values.push_back(d[i]);
    result.vectors.insert(result.vectors.end(), &z[i * n], &z[i * n] + n);
  }
  return result;
}

// ---------------------------------------------------------------------------------------------- fitting

namespace {

constexpr std::int64_t kRowBlock = 512;  // 512 * 255^2 fits an int; 784 columns of it fit the L2 cache

std::int32_t dot(const std::int16_t* a, const std::int16_t* b) {
  std::int32_t sum = 0;
  for (std::int64_t i = 0; i < kRowBlock; ++i) sum += std::int32_t{a[i]} * b[i];
  return sum;
}

/// products[a * D + b] = sum over the rows of x_a x_b, for a <= b; sums[a] = sum of x_a.
void exact_sums(std::span<const std::uint8_t> rows, std::int64_t dims, int threads, std::vector<std::int64_t>& products,
                std::vector<std::int64_t>& sums) {
  const std::int64_t count = static_cast<std::int64_t>(rows.size()) / dims;
  const std::int64_t blocks = (count + kRowBlock - 1) / kRowBlock;
  // [block][column][row in block], the last block filled up with zeros.
  std::vector<std::int16_t> columns(static_cast<std::size_t>(blocks * dims * kRowBlock));
  for (std::int64_t r = 0; r < count; ++r) {
    for (std::int64_t c = 0; c < dims; ++c) {
      const std::uint8_t x = rows[static_cast<std::size_t>(r * dims + c)];
      columns[static_cast<std::size_t>((r / kRowBlock * dims + c) * kRowBlock + r % kRowBlock)] = x;
      sums[static_cast<std::size_t>(c)] += x;
    }
  }
  Progress silent("", 0, "", true);
  for_row_ranges(dims, 16, threads, silent, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t block = 0; block < blocks; ++block) {
      const std::int16_t* base = columns.data() + block * dims * kRowBlock;
      for (std::int64_t a = first; a < last; ++a) {
        for (std::int64_t b = a; b < dims; ++b) {
          products[static_cast<std::size_t>(a * dims + b)] += dot(base + a * kRowBlock, base + b * kRowBlock);
        }
      }
    }
  });
}

}  // namespace

Pca fit_pca(std::span<const std::uint8_t> rows, std::int64_t dims, int threads) {
  const std::int64_t count = static_cast<std::int64_t>(rows.size()) / dims;
  if (count < 2) throw DataError("principal components need at least 2 images, got " + std::to_string(count));
  const auto n = static_cast<std::size_t>(dims);
  std::vector<std::int64_t> products(n * n), sums(n);
  exact_sums(rows, dims, threads, products, sums);
  Pca pca;
  pca.dims = dims;
  std::vector<double> covariance(n * n);
  const auto total = static_cast<double>(count);
  double variance = 0;
  for (std::size_t a = 0; a < n; ++a) {
    pca.mean.push_back(static_cast<double>(sums[a]) / total);
    for (std::size_t b = a; b < n; ++b) {
      // Exact up to here, so that nothing depends on the order of the rows.
      const __int128 cross = static_cast<__int128>(count) * products[a * n + b] - static_cast<__int128>(sums[a]) * sums[b];
      covariance[a * n + b] = covariance[b * n + a] = static_cast<double>(cross) / (total * (total - 1));
    }
    variance += covariance[a * n + a];
  }
  if (variance <= 0) throw DataError("the " + std::to_string(count) + " images are all equal: they have no principal components");
  SymmetricEigen eigen = symmetric_eigen(std::move(covariance), dims);
  pca.components = std::move(eigen.vectors);
  for (const double value : eigen.values) pca.ratios.push_back(value / variance);
  return pca;
}

std::int64_t Pca::count_for(double energy, bool reaching) const {
  double sum = 0;
  for (std::size_t i = 0; i < ratios.size(); ++i) {
    sum += ratios[i];
    if (sum > energy) return static_cast<std::int64_t>(i) + (reaching ? 1 : 0);
  }
  return dims;
}

double Pca::kept(std::int64_t count) const { return std::accumulate(ratios.begin(), ratios.begin() + count, 0.0); }

void Pca::project(std::span<const std::uint8_t> row, std::int64_t count, std::span<double> out) const {
  const auto n = static_cast<std::size_t>(dims);
  std::fill(out.begin(), out.end(), 0.0);
  for (std::size_t k = 0; k < static_cast<std::size_t>(count); ++k) {
    const double* component = &components[k * n];
    double score = 0;
    for (std::size_t i = 0; i < n; ++i) score += (row[i] - mean[i]) * component[i];
    for (std::size_t i = 0; i < n; ++i) out[i] += score * component[i];
  }
}

}  // namespace fusion
