#pragma once

#include <cstddef>
#include <vector>

namespace fusion {

/// Floats per group that every array handed to a kernel is padded to.
inline constexpr std::size_t kLanes = 16;

inline constexpr std::size_t padded(std::size_t count) { return (count + kLanes - 1) / kLanes * kLanes; }

/// C[m][n] (+)= sum over k of A(m, k) * B[k][n], where A(m, k) = a[m * a_row + k * a_column], B and C are row-major
/// with `stride` floats per row, and `columns` is a multiple of kLanes. `scratch` holds `depth` * kLanes floats.
struct MatrixProduct {
  std::size_t rows = 0, depth = 0, columns = 0;
  const float* a = nullptr;
  std::size_t a_row = 0, a_column = 0;
  const float* b = nullptr;
  std::size_t b_stride = 0;
  float* c = nullptr;
  std::size_t c_stride = 0;
  bool add = false;  ///< start from what C holds instead of zero
  float* scratch = nullptr;
};

/// One step of an LSTM cell over `count` (hidden unit, row) pairs; a multiple of kLanes. Gates lie one after another in
/// the order i, f, g, o, `count` floats each.
struct LstmCell {
  std::size_t count = 0;
  float* gates = nullptr;  ///< forward: pre-activations in, activations out; backward: out the gradient before them
  const float* c_before = nullptr;  ///< nullptr: zeros
  float* c = nullptr;
  float* tanh_c = nullptr;
  float* h = nullptr;
  const float* h_gradient = nullptr;  ///< backward only
  float* c_gradient = nullptr;        ///< backward only: in from the next step, out to the previous one
};

/// One update by Adam (Kingma and Ba, 2015; the order of operations of PyTorch), `count` a multiple of kLanes.
struct AdamUpdate {
  std::size_t count = 0;
  float* weights = nullptr;
  const float* gradient = nullptr;
  float* first = nullptr;   ///< running mean of the gradient
  float* second = nullptr;  ///< running mean of its square
  float beta1 = 0, one_minus_beta1 = 0, beta2 = 0, one_minus_beta2 = 0;
  float step = 0;             ///< lr / (1 - beta1^n)
  float root_correction = 0;  ///< sqrt(1 - beta2^n)
  float epsilon = 0;
};

/// The inner loops of the LSTM surrogate, once per instruction set.
///
/// Every set gives the same bits: each output element is one chain of separate IEEE multiplications and additions in
/// ascending order of its index, lanes never meet, nothing is contracted to a fused multiply-add, and exp and tanh are
/// the same polynomials everywhere.
struct LstmKernels {
  const char* name;
  void (*multiply)(const MatrixProduct& product);
  void (*sigmoid)(float* values, std::size_t count);  ///< in place; count a multiple of kLanes
  void (*forward)(const LstmCell& cell);
  void (*backward)(const LstmCell& cell);
  void (*adam)(const AdamUpdate& update);
};

/// The widest set this processor has; looked up once.
const LstmKernels& lstm_kernels();
/// Every set this processor has, the portable one first.
std::vector<const LstmKernels*> all_lstm_kernels();

}  // namespace fusion
