// The kernels once, for the instruction set that the including file is compiled for; the file names its set in FUSION_PLAIN_SET.
// Everything but the set's own function is local to the file: code compiled for one set must never be linked into another.

#include <utility>

#include "workers/train/plain_kernel_sets.h"

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

namespace fusion::plain {
namespace {

using std::ptrdiff_t;
using std::size_t;

#if defined(__AVX512F__)
constexpr int kBytes = 64;
constexpr int kMaxVectors = 4;                          // columns of a tile, in vectors
constexpr int kTileRows[kMaxVectors + 1] = {0, 16, 12, 8, 6};  // what fills 32 registers
constexpr int kPanelDepth = 384;                        // rows of b that stay in the first-level cache, for one vector of columns
#elif defined(__AVX2__)
constexpr int kBytes = 32;
constexpr int kMaxVectors = 2;
constexpr int kTileRows[kMaxVectors + 1] = {0, 8, 6};
constexpr int kPanelDepth = 768;
#else
constexpr int kBytes = 16;
constexpr int kMaxVectors = 2;
constexpr int kTileRows[kMaxVectors + 1] = {0, 8, 6};
constexpr int kPanelDepth = 1024;
#endif

template <typename T>
struct VectorOf {
  typedef T Type __attribute__((vector_size(kBytes)));
};
template <typename T>
using V = typename VectorOf<T>::Type;
template <typename T>
constexpr int kLanes = kBytes / static_cast<int>(sizeof(T));

template <typename T>
[[gnu::always_inline]] inline V<T> load(const T* p) {
  V<T> v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
template <typename T>
[[gnu::always_inline]] inline void store(T* p, V<T> v) {
  __builtin_memcpy(p, &v, sizeof v);
}
template <typename T>
[[gnu::always_inline]] inline V<T> all(T x) {
  return x - V<T>{};
}

[[gnu::always_inline]] inline V<float> square_root(V<float> x) {
#if defined(__AVX512F__)  // the unmasked forms make GCC 12 warn of its own header
  return V<float>(_mm512_maskz_sqrt_ps(0xFFFF, __m512(x)));
#elif defined(__AVX2__)
  return V<float>(_mm256_sqrt_ps(__m256(x)));
#else
  for (int i = 0; i < kLanes<float>; ++i) x[i] = __builtin_sqrtf(x[i]);
  return x;
#endif
}
[[gnu::always_inline]] inline V<double> square_root(V<double> x) {
#if defined(__AVX512F__)
  return V<double>(_mm512_maskz_sqrt_pd(0xFF, __m512d(x)));
#elif defined(__AVX2__)
  return V<double>(_mm256_sqrt_pd(__m256d(x)));
#else
  for (int i = 0; i < kLanes<double>; ++i) x[i] = __builtin_sqrt(x[i]);
  return x;
#endif
}

/// x / y to the last bit or two.
[[gnu::always_inline]] inline V<float> quotient(V<float> x, V<float> y) {
#if defined(__AVX512F__)
  V<float> r = V<float>(_mm512_maskz_rcp14_ps(0xFFFF, __m512(y)));
  r += r * (1.0F - y * r);
  return x * r;
#else
  return x / y;
#endif
}
[[gnu::always_inline]] inline V<double> quotient(V<double> x, V<double> y) { return x / y; }

/// e^x for |x| to some 87; beyond, the value there. NaN stays NaN. To the last bit or two (Cephes).
[[gnu::always_inline]] inline V<float> exponential(V<float> x) {
  typedef std::int32_t Int __attribute__((vector_size(kBytes)));
  x = x > 88.0F ? all(88.0F) : x;
  x = x < -87.0F ? all(-87.0F) : x;
  const V<float> magic = all(12582912.0F);  // 1.5 * 2^23: adding it rounds to an integer, in the low bits
  const V<float> shifted = x * 1.44269504088896341F + magic;
  const V<float> n = shifted - magic;
  x -= n * 0.693359375F;
  x -= n * -2.12194440e-4F;
  V<float> y = x * 1.9875691500e-4F + 1.3981999507e-3F;
  y = y * x + 8.3334519073e-3F;
  y = y * x + 4.1665795894e-2F;
  y = y * x + 1.6666665459e-1F;
  y = y * x + 5.0000001201e-1F;
  y = y * (x * x) + x + 1.0F;
  const Int power = (Int)shifted << 23;
  return V<float>((Int)y + power);
}
[[gnu::always_inline]] inline V<double> exponential(V<double> x) {
  for (int i = 0; i < kLanes<double>; ++i) x[i] = __builtin_exp(x[i]);
  return x;
}

/// ln x for normal positive numbers. NaN stays NaN.
[[gnu::always_inline]] inline V<float> logarithm(V<float> x) {
  typedef std::int32_t Int __attribute__((vector_size(kBytes)));
  const Int bits = (Int)x;
  // x = m 2^e with m in [sqrt(1/2), sqrt(2))
  Int e = (bits - 0x3F3504F3) >> 23;
  const V<float> m = V<float>(bits - (e << 23));
  const V<float> scale = __builtin_convertvector(e, V<float>);
  const V<float> r = m - 1.0F;
  V<float> y = r * 7.0376836292e-2F - 1.1514610310e-1F;
  y = y * r + 1.1676998740e-1F;
  y = y * r - 1.2420140846e-1F;
  y = y * r + 1.4249322787e-1F;
  y = y * r - 1.6668057665e-1F;
  y = y * r + 2.0000714765e-1F;
  y = y * r - 2.4999993993e-1F;
  y = y * r + 3.3333331174e-1F;
  const V<float> square = r * r;
  y = y * r * square;
  y += scale * -2.12194440e-4F;
  y -= square * 0.5F;
  return r + y + scale * 0.693359375F + (x - x);
}
[[gnu::always_inline]] inline V<double> logarithm(V<double> x) {
  for (int i = 0; i < kLanes<double>; ++i) x[i] = __builtin_log(x[i]);
  return x;
}

template <typename T>
[[gnu::always_inline]] inline V<T> sigmoid(V<T> x) {
  return quotient(all(T{1}), T{1} + exponential(-x));
}

// ---- products

/// acc += A B for one tile. Along: neighbours in memory are rows of A (stride leads to the next k); else they are its columns.
template <typename T, int Rows, int Vectors, bool Along>
[[gnu::always_inline]] inline void accumulate(V<T> (&acc)[Rows][Vectors], const T* a, ptrdiff_t stride, std::int64_t depth, const T* b,
                                              ptrdiff_t b_stride) {
  constexpr int kGroups = (Rows + 3) / 4;  // row i of A is base[i / 4] + (i % 4) * stride: few pointers, no multiplications
  const T* base[kGroups];
#pragma GCC unroll 4
  for (int g = 0; g < kGroups; ++g) base[g] = a + 4 * g * stride;
  for (std::int64_t k = 0; k < depth; ++k) {
    V<T> from[Vectors];
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j) from[j] = load(b + j * kLanes<T>);
#pragma GCC unroll 16
    for (int i = 0; i < Rows; ++i) {
      const T x = Along ? a[i] : base[i / 4][(i % 4) * stride];
#pragma GCC unroll 4
      for (int j = 0; j < Vectors; ++j) acc[i][j] += x * from[j];
    }
    if constexpr (Along) {
      a += stride;
    } else {
#pragma GCC unroll 4
      for (int g = 0; g < kGroups; ++g) ++base[g];
    }
    b += b_stride;
  }
}

template <typename T, int Rows, int Vectors>
[[gnu::always_inline]] inline void accumulate(V<T> (&acc)[Rows][Vectors], const Factor<T>& factor, std::int64_t row, const T* b,
                                              ptrdiff_t b_stride) {
  const T* const a = factor.data + row * factor.row;
  if (factor.row == 1) {
    accumulate<T, Rows, Vectors, true>(acc, a, factor.column, factor.depth, b, b_stride);
  } else {
    accumulate<T, Rows, Vectors, false>(acc, a, factor.row, factor.depth, b, b_stride);
  }
}

/// Some factors' share of a product: added to what is in c already, or to the bias.
template <typename T>
struct ProductPart {
  T* c;
  ptrdiff_t c_stride;
  const Factor<T>* factors;
  size_t factor_count;
  const T* b;
  ptrdiff_t b_stride;
  const T* bias;
  bool add;
};

template <typename T, int Rows, int Vectors>
void product_tile(const ProductPart<T>& part, std::int64_t row, std::int64_t column) {
  T* const c = part.c + row * part.c_stride + column;
  V<T> acc[Rows][Vectors];
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j) {
      acc[i][j] = part.add    ? load(c + i * part.c_stride + j * kLanes<T>)
                  : part.bias ? load(part.bias + column + j * kLanes<T>)
                              : V<T>{};
    }
  }
  const T* b = part.b + column;
  for (size_t s = 0; s < part.factor_count; ++s) {
    accumulate<T, Rows, Vectors>(acc, part.factors[s], row, b, part.b_stride);
    b += part.factors[s].depth * part.b_stride;
  }
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j) store(c + i * part.c_stride + j * kLanes<T>, acc[i][j]);
  }
}

