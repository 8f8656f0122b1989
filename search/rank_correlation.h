#pragma once

#include <optional>
#include <span>

namespace fusion {

/// Spearman's rank correlation, equal values sharing their mean rank. Absent for fewer than two pairs, or if all values
/// of one side are equal. Both spans have the same size.
std::optional<double> rank_correlation(std::span<const double> a, std::span<const double> b);

/// Mean of |a - b|; absent for no pairs.
std::optional<double> mean_abs_error(std::span<const double> a, std::span<const double> b);

}  // namespace fusion
