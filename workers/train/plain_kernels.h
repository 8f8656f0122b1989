#pragma once

#include <cstddef>
#include <cstdint>

namespace fusion::plain {

// What the plain engine computes with: products and element-wise passes over row-major matrices whose rows are padded to a multiple of
// kColumns numbers. One set of functions per instruction set (AVX-512, AVX2 with FMA, portable); the best one that the processor has is
// taken. All sets do the same sums in an order of their own, so figures are the same bits on one machine, not across machines.
//
// Nothing here allocates, throws or keeps state. NaN and infinity go through every function (a rectifier of NaN is NaN), so that a loss
// tells of them.

/// Every matrix that is a right-hand side or a result has a multiple of this many columns.
inline constexpr std::int64_t kColumns = 16;
constexpr std::int64_t padded(std::int64_t columns) { return (columns + kColumns - 1) / kColumns * kColumns; }

/// A left-hand side A [rows, depth]: element (i, k) is at data[i * row + k * column]; one of the two strides is 1.
template <typename T>
struct Factor {
  const T* data = nullptr;
  std::ptrdiff_t row = 0, column = 1;
  std::int64_t depth = 0;
};

/// One update's numbers (model/adam.h).
template <typename T>
struct AdamStep {
  T beta1, rest1, beta2, rest2, eps, weight_decay;
  T over_root2;  ///< 1 / sqrt(1 - beta2^t)
  T step_size;   ///< lr / (1 - beta1^t)
};

/// Parameters with their moments, [rows, columns] each, `stride` numbers from row to row.
template <typename T>
struct Trained {
  T *theta, *moment1, *moment2;
  std::ptrdiff_t stride;
  bool far = false;  ///< not in the nearer caches: worth asking for beforehand
};

enum class Nonlinearity : std::uint8_t { relu, sigmoid, leaky_relu, identity };

template <typename T>
struct Kernels {
  const char* name;

  /// c [rows, columns] = bias + sum_s A_s B_s: the factors stand side by side, the rows of b below each other in the same order.
  /// bias: [columns], or nullptr for 0.
  void (*product)(T* c, std::ptrdiff_t c_stride, std::int64_t rows, std::int64_t columns, const Factor<T>* factors,
                  std::size_t factor_count, const T* b, std::ptrdiff_t b_stride, const T* bias);

  /// The gradient A B, A [rows, depth] and B [depth, columns], goes straight into Adam and is never stored.
  void (*update)(const Trained<T>& trained, std::int64_t rows, std::int64_t columns, const Factor<T>& a, const T* b,
                 std::ptrdiff_t b_stride, const AdamStep<T>& adam);

  /// Adam with a stored gradient.
  void (*adam)(T* theta, T* moment1, T* moment2, const T* gradient, std::int64_t count, const AdamStep<T>& adam);

  /// out [columns] = sum over the rows.
  void (*column_sums)(const T* x, std::ptrdiff_t stride, std::int64_t rows, std::int64_t columns, T* out);

  /// out [columns, out_stride] = x^T; columns of out past `rows` are left alone.
  void (*transpose)(const T* x, std::ptrdiff_t stride, std::int64_t rows, std::int64_t columns, T* out, std::ptrdiff_t out_stride);

  /// a = f(z); h = a * mask where there is one. a and h may be z.
  void (*activate)(Nonlinearity f, const T* z, T* a, T* h, const T* mask, std::int64_t count);
  /// dz = dh * mask * f'(a). dz may be dh.
  void (*activate_back)(Nonlinearity f, const T* a, const T* dh, const T* mask, T* dz, std::int64_t count);

  /// Gated step: z [rows, 2 columns] becomes [f(z1), sigmoid(z2)] in place; a [rows, columns] is their product, h = a * mask.
  void (*gate)(Nonlinearity f, T* z, T* a, T* h, const T* mask, std::int64_t rows, std::int64_t columns);
  /// dz [rows, 2 columns] from what `gate` left in z.
  void (*gate_back)(Nonlinearity f, const T* z, const T* dh, const T* mask, T* dz, std::int64_t rows, std::int64_t columns);

  /// Batch statistics: normalised = (a - mean) / sqrt(var + eps), h = (gamma * normalised + beta) * mask; running statistics move by
  /// 0.1, the variance with the factor rows / (rows - 1). rstd [columns] is kept for the way back.
  void (*normalise)(const T* a, const T* gamma, const T* beta, const T* mask, T* running_mean, T* running_var, T* normalised, T* h,
                    T* rstd, std::int64_t rows, std::int64_t columns);
  /// da = gamma rstd (dy - (dbeta + normalised dgamma) / rows) with dy = dh * mask; dgamma, dbeta [columns]. da may be dh.
  void (*normalise_back)(const T* normalised, const T* rstd, const T* gamma, const T* mask, const T* dh, T* da, T* dgamma, T* dbeta,
                         std::int64_t rows, std::int64_t columns);
  /// With running statistics, in place.
  void (*normalise_running)(T* a, const T* gamma, const T* beta, const T* running_mean, const T* running_var, std::int64_t rows,
                            std::int64_t columns);

  /// Sum over the rows of -log softmax(logits)[label]; logits [rows, stride] become the gradient of their mean,
  /// (softmax - onehot) / rows, columns past `classes` become 0.
  double (*softmax_loss)(T* logits, std::ptrdiff_t stride, std::int64_t rows, std::int64_t classes, const std::int64_t* labels);

  /// The column of the largest number of each row, the first one of equals.
  void (*largest)(const T* x, std::ptrdiff_t stride, std::int64_t rows, std::int64_t columns, std::int64_t* out);

  /// sum_i a_i b_i
  T (*dot)(const T* a, const T* b, std::int64_t count);
};

/// The best set that this processor has; FUSION_PLAIN_KERNELS=avx512|avx2|portable in the environment asks for another (ModelError if
/// it is not there).
template <typename T>
const Kernels<T>& kernels();

}  // namespace fusion::plain