template <typename T>
struct UpdatePart {
  Trained<T> trained;
  Factor<T> a;
  const T* b;
  ptrdiff_t b_stride;
  AdamStep<T> adam;
};

template <typename T>
[[gnu::always_inline]] inline void adam_vector(T* theta, T* moment1, T* moment2, V<T> gradient, const AdamStep<T>& adam) {
  const V<T> old = load(theta);
  const V<T> g = gradient + adam.weight_decay * old;
  const V<T> m = load(moment1) * adam.beta1 + adam.rest1 * g;
  const V<T> v = load(moment2) * adam.beta2 + adam.rest2 * g * g;
  const V<T> denominator = square_root(v) * adam.over_root2 + adam.eps;
  store(moment1, m);
  store(moment2, v);
  store(theta, old - adam.step_size * quotient(m, denominator));
}

template <typename T, int Rows, int Vectors>
void update_tile(const UpdatePart<T>& part, std::int64_t row, std::int64_t column) {
  const ptrdiff_t stride = part.trained.stride;
  const ptrdiff_t first = row * stride + column;
  V<T> acc[Rows][Vectors]{};
  if (part.trained.far) {
    // Parameters come from far away: while a slice of the product is made, one row of the next tile's is on its way.
    for (int i = 0; i < Rows; ++i) {
      for (int j = 0; j < Vectors; ++j) {
        const ptrdiff_t at = first + (Rows + i) * stride + j * kLanes<T>;
        __builtin_prefetch(part.trained.theta + at, 1);
        __builtin_prefetch(part.trained.moment1 + at, 1);
        __builtin_prefetch(part.trained.moment2 + at, 1);
      }
      Factor<T> slice = part.a;
      const std::int64_t begin = part.a.depth * i / Rows;
      slice.data += begin * part.a.column;
      slice.depth = part.a.depth * (i + 1) / Rows - begin;
      accumulate<T, Rows, Vectors>(acc, slice, row, part.b + column + begin * part.b_stride, part.b_stride);
    }
  } else {
    accumulate<T, Rows, Vectors>(acc, part.a, row, part.b + column, part.b_stride);
  }
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j) {
      const ptrdiff_t at = first + i * stride + j * kLanes<T>;
      adam_vector(part.trained.theta + at, part.trained.moment1 + at, part.trained.moment2 + at, acc[i][j], part.adam);
    }
  }
}

