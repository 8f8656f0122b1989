#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace fusion {

/// Eigenvalues, largest first, and their unit eigenvectors (rows, same order) of a symmetric n x n matrix (row-major).
struct SymmetricEigen {
  std::vector<double> values;
  std::vector<double> vectors;
};

/// Householder reduction to tridiagonal form, then implicit QL: O(n^3), all of them. One thread and a fixed order of
/// operations, so a dataset's digest does not depend on which BLAS a machine has. Throws DataError if it does not converge.
SymmetricEigen symmetric_eigen(std::vector<double> matrix, std::int64_t n);

/// Principal components of N rows of D bytes.
struct Pca {
  std::int64_t dims = 0;           ///< D
  std::vector<double> mean;        ///< [D]
  std::vector<double> components;  ///< [D, D], a component per row, most variance first
  std::vector<double> ratios;      ///< [D], share of the variance, sums to 1

  /// The reference's rule: the 0-based index of the first component at which the sum of ratios passes `energy`, used as a
  /// count; so the components *below* the threshold. With `reaching`, one more: those that together reach it.
  std::int64_t count_for(double energy, bool reaching = false) const;
  /// Share of the variance in the first `count` components.
  double kept(std::int64_t count) const;
  /// out = (row - mean) projected on the first `count` components: [D] numbers centred on 0; the mean is NOT added back (as
  /// published). The signs of the components cancel.
  void project(std::span<const std::uint8_t> row, std::int64_t count, std::span<double> out) const;
};

/// Fits on `rows` [N, D] with N >= 2. The sums of products are taken in integers, hence exact: the result does not depend
/// on `threads`. Throws DataError for fewer rows, or for rows that are all equal.
Pca fit_pca(std::span<const std::uint8_t> rows, std::int64_t dims, int threads);

}  // namespace fusion
