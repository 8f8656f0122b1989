// The kernels' one source, compiled once per instruction set by lstm_kernels_*.cpp, which define
//   FUSION_KERNEL_SET    the constant that holds the set, and FUSION_KERNEL_NAME its name for people
//   FUSION_KERNEL_WIDTH  floats per register: 4, 8 or 16
//   FUSION_KERNEL_ROWS   rows of C kept in registers at a time; no influence on results
// No inline function of another header may be called here: the linker would be free to keep the copy that was compiled
// for the widest instruction set, for the whole program.

#include "surrogate/lstm_kernels.h"

namespace fusion {
namespace {

constexpr std::size_t kWidth = FUSION_KERNEL_WIDTH;
constexpr std::size_t kVectors = kLanes / kWidth;
constexpr std::size_t kRows = FUSION_KERNEL_ROWS;

using Floats = float __attribute__((vector_size(kWidth * sizeof(float))));
using Ints = int __attribute__((vector_size(kWidth * sizeof(float))));
using LooseFloats = float __attribute__((vector_size(kWidth * sizeof(float)), aligned(4), may_alias));

inline __attribute__((always_inline)) Floats load(const float* from) {
  return *reinterpret_cast<const LooseFloats*>(from);
}
inline __attribute__((always_inline)) void store(float* to, Floats values) {
  *reinterpret_cast<LooseFloats*>(to) = values;
}

/// e^x for |x| <= 87 (clamped), about one unit in the last place: x = n ln 2 + r, a polynomial in r (Cephes), 2^n by
/// its bits.
inline __attribute__((always_inline)) Floats exp_of(Floats x) {
  const Floats limit = Floats{} + 87.0f;
  x = x > limit ? limit : x;
  x = x < -limit ? -limit : x;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const Floats n = (x * 1.44269504088896341f + kRound) - kRound;
  const Floats r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  Floats p = Floats{} + 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = (p * (r * r) + r) + 1.0f;
  const Ints scale = (__builtin_convertvector(n, Ints) + 127) << 23;
  return p * reinterpret_cast<Floats>(scale);
}

inline __attribute__((always_inline)) Floats sigmoid_of(Floats x) { return 1.0f / (1.0f + exp_of(-x)); }

/// tanh x: an odd polynomial (Cephes) below 0.625, else 1 - 2 / (e^(2|x|) + 1) with the sign of x.
inline __attribute__((always_inline)) Floats tanh_of(Floats x) {
  const Floats z = x * x;
  Floats p = Floats{} - 5.70498872745e-3f;
  p = p * z + 2.06390887954e-2f;
  p = p * z - 5.37397155531e-2f;
  p = p * z + 1.33314422036e-1f;
  p = p * z - 3.33332819422e-1f;
  const Floats small = p * z * x + x;
  const Floats size = x < 0.0f ? -x : x;
  const Floats rest = 1.0f - 2.0f / (exp_of(size + size) + 1.0f);
  const Floats large = x < 0.0f ? -rest : rest;
  return size < 0.625f ? small : large;
}

/// One tile of C: `Rows` rows by kLanes columns, held in registers over the whole depth. `panel` is [depth][kLanes].
template <std::size_t Rows>
inline void multiply_tile(const MatrixProduct& product, const float* panel, std::size_t row, std::size_t column) {
  Floats sums[Rows][kVectors];
  float* c = product.c + row * product.c_stride + column;
#pragma GCC unroll 16
  for (std::size_t m = 0; m < Rows; ++m) {
#pragma GCC unroll 4
    for (std::size_t v = 0; v < kVectors; ++v) {
      sums[m][v] = product.add ? load(c + m * product.c_stride + v * kWidth) : Floats{};
    }
  }
  const float* a = product.a + row * product.a_row;
  for (std::size_t k = 0; k < product.depth; ++k, a += product.a_column, panel += kLanes) {
    Floats b[kVectors];
#pragma GCC unroll 4
    for (std::size_t v = 0; v < kVectors; ++v) b[v] = load(panel + v * kWidth);
#pragma GCC unroll 16
    for (std::size_t m = 0; m < Rows; ++m) {
      const Floats weight = a[m * product.a_row] - Floats{};  // a broadcast; 0 + a is not, for it turns -0 into 0
#pragma GCC unroll 4
      for (std::size_t v = 0; v < kVectors; ++v) sums[m][v] = sums[m][v] + weight * b[v];
    }
  }
#pragma GCC unroll 16
  for (std::size_t m = 0; m < Rows; ++m) {
#pragma GCC unroll 4
    for (std::size_t v = 0; v < kVectors; ++v) store(c + m * product.c_stride + v * kWidth, sums[m][v]);
  }
}

void multiply(const MatrixProduct& product) {
  for (std::size_t column = 0; column < product.columns; column += kLanes) {
    for (std::size_t k = 0; k < product.depth; ++k) {
      const float* from = product.b + k * product.b_stride + column;
      for (std::size_t v = 0; v < kLanes; v += kWidth) store(product.scratch + k * kLanes + v, load(from + v));
    }
    std::size_t row = 0;
    for (; row + kRows <= product.rows; row += kRows) multiply_tile<kRows>(product, product.scratch, row, column);
    for (; row + 4 <= product.rows; row += 4) multiply_tile<4>(product, product.scratch, row, column);
    for (; row < product.rows; ++row) multiply_tile<1>(product, product.scratch, row, column);
  }
}

void sigmoid(float* values, std::size_t count) {
  for (std::size_t n = 0; n < count; n += kWidth) store(values + n, sigmoid_of(load(values + n)));
}

void forward(const LstmCell& cell) {
  float* const i_gate = cell.gates;
  float* const f_gate = i_gate + cell.count;
  float* const g_gate = f_gate + cell.count;
  float* const o_gate = g_gate + cell.count;
  for (std::size_t n = 0; n < cell.count; n += kWidth) {
    const Floats i = sigmoid_of(load(i_gate + n));
    const Floats f = sigmoid_of(load(f_gate + n));
    const Floats g = tanh_of(load(g_gate + n));
    const Floats o = sigmoid_of(load(o_gate + n));
    const Floats c = cell.c_before != nullptr ? f * load(cell.c_before + n) + i * g : i * g;
    const Floats tanh_c = tanh_of(c);
    store(i_gate + n, i);
    store(f_gate + n, f);
    store(g_gate + n, g);
    store(o_gate + n, o);
    store(cell.c + n, c);
    store(cell.tanh_c + n, tanh_c);
    store(cell.h + n, o * tanh_c);
  }
}

void backward(const LstmCell& cell) {
  float* const i_gate = cell.gates;
  float* const f_gate = i_gate + cell.count;
  float* const g_gate = f_gate + cell.count;
  float* const o_gate = g_gate + cell.count;
  for (std::size_t n = 0; n < cell.count; n += kWidth) {
    const Floats i = load(i_gate + n), f = load(f_gate + n), g = load(g_gate + n), o = load(o_gate + n);
    const Floats tanh_c = load(cell.tanh_c + n);
    const Floats dh = load(cell.h_gradient + n);
    const Floats dc = load(cell.c_gradient + n) + dh * o * (1.0f - tanh_c * tanh_c);
    const Floats c_before = cell.c_before != nullptr ? load(cell.c_before + n) : Floats{};
    store(i_gate + n, dc * g * (i * (1.0f - i)));
    store(f_gate + n, dc * c_before * (f * (1.0f - f)));
    store(g_gate + n, dc * i * (1.0f - g * g));
    store(o_gate + n, dh * tanh_c * (o * (1.0f - o)));
    store(cell.c_gradient + n, dc * f);
  }
}

/// Plain loops here: the compiler vectorises them by itself, and an element's operations are the same either way.
void adam(const AdamUpdate& update) {
  const AdamUpdate u = update;
  float* __restrict const weights = u.weights;
  float* __restrict const firsts = u.first;
  float* __restrict const seconds = u.second;
  const float* __restrict const gradients = u.gradient;
  for (std::size_t n = 0; n < u.count; ++n) {
    const float gradient = gradients[n];
    const float first = firsts[n] * u.beta1 + gradient * u.one_minus_beta1;
    const float second = seconds[n] * u.beta2 + gradient * u.one_minus_beta2 * gradient;
    firsts[n] = first;
    seconds[n] = second;
    weights[n] -= u.step * (first / (__builtin_sqrtf(second) / u.root_correction + u.epsilon));
  }
}

}  // namespace

extern const LstmKernels FUSION_KERNEL_SET;
const LstmKernels FUSION_KERNEL_SET{FUSION_KERNEL_NAME, multiply, sigmoid, forward, backward, adam};

}  // namespace fusion