template <typename T>
struct ProductTiles {
  using Part = ProductPart<T>;
  template <int Rows, int Vectors>
  static constexpr auto kTile = &product_tile<T, Rows, Vectors>;
};
template <typename T>
struct UpdateTiles {
  using Part = UpdatePart<T>;
  template <int Rows, int Vectors>
  static constexpr auto kTile = &update_tile<T, Rows, Vectors>;
};

/// Calls the tile function of each tile of a result: panels of columns, in each the rows in equal blocks.
template <typename Tiles, int Vectors, int... Rows>
void run_panel(const typename Tiles::Part& part, std::int64_t rows, std::int64_t column, std::integer_sequence<int, Rows...>) {
  using Tile = void (*)(const typename Tiles::Part&, std::int64_t, std::int64_t);
  static constexpr Tile kTiles[] = {Tiles::template kTile<Rows + 1, Vectors>...};
  constexpr std::int64_t kMost = sizeof...(Rows);
  const std::int64_t blocks = (rows + kMost - 1) / kMost;
  for (std::int64_t block = 0, row = 0; block < blocks; ++block) {
    const std::int64_t count = (rows - row + blocks - block - 1) / (blocks - block);
    kTiles[count - 1](part, row, column);
    row += count;
  }
}

template <typename T, typename Tiles>
void run_tiles(const typename Tiles::Part& part, std::int64_t rows, std::int64_t columns) {
  for (std::int64_t column = 0; column < columns;) {
    const std::int64_t vectors = (columns - column) / kLanes<T>;
    const auto run = [&]<int Vectors>() {
      run_panel<Tiles, Vectors>(part, rows, column, std::make_integer_sequence<int, kTileRows[Vectors]>{});
      column += Vectors * kLanes<T>;
    };
#if defined(__AVX512F__)
    if (vectors >= 4) {
      run.template operator()<4>();
      continue;
    }
    if (vectors == 3) {
      run.template operator()<3>();
      continue;
    }
#endif
    if (vectors >= 2) {
      run.template operator()<2>();
    } else {
      run.template operator()<1>();
    }
  }
}

template <typename T>
void product(T* c, ptrdiff_t c_stride, std::int64_t rows, std::int64_t columns, const Factor<T>* factors, size_t factor_count,
             const T* b, ptrdiff_t b_stride, const T* bias) {
  constexpr size_t kMost = 16;
  const std::int64_t vectors = columns / kLanes<T>;
  const std::int64_t chunk = kPanelDepth / (vectors < kMaxVectors ? vectors : kMaxVectors);
  std::int64_t left = 0;
  for (size_t s = 0; s < factor_count; ++s) left += factors[s].depth;
  if (left <= chunk + chunk / 2) {
    run_tiles<T, ProductTiles<T>>({c, c_stride, factors, factor_count, b, b_stride, bias, false}, rows, columns);
    return;
  }
  Factor<T> pieces[kMost];
  size_t count = 0;
  std::int64_t depth = 0;
  bool add = false;
  const std::int64_t chunks = (left + chunk - 1) / chunk;
  const std::int64_t most = (left + chunks - 1) / chunks;
  const auto flush = [&] {
    run_tiles<T, ProductTiles<T>>({c, c_stride, pieces, count, b, b_stride, bias, add}, rows, columns);
    b += depth * b_stride;
    add = true;
    count = 0;
    depth = 0;
  };
  for (size_t s = 0; s < factor_count; ++s) {
    Factor<T> rest = factors[s];
    while (rest.depth > 0) {
      Factor<T> piece = rest;
      if (piece.depth > most - depth) piece.depth = most - depth;
      pieces[count++] = piece;
      depth += piece.depth;
      rest.data += piece.depth * rest.column;
      rest.depth -= piece.depth;
      if (depth == most || count == kMost) flush();
    }
  }
  if (count > 0) flush();
}

template <typename T>
void update(const Trained<T>& trained, std::int64_t rows, std::int64_t columns, const Factor<T>& a, const T* b, ptrdiff_t b_stride,
            const AdamStep<T>& adam) {
  run_tiles<T, UpdateTiles<T>>({trained, a, b, b_stride, adam}, rows, columns);
}

template <typename T>
void adam(T* theta, T* moment1, T* moment2, const T* gradient, std::int64_t count, const AdamStep<T>& step) {
  for (std::int64_t i = 0; i < count; i += kLanes<T>) adam_vector(theta + i, moment1 + i, moment2 + i, load(gradient + i), step);
}

template <typename T>
void column_sums(const T* x, ptrdiff_t stride, std::int64_t rows, std::int64_t columns, T* out) {
  for (std::int64_t c = 0; c < columns; c += kLanes<T>) {
    V<T> sums[4]{};
    std::int64_t r = 0;
    for (; r + 4 <= rows; r += 4) {
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) sums[i] += load(x + (r + i) * stride + c);
    }
    for (; r < rows; ++r) sums[0] += load(x + r * stride + c);
    store(out + c, (sums[0] + sums[1]) + (sums[2] + sums[3]));
  }
}

constexpr int kBlock = 16;  // rows and columns of a block to transpose

#if defined(__AVX512F__)
/// Row i of the 16 becomes column i: pairs of numbers, pairs of pairs, and two rounds of quarters change places.
[[gnu::always_inline]] inline void transpose_block(const float* x, ptrdiff_t stride, float* out, ptrdiff_t out_stride) {
  __m512 a[kBlock], b[kBlock];
#pragma GCC unroll 16
  for (int i = 0; i < kBlock; ++i) a[i] = __m512(load(x + i * stride));
#pragma GCC unroll 8
  for (int i = 0; i < kBlock; i += 2) {
    b[i] = __m512(__builtin_shuffle(V<std::int32_t>(a[i]), V<std::int32_t>(a[i + 1]),
                                    V<std::int32_t>{0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29}));
    b[i + 1] = __m512(__builtin_shuffle(V<std::int32_t>(a[i]), V<std::int32_t>(a[i + 1]),
                                        V<std::int32_t>{2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31}));
  }
  const V<std::int64_t> lower{0, 8, 2, 10, 4, 12, 6, 14}, upper{1, 9, 3, 11, 5, 13, 7, 15};
  const auto pairs = [](__m512 p, __m512 q, V<std::int64_t> places) {
    return __m512(__builtin_shuffle(V<std::int64_t>(p), V<std::int64_t>(q), places));
  };
#pragma GCC unroll 4
  for (int i = 0; i < kBlock; i += 4) {
    a[i] = pairs(b[i], b[i + 2], lower);
    a[i + 1] = pairs(b[i], b[i + 2], upper);
    a[i + 2] = pairs(b[i + 1], b[i + 3], lower);
    a[i + 3] = pairs(b[i + 1], b[i + 3], upper);
  }
  const V<std::int64_t> evens{0, 1, 4, 5, 8, 9, 12, 13}, odds{2, 3, 6, 7, 10, 11, 14, 15};
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    b[i] = pairs(a[i], a[i + 4], evens);
    b[i + 4] = pairs(a[i], a[i + 4], odds);
    b[i + 8] = pairs(a[i + 8], a[i + 12], evens);
    b[i + 12] = pairs(a[i + 8], a[i + 12], odds);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    a[i] = pairs(b[i], b[i + 8], evens);
    a[i + 8] = pairs(b[i], b[i + 8], odds);
    a[i + 4] = pairs(b[i + 4], b[i + 12], evens);
    a[i + 12] = pairs(b[i + 4], b[i + 12], odds);
  }
#pragma GCC unroll 16
  for (int i = 0; i < kBlock; ++i) store(out + i * out_stride, V<float>(a[i]));
}
template <typename T>
constexpr bool kWholeBlocks = sizeof(T) == 4;
#else
template <typename T>
constexpr bool kWholeBlocks = false;
#endif

template <typename T>
void transpose(const T* x, ptrdiff_t stride, std::int64_t rows, std::int64_t columns, T* out, ptrdiff_t out_stride) {
  for (std::int64_t r0 = 0; r0 < rows; r0 += kBlock) {
    const std::int64_t r1 = r0 + kBlock < rows ? r0 + kBlock : rows;
    std::int64_t c = 0;
    if constexpr (kWholeBlocks<T>) {
      if (r1 - r0 == kBlock) {
        for (; c + kBlock <= columns; c += kBlock) transpose_block(x + r0 * stride + c, stride, out + c * out_stride + r0, out_stride);
      }
    }
    for (; c < columns; ++c) {
      for (std::int64_t r = r0; r < r1; ++r) out[c * out_stride + r] = x[r * stride + c];
    }
  }
}

// ---- activations

template <Nonlinearity F, typename T>
[[gnu::always_inline]] inline V<T> apply(V<T> z) {
  if constexpr (F == Nonlinearity::relu) return T{0} > z ? V<T>{} : z;  // NaN stays
  if constexpr (F == Nonlinearity::sigmoid) return sigmoid<T>(z);
  if constexpr (F == Nonlinearity::leaky_relu) return z > T{0} ? z : z * static_cast<T>(0.01);
  return z;
}

/// g * f'(z), told from a = f(z).
template <Nonlinearity F, typename T>
[[gnu::always_inline]] inline V<T> apply_back(V<T> a, V<T> g) {
  if constexpr (F == Nonlinearity::relu) return a > T{0} ? g : V<T>{};
  if constexpr (F == Nonlinearity::sigmoid) return g * a * (T{1} - a);
  if constexpr (F == Nonlinearity::leaky_relu) return a > T{0} ? g : g * static_cast<T>(0.01);
  return g;
}

/// Calls `body` with the nonlinearity as a constant.
template <typename Body>
[[gnu::always_inline]] inline void with(Nonlinearity f, Body&& body) {
  switch (f) {
    case Nonlinearity::relu: return body.template operator()<Nonlinearity::relu>();
    case Nonlinearity::sigmoid: return body.template operator()<Nonlinearity::sigmoid>();
    case Nonlinearity::leaky_relu: return body.template operator()<Nonlinearity::leaky_relu>();
    case Nonlinearity::identity: return body.template operator()<Nonlinearity::identity>();
  }
}

template <typename T>
void activate(Nonlinearity f, const T* z, T* a, T* h, const T* mask, std::int64_t count) {
  with(f, [&]<Nonlinearity F>() {
    if (!mask) {
      for (std::int64_t i = 0; i < count; i += kLanes<T>) store(a + i, apply<F, T>(load(z + i)));
      return;
    }
    for (std::int64_t i = 0; i < count; i += kLanes<T>) {
      const V<T> value = apply<F, T>(load(z + i));
      store(a + i, value);
      store(h + i, value * load(mask + i));
    }
  });
}

template <typename T>
void activate_back(Nonlinearity f, const T* a, const T* dh, const T* mask, T* dz, std::int64_t count) {
  with(f, [&]<Nonlinearity F>() {
    for (std::int64_t i = 0; i < count; i += kLanes<T>) {
      V<T> g = load(dh + i);
      if (mask) g *= load(mask + i);
      store(dz + i, apply_back<F, T>(load(a + i), g));
    }
  });
}

template <typename T>
void gate(Nonlinearity f, T* z, T* a, T* h, const T* mask, std::int64_t rows, std::int64_t columns) {
  with(f, [&]<Nonlinearity F>() {
    for (std::int64_t r = 0; r < rows; ++r, z += 2 * columns) {
      for (std::int64_t c = 0; c < columns; c += kLanes<T>) {
        const std::int64_t at = r * columns + c;
        const V<T> value = apply<F, T>(load(z + c));
        const V<T> opened = sigmoid<T>(load(z + columns + c));
        store(z + c, value);
        store(z + columns + c, opened);
        store(a + at, value * opened);
        if (mask) store(h + at, value * opened * load(mask + at));
      }
    }
  });
}

template <typename T>
void gate_back(Nonlinearity f, const T* z, const T* dh, const T* mask, T* dz, std::int64_t rows, std::int64_t columns) {
  with(f, [&]<Nonlinearity F>() {
    for (std::int64_t r = 0; r < rows; ++r, z += 2 * columns, dz += 2 * columns) {
      for (std::int64_t c = 0; c < columns; c += kLanes<T>) {
        V<T> g = load(dh + r * columns + c);
        if (mask) g *= load(mask + r * columns + c);
        const V<T> value = load(z + c), opened = load(z + columns + c);
        store(dz + c, apply_back<F, T>(value, g * opened));
        store(dz + columns + c, g * value * opened * (T{1} - opened));
      }
    }
  });
}

// ---- batch normalisation

constexpr double kNormEps = 1e-5, kMomentum = 0.1;

template <typename T>
void normalise(const T* a, const T* gamma, const T* beta, const T* mask, T* running_mean, T* running_var, T* normalised, T* h, T* rstd,
               std::int64_t rows, std::int64_t columns) {
  const T count = static_cast<T>(rows);
  const T momentum = static_cast<T>(kMomentum), kept = static_cast<T>(1 - kMomentum);
  for (std::int64_t c = 0; c < columns; c += kLanes<T>) {
    V<T> sum{};
    for (std::int64_t r = 0; r < rows; ++r) sum += load(a + r * columns + c);
    const V<T> mean = sum / count;
    V<T> squares{};
    for (std::int64_t r = 0; r < rows; ++r) {
      const V<T> d = load(a + r * columns + c) - mean;
      squares += d * d;
    }
    const V<T> inverse = T{1} / square_root(squares / count + static_cast<T>(kNormEps));
    store(rstd + c, inverse);
    store(running_mean + c, load(running_mean + c) * kept + mean * momentum);
    store(running_var + c, load(running_var + c) * kept + squares / (count - T{1}) * momentum);
    const V<T> scale = load(gamma + c), shift = load(beta + c);
    for (std::int64_t r = 0; r < rows; ++r) {
      const std::int64_t at = r * columns + c;
      const V<T> x = (load(a + at) - mean) * inverse;
      store(normalised + at, x);
      V<T> y = x * scale + shift;
      if (mask) y *= load(mask + at);
      store(h + at, y);
    }
  }
}

template <typename T>
void normalise_back(const T* normalised, const T* rstd, const T* gamma, const T* mask, const T* dh, T* da, T* dgamma, T* dbeta,
                    std::int64_t rows, std::int64_t columns) {
  for (std::int64_t c = 0; c < columns; c += kLanes<T>) {
    V<T> to_beta{}, to_gamma{};
    for (std::int64_t r = 0; r < rows; ++r) {
      const std::int64_t at = r * columns + c;
      V<T> dy = load(dh + at);
      if (mask) dy *= load(mask + at);
      to_beta += dy;
      to_gamma += dy * load(normalised + at);
    }
    store(dbeta + c, to_beta);
    store(dgamma + c, to_gamma);
    const V<T> scale = load(gamma + c) * load(rstd + c);
    const V<T> mean_beta = to_beta / static_cast<T>(rows), mean_gamma = to_gamma / static_cast<T>(rows);
    for (std::int64_t r = 0; r < rows; ++r) {
      const std::int64_t at = r * columns + c;
      V<T> dy = load(dh + at);
      if (mask) dy *= load(mask + at);
      store(da + at, scale * (dy - mean_beta - load(normalised + at) * mean_gamma));
    }
  }
}

template <typename T>
void normalise_running(T* a, const T* gamma, const T* beta, const T* running_mean, const T* running_var, std::int64_t rows,
                       std::int64_t columns) {
  for (std::int64_t c = 0; c < columns; c += kLanes<T>) {
    const V<T> mean = load(running_mean + c), shift = load(beta + c);
    const V<T> scale = load(gamma + c) / square_root(load(running_var + c) + static_cast<T>(kNormEps));
    for (std::int64_t r = 0; r < rows; ++r) store(a + r * columns + c, (load(a + r * columns + c) - mean) * scale + shift);
  }
}

// ---- loss

/// A vector holds one class of as many rows as it has lanes, so that nothing is reduced across lanes. Rows past `rows` are of no account.
template <typename T>
double softmax_block(V<T>* turned, std::int64_t rows, std::int64_t classes, const std::int64_t* labels, T scale) {
  T* const flat = reinterpret_cast<T*>(turned);  // [classes, lanes]
  V<T> most = turned[0];
  for (std::int64_t c = 1; c < classes; ++c) most = turned[c] > most ? turned[c] : most;
  T right[kLanes<T>]{};
  for (std::int64_t r = 0; r < rows; ++r) right[r] = flat[labels[r] * kLanes<T> + r];
  V<T> sum{};
  for (std::int64_t c = 0; c < classes; ++c) {
    turned[c] = exponential(turned[c] - most);
    sum += turned[c];
  }
  T losses[kLanes<T>];
  store(losses, logarithm(sum) - (load(right) - most));
  const V<T> share = scale / sum;
  for (std::int64_t c = 0; c < classes; ++c) turned[c] *= share;
  double loss = 0;
  for (std::int64_t r = 0; r < rows; ++r) {
    loss += static_cast<double>(losses[r]);
    flat[labels[r] * kLanes<T> + r] -= scale;
  }
  return loss;
}

/// For many classes: a vector holds classes of one row.
template <typename T>
double softmax_row(T* row, ptrdiff_t stride, std::int64_t classes, std::int64_t label, T scale) {
  constexpr T kNever = static_cast<T>(-1e30);
  for (std::int64_t c = classes; c < stride; ++c) row[c] = kNever;
  V<T> most = load(row);
  for (std::int64_t c = kLanes<T>; c < stride; c += kLanes<T>) most = load(row + c) > most ? load(row + c) : most;
  T top = most[0];
  for (int i = 1; i < kLanes<T>; ++i) top = most[i] > top ? most[i] : top;
  const T right = row[label] - top;
  V<T> sums{};
  for (std::int64_t c = 0; c < stride; c += kLanes<T>) {
    const V<T> e = exponential(load(row + c) - top);
    store(row + c, e);
    sums += e;
  }
  T sum = 0;
  for (int i = 0; i < kLanes<T>; ++i) sum += sums[i];
  const T share = scale / sum;
  for (std::int64_t c = 0; c < stride; c += kLanes<T>) store(row + c, load(row + c) * share);
  row[label] -= scale;
  return static_cast<double>(logarithm(all(sum))[0] - right);
}

template <typename T>
double softmax_loss(T* logits, ptrdiff_t stride, std::int64_t rows, std::int64_t classes, const std::int64_t* labels) {
  constexpr std::int64_t kFewClasses = 64;
  const T scale = T{1} / static_cast<T>(rows);
  double loss = 0;
  if (classes <= kFewClasses) {
    for (std::int64_t r = 0; r < rows; r += kLanes<T>) {
      V<T> turned[kFewClasses]{};
      T* const flat = reinterpret_cast<T*>(turned);
      const std::int64_t count = rows - r < kLanes<T> ? rows - r : kLanes<T>;
      transpose(logits + r * stride, stride, count, stride, flat, kLanes<T>);
      loss += softmax_block(turned, count, classes, labels + r, scale);
      transpose(flat, kLanes<T>, stride, count, logits + r * stride, stride);
    }
  } else {
    for (std::int64_t r = 0; r < rows; ++r) loss += softmax_row(logits + r * stride, stride, classes, labels[r], scale);
  }
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t c = classes; c < stride; ++c) logits[r * stride + c] = 0;
  }
  return loss;
}

template <typename T>
void largest(const T* x, ptrdiff_t stride, std::int64_t rows, std::int64_t columns, std::int64_t* out) {
  for (std::int64_t r = 0; r < rows; ++r) {
    const T* const row = x + r * stride;
    std::int64_t best = 0;
    for (std::int64_t c = 1; c < columns; ++c) best = row[c] > row[best] ? c : best;
    out[r] = best;
  }
}

template <typename T>
T dot(const T* a, const T* b, std::int64_t count) {
  V<T> sum{};
  for (std::int64_t i = 0; i < count; i += kLanes<T>) sum += load(a + i) * load(b + i);
  T total = 0;
  for (int i = 0; i < kLanes<T>; ++i) total += sum[i];
  return total;
}

template <typename T>
constexpr Kernels<T> kernel_set(const char* name) {
  return {name,      product<T>,   update<T>,         adam<T>,         column_sums<T>, transpose<T>, activate<T>, activate_back<T>,
          gate<T>,   gate_back<T>, normalise<T>,      normalise_back<T>, normalise_running<T>, softmax_loss<T>, largest<T>, dot<T>};
}

}  // namespace

#define FUSION_TEXT_OF(x) #x
#define FUSION_TEXT(x) FUSION_TEXT_OF(x)
#define FUSION_JOINED_OF(a, b) a##b
#define FUSION_JOINED(a, b) FUSION_JOINED_OF(a, b)
template <>
const Kernels<float>& FUSION_JOINED(FUSION_PLAIN_SET, _kernels)<float>() {
  static constexpr Kernels<float> set = kernel_set<float>(FUSION_TEXT(FUSION_PLAIN_SET));
  return set;
}
template <>
const Kernels<double>& FUSION_JOINED(FUSION_PLAIN_SET, _kernels)<double>() {
  static constexpr Kernels<double> set = kernel_set<double>(FUSION_TEXT(FUSION_PLAIN_SET));
  return set;
}

}  // namespace fusion::plain
