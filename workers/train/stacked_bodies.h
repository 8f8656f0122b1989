#pragma once

#include <math.h>

#include <cstdint>

#include "workers/train/stacked_tasks.h"

// What the stacked engine's kernels do, once for both sides: a GPU runs these functions in its threads, the CPU runs the same ones in
// loops (workers/train/stacked_cpu.cpp). Two forms:
//
//   a function of one element                any number of threads, no thread knows of another
//   a block program (Product, ShareGradient) the threads of a block share memory; every phase ends with a barrier. On a GPU
//                                            Block::each runs its argument once and synchronises; on the CPU it runs it for every
//                                            thread in turn.
//
// Every sum is taken in an order that depends on the trial alone: no atomics, nothing across trials. NaN and infinity go through.

#if defined(__CUDACC__)
#define FUSION_BOTH __host__ __device__ inline
#else
#define FUSION_BOTH inline
#endif

namespace fusion::stacked {

// ---- numbers

FUSION_BOTH float exponential(float x) { return expf(x); }
FUSION_BOTH double exponential(double x) { return exp(x); }
FUSION_BOTH float logarithm(float x) { return logf(x); }
FUSION_BOTH double logarithm(double x) { return log(x); }
FUSION_BOTH float square_root(float x) { return sqrtf(x); }
FUSION_BOTH double square_root(double x) { return sqrt(x); }
template <typename T>
FUSION_BOTH T sigmoid(T x) {
  return T{1} / (T{1} + exponential(-x));
}

template <typename T>
FUSION_BOTH T apply(Nonlinearity f, T z) {
  switch (f) {
    case Nonlinearity::relu: return T{0} > z ? T{0} : z;  // NaN stays
    case Nonlinearity::sigmoid: return sigmoid(z);
    case Nonlinearity::leaky_relu: return z > T{0} ? z : z * static_cast<T>(0.01);
    case Nonlinearity::identity: break;
  }
  return z;
}

/// g * f'(z), told from a = f(z).
template <typename T>
FUSION_BOTH T apply_back(Nonlinearity f, T a, T g) {
  switch (f) {
    case Nonlinearity::relu: return a > T{0} ? g : T{0};
    case Nonlinearity::sigmoid: return g * a * (T{1} - a);
    case Nonlinearity::leaky_relu: return a > T{0} ? g : g * static_cast<T>(0.01);
    case Nonlinearity::identity: break;
  }
  return g;
}

// ---- rows

FUSION_BOTH std::int32_t batch_rows(const Position& at) {
  const std::int64_t left = at.end - at.first;
  return left < at.batch ? static_cast<std::int32_t>(left) : at.batch;
}

/// Row of the split that is row r of the batch.
template <typename T>
FUSION_BOTH std::int64_t split_row(const Cohort<T>& cohort, const Position& at, std::int32_t r) {
  const std::int64_t place = at.first + r;
  return cohort.order ? static_cast<std::int64_t>(cohort.order[place]) : place;
}

/// Row of a segment's data that is row r of the batch.
template <typename T>
FUSION_BOTH std::int64_t segment_row(const Segment<T>& segment, const Cohort<T>& cohort, const Position& at, std::int32_t r) {
  if (segment.source == Source::numbers) return r;
  return cohort.streamed ? at.first + r - at.tile_first : split_row(cohort, at, r);
}

template <typename T>
FUSION_BOTH T segment_number(const Segment<T>& segment, std::int64_t row, std::int32_t column) {
  const std::int64_t at = row * segment.stride + column;
  switch (segment.source) {
    case Source::float32: return static_cast<T>(static_cast<const float*>(segment.data)[at]);
    case Source::numbers: return static_cast<const T*>(segment.data)[at];
    case Source::bfloat16: {
      const std::uint32_t bits = static_cast<std::uint32_t>(static_cast<const std::uint16_t*>(segment.data)[at]) << 16;
#if defined(__CUDA_ARCH__)
      return static_cast<T>(__uint_as_float(bits));
#else
      float wide;
      __builtin_memcpy(&wide, &bits, sizeof wide);
      return static_cast<T>(wide);
#endif
    }
    case Source::ones: break;
  }
  return T{1};
}

/// What a segment's columns are multiplied with.
template <typename T>
FUSION_BOTH T segment_share(const Segment<T>& segment) {
  if (segment.share == Share::none) return T{1};
  const T s = sigmoid(*segment.alpha);
  return segment.share == Share::first ? s : T{1} - s;
}

// ---- dropout

/// Numbers of one trial's mask of one step (model/dropout.h), best asked for in ascending order: four come from one Philox block.
class Mask {
 public:
  FUSION_BOTH Mask(std::uint64_t seed, std::uint64_t stream, std::uint32_t threshold)
      : seed_(seed), stream_(stream), threshold_(threshold) {}

  FUSION_BOTH bool keeps(std::uint64_t element) {
    if (!made_ || element / 4 != block_) make(element / 4);
    const std::uint32_t low = element % 2 == 0 ? word0_ : word1_, high = element % 2 == 0 ? word2_ : word3_;
    return (element % 4 < 2 ? low : high) >= threshold_;
  }

 private:
  FUSION_BOTH void make(std::uint64_t block) {
    std::uint32_t c0 = static_cast<std::uint32_t>(block), c1 = static_cast<std::uint32_t>(block >> 32);
    std::uint32_t c2 = static_cast<std::uint32_t>(stream_), c3 = static_cast<std::uint32_t>(stream_ >> 32);
    std::uint32_t key0 = static_cast<std::uint32_t>(seed_), key1 = static_cast<std::uint32_t>(seed_ >> 32);
    for (int round = 0; round < 10; ++round) {
      const std::uint64_t p0 = std::uint64_t{0xD2511F53} * c0, p1 = std::uint64_t{0xCD9E8D57} * c2;
      c0 = static_cast<std::uint32_t>(p1 >> 32) ^ c1 ^ key0;
      c2 = static_cast<std::uint32_t>(p0 >> 32) ^ c3 ^ key1;
      c1 = static_cast<std::uint32_t>(p1);
      c3 = static_cast<std::uint32_t>(p0);
      key0 += 0x9E3779B9U;
      key1 += 0xBB67AE85U;
    }
    word0_ = c0, word1_ = c1, word2_ = c2, word3_ = c3;
    block_ = block;
    made_ = true;
  }

  std::uint64_t seed_, stream_;
  std::uint32_t threshold_;
  bool made_ = false;
  std::uint64_t block_ = 0;
  std::uint32_t word0_ = 0, word1_ = 0, word2_ = 0, word3_ = 0;  // no array: on a GPU they stay in registers
};

/// Row 0's first element of the batch in the mask of a whole training.
template <typename T>
FUSION_BOTH std::uint64_t first_element(const Scene<T>& scene, std::int32_t cohort) {
  return static_cast<std::uint64_t>((scene.cohorts[cohort].seen + scene.position->first) * scene.width);
}

// ---- products: a block program

/// The numbers of one block's rectangle, Rows x Columns by Rows x Columns / 16 threads with 4 x 4 numbers each; sixteen deep at a time.
template <typename T, int Rows, int Columns>
struct Product {
  static constexpr int kRows = Rows, kColumns = Columns, kDepth = 16, kPart = 4;
  static constexpr int kThreads = Rows * Columns / (kPart * kPart);
  struct Shared {
    alignas(16) T left[kDepth][Rows + 4];
    alignas(16) T right[kDepth][Columns + 4];
  };
  struct Own {
    T sums[kPart][kPart];
  };

  /// Runs the program of the block `ref`.
  template <typename Block>
  static FUSION_BOTH void run(const ProductList<T>& list, const BlockRef& ref, const Scene<T>& scene, Block& block) {
    const ProductTask<T> task = list.tasks[ref.task];
    if (!scene.live[task.trial]) return;
    const Position at = *scene.position;
    const std::int32_t rows = batch_rows(at);
    const Segment<T>* const segments = list.segments + task.segment;
    const std::int32_t height = task.kind == ProductKind::weight_gradient ? segments[0].width : rows;
    if (ref.row >= height) return;
    block.each([&](int thread) { clear(block.own(thread)); });
    if (task.kind == ProductKind::forward) {
      for (std::int32_t s = 0; s < task.segments; ++s) {
        const Segment<T>& segment = segments[s];
        const T share = segment_share(segment);
        for (std::int32_t k = 0; k < segment.width; k += kDepth) {
          block.each([&](int thread) {
            load_forward(task, segment, share, scene.cohorts[task.cohort], at, ref, rows, k, block.shared(), thread);
          });
          block.each([&](int thread) { multiply(block.shared(), block.own(thread), thread); });
        }
      }
    } else if (task.kind == ProductKind::weight_gradient) {
      const T share = segment_share(segments[0]);
      for (std::int32_t k = 0; k < rows; k += kDepth) {
        block.each([&](int thread) {
          load_weight_gradient(task, segments[0], share, scene.cohorts[task.cohort], at, ref, rows, k, block.shared(), thread);
        });
        block.each([&](int thread) { multiply(block.shared(), block.own(thread), thread); });
      }
    } else {
      for (std::int32_t k = 0; k < task.depth; k += kDepth) {
        block.each([&](int thread) { load_input_gradient(task, ref, rows, k, block.shared(), thread); });
        block.each([&](int thread) { multiply(block.shared(), block.own(thread), thread); });
      }
    }
    block.each([&](int thread) { store(task, ref, height, block.own(thread), thread); });
  }

 private:
  static FUSION_BOTH void clear(Own& own) {
    for (int i = 0; i < kPart; ++i) {
      for (int j = 0; j < kPart; ++j) own.sums[i][j] = 0;
    }
  }

  static FUSION_BOTH void load_forward(const ProductTask<T>& task, const Segment<T>& segment, T share, const Cohort<T>& cohort,
                                       const Position& at, const BlockRef& ref, std::int32_t rows, std::int32_t k0, Shared& shared,
                                       int thread) {
    for (int i = thread; i < kDepth * Rows; i += kThreads) {  // neighbours read neighbouring columns of a row
      const int k = i % kDepth, m = i / kDepth;
      const bool inside = ref.row + m < rows && k0 + k < segment.width;
      shared.left[k][m] =
          inside ? segment_number(segment, segment_row(segment, cohort, at, ref.row + m), k0 + k) * share : T{0};
    }
    const T* const right = task.right + static_cast<std::int64_t>(segment.weight_row) * task.columns;
    load_rows(right, segment.width, task.columns, ref, k0, shared, thread);
  }

  static FUSION_BOTH void load_weight_gradient(const ProductTask<T>& task, const Segment<T>& segment, T share, const Cohort<T>& cohort,
                                               const Position& at, const BlockRef& ref, std::int32_t rows, std::int32_t k0,
                                               Shared& shared, int thread) {
    for (int i = thread; i < kDepth * Rows; i += kThreads) {
      const int m = i % Rows, k = i / Rows;
      const bool inside = ref.row + m < segment.width && k0 + k < rows;
      shared.left[k][m] =
          inside ? segment_number(segment, segment_row(segment, cohort, at, k0 + k), ref.row + m) * share : T{0};
    }
    load_rows(task.right, rows, task.columns, ref, k0, shared, thread);
  }

  static FUSION_BOTH void load_input_gradient(const ProductTask<T>& task, const BlockRef& ref, std::int32_t rows, std::int32_t k0,
                                              Shared& shared, int thread) {
    for (int i = thread; i < kDepth * Rows; i += kThreads) {
      const int k = i % kDepth, m = i / kDepth;
      const bool inside = ref.row + m < rows && k0 + k < task.depth;
      shared.left[k][m] = inside ? task.left[static_cast<std::int64_t>(ref.row + m) * task.depth + k0 + k] : T{0};
    }
    for (int i = thread; i < kDepth * Columns; i += kThreads) {
      const int k = i % kDepth, n = i / kDepth;
      const bool inside = ref.column + n < task.columns && k0 + k < task.depth;
      shared.right[k][n] = inside ? task.right[static_cast<std::int64_t>(ref.column + n) * task.depth + k0 + k] : T{0};
    }
  }

  /// The right-hand side's rows k0, k0 + 1, ... of `depth`.
  static FUSION_BOTH void load_rows(const T* right, std::int32_t depth, std::int32_t columns, const BlockRef& ref, std::int32_t k0,
                                    Shared& shared, int thread) {
    for (int i = thread; i < kDepth * Columns; i += kThreads) {
      const int n = i % Columns, k = i / Columns;
      const bool inside = ref.column + n < columns && k0 + k < depth;
      shared.right[k][n] = inside ? right[static_cast<std::int64_t>(k0 + k) * columns + ref.column + n] : T{0};
    }
  }

  static FUSION_BOTH void multiply(const Shared& shared, Own& own, int thread) {
    const int m0 = thread / (Columns / kPart) * kPart, n0 = thread % (Columns / kPart) * kPart;
    for (int k = 0; k < kDepth; ++k) {
      for (int i = 0; i < kPart; ++i) {
        for (int j = 0; j < kPart; ++j) own.sums[i][j] += shared.left[k][m0 + i] * shared.right[k][n0 + j];
      }
    }
  }

  static FUSION_BOTH void store(const ProductTask<T>& task, const BlockRef& ref, std::int32_t height, const Own& own, int thread) {
    const int m0 = thread / (Columns / kPart) * kPart, n0 = thread % (Columns / kPart) * kPart;
    for (int i = 0; i < kPart; ++i) {
      for (int j = 0; j < kPart; ++j) {
        const std::int32_t m = ref.row + m0 + i, n = ref.column + n0 + j;
        if (m < height && n < task.columns) task.out[static_cast<std::int64_t>(m) * task.columns + n] = own.sums[i][j];
      }
    }
  }
};

/// Products with few columns, and the others.
template <typename T>
using NarrowProduct = Product<T, 32, 16>;
template <typename T>
using WideProduct = Product<T, 64, 64>;
/// From this many columns on a product is cut into wide blocks.
inline constexpr std::int32_t kWideColumns = 48;

// ---- a step's element-wise part

/// Numbers of a row that one call of `activate` and `activate_back` works on.
inline constexpr std::int32_t kQuad = 4;
FUSION_BOTH std::int64_t quads(std::int32_t rows, std::int32_t width) {
  return static_cast<std::int64_t>(rows) * ((width + kQuad - 1) / kQuad);
}

/// Four columns of one row: the activation, the gate, and where no batch normalisation follows dropout.
template <typename T>
FUSION_BOTH void activate(const StepTask<T>& task, const Scene<T>& scene, std::int64_t quad) {
  const std::int32_t width = scene.width, per_row = (width + kQuad - 1) / kQuad;
  const std::int32_t r = static_cast<std::int32_t>(quad / per_row), c0 = static_cast<std::int32_t>(quad % per_row) * kQuad;
  if (r >= batch_rows(*scene.position)) return;
  const bool masked = scene.training && scene.dropout && !scene.batchnorm;
  const std::uint64_t row_element = first_element(scene, task.cohort) + static_cast<std::uint64_t>(r) * width;
  Mask mask(task.mask_seed, task.mask_stream, scene.mask_threshold);
  T* const product = task.product + static_cast<std::int64_t>(r) * (task.gated ? 2 * width : width);
  T* const hidden = task.hidden + static_cast<std::int64_t>(r) * width;
  for (std::int32_t c = c0; c < c0 + kQuad && c < width; ++c) {
    T value = apply(task.nonlinearity, product[c]);
    product[c] = value;
    if (task.gated) {
      const T opened = sigmoid(product[width + c]);
      product[width + c] = opened;
      value *= opened;
    }
    hidden[c] = masked ? (mask.keeps(row_element + c) ? value * scene.mask_kept : value * T{0}) : value;
  }
}

/// The same four columns backwards, from the gradient towards the output (with batch normalisation: towards its input).
template <typename T>
FUSION_BOTH void activate_back(const StepTask<T>& task, const Scene<T>& scene, std::int64_t quad) {
  const std::int32_t width = scene.width, per_row = (width + kQuad - 1) / kQuad;
  const std::int32_t r = static_cast<std::int32_t>(quad / per_row), c0 = static_cast<std::int32_t>(quad % per_row) * kQuad;
  if (r >= batch_rows(*scene.position)) return;
  const bool masked = scene.dropout && !scene.batchnorm;
  const std::uint64_t row_element = first_element(scene, task.cohort) + static_cast<std::uint64_t>(r) * width;
  Mask mask(task.mask_seed, task.mask_stream, scene.mask_threshold);
  const std::int64_t product_row = static_cast<std::int64_t>(r) * (task.gated ? 2 * width : width);
  const T* const product = task.product + product_row;
  T* const out = task.product_gradient + product_row;
  const T* const gradient = task.gradient + static_cast<std::int64_t>(r) * width;
  for (std::int32_t c = c0; c < c0 + kQuad && c < width; ++c) {
    T g = gradient[c];
    if (masked) g *= mask.keeps(row_element + c) ? scene.mask_kept : T{0};
    if (task.gated) {
      const T value = product[c], opened = product[width + c];
      out[c] = apply_back(task.nonlinearity, value, g * opened);
      out[width + c] = g * value * opened * (T{1} - opened);
    } else {
      out[c] = apply_back(task.nonlinearity, product[c], g);
    }
  }
}

// ---- batch normalisation, a column at a time

/// 1 or the mask's number of row r, column c.
template <typename T>
FUSION_BOTH T mask_number(const StepTask<T>& task, const Scene<T>& scene, std::uint64_t first, std::int32_t r, std::int32_t c) {
  if (!scene.dropout || !scene.training) return T{1};
  Mask mask(task.mask_seed, task.mask_stream, scene.mask_threshold);
  return mask.keeps(first + static_cast<std::uint64_t>(r) * scene.width + c) ? scene.mask_kept : T{0};
}

/// `hidden` becomes mask * (gamma * normalised + beta), by the batch's statistics while training, else by the running ones.
template <typename T>
FUSION_BOTH void normalise(const StepTask<T>& task, const Scene<T>& scene, std::int32_t c) {
  const std::int32_t rows = batch_rows(*scene.position), width = scene.width;
  const T eps = static_cast<T>(1e-5), momentum = static_cast<T>(0.1), kept = static_cast<T>(0.9), count = static_cast<T>(rows);
  T* const hidden = task.hidden + c;
  if (!scene.training) {
    const T mean = task.running_mean[c], scale = task.gamma[c] / square_root(task.running_var[c] + eps);
    for (std::int64_t r = 0; r < rows; ++r) hidden[r * width] = (hidden[r * width] - mean) * scale + task.beta[c];
    return;
  }
  T sum = 0;
  for (std::int64_t r = 0; r < rows; ++r) sum += hidden[r * width];
  const T mean = sum / count;
  T squares = 0;
  for (std::int64_t r = 0; r < rows; ++r) {
    const T d = hidden[r * width] - mean;
    squares += d * d;
  }
  const T inverse = T{1} / square_root(squares / count + eps);
  task.rstd[c] = inverse;
  task.running_mean[c] = task.running_mean[c] * kept + mean * momentum;
  task.running_var[c] = task.running_var[c] * kept + squares / (count - T{1}) * momentum;
  const std::uint64_t first = first_element(scene, task.cohort);
  for (std::int32_t r = 0; r < rows; ++r) {
    const std::int64_t at = static_cast<std::int64_t>(r) * width;
    const T x = (hidden[at] - mean) * inverse;
    task.normalised[at + c] = x;
    hidden[at] = (x * task.gamma[c] + task.beta[c]) * mask_number(task, scene, first, r, c);
  }
}

/// `gradient` becomes that towards the normalisation's input; those of gamma and beta are left where Adam finds them.
template <typename T>
FUSION_BOTH void normalise_back(const StepTask<T>& task, const Scene<T>& scene, std::int32_t c) {
  const std::int32_t rows = batch_rows(*scene.position), width = scene.width;
  const std::uint64_t first = first_element(scene, task.cohort);
  T to_beta = 0, to_gamma = 0;
  for (std::int32_t r = 0; r < rows; ++r) {
    const std::int64_t at = static_cast<std::int64_t>(r) * width + c;
    const T dy = task.gradient[at] * mask_number(task, scene, first, r, c);
    task.gradient[at] = dy;
    to_beta += dy;
    to_gamma += dy * task.normalised[at];
  }
  task.beta_gradient[c] = to_beta;
  task.gamma_gradient[c] = to_gamma;
  const T scale = task.gamma[c] * task.rstd[c], count = static_cast<T>(rows);
  const T mean_beta = to_beta / count, mean_gamma = to_gamma / count;
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::int64_t at = r * width + c;
    task.gradient[at] = scale * (task.gradient[at] - mean_beta - task.normalised[at] * mean_gamma);
  }
}

// ---- the head

/// Row r: logits become (softmax - onehot) / rows, and the row's loss is noted.
template <typename T>
FUSION_BOTH void softmax_loss(const HeadTask<T>& task, const Scene<T>& scene, std::int32_t r) {
  const Position& at = *scene.position;
  const std::int32_t rows = batch_rows(at), classes = scene.classes;
  if (r >= rows) return;
  T* const row = task.logits + static_cast<std::int64_t>(r) * classes;
  const std::int64_t label = task.labels[split_row(scene.cohorts[task.cohort], at, r)];
  T most = row[0];
  for (std::int32_t c = 1; c < classes; ++c) most = row[c] > most ? row[c] : most;
  const T right = row[label] - most;
  T sum = 0;
  for (std::int32_t c = 0; c < classes; ++c) {
    const T e = exponential(row[c] - most);
    row[c] = e;
    sum += e;
  }
  const T scale = T{1} / static_cast<T>(rows), share = scale / sum;
  for (std::int32_t c = 0; c < classes; ++c) row[c] *= share;
  row[label] -= scale;
  scene.row_losses[(static_cast<std::int64_t>(at.chunk_step) * scene.trials + task.trial) * scene.rows + r] = logarithm(sum) - right;
}

/// Sum of the rows' losses of one trial's step `chunk_step`, which had `rows` rows.
template <typename T>
FUSION_BOTH double summed_loss(const Scene<T>& scene, std::int32_t chunk_step, std::int32_t trial, std::int32_t rows) {
  const T* const losses = scene.row_losses + (static_cast<std::int64_t>(chunk_step) * scene.trials + trial) * scene.rows;
  double sum = 0;
  for (std::int32_t r = 0; r < rows; ++r) sum += static_cast<double>(losses[r]);
  return sum;
}

/// Row r's class: that of the largest logit, the first one of equals.
template <typename T>
FUSION_BOTH void choose_class(const HeadTask<T>& task, const Scene<T>& scene, std::int32_t r) {
  const Position& at = *scene.position;
  if (r >= batch_rows(at)) return;
  const std::int32_t classes = scene.classes;
  const T* const row = task.logits + static_cast<std::int64_t>(r) * classes;
  const std::int64_t of_split = split_row(scene.cohorts[task.cohort], at, r);
  const float* const stored = task.stored ? task.stored + of_split * classes : nullptr;
  std::int32_t best = 0;
  T most = 0;
  for (std::int32_t c = 0; c < classes; ++c) {
    const T value = stored ? row[c] + static_cast<T>(stored[c]) : row[c];
    if (c == 0 || value > most) best = c, most = value;
  }
  task.predictions[of_split] = best;
}

// ---- the gradient of alpha: a block program

/// With dW = (s or 1 - s) x^T dZ there: dL/dalpha = (1 - s) <W, dW> over the first modality - s <W, dW> over the others.
template <typename T>
struct ShareGradient {
  static constexpr int kThreads = 256;
  struct Shared {
    T sums[kThreads];
  };
  struct Own {};

  template <typename Block>
  static FUSION_BOTH void run(const ShareTask<T>& task, const Scene<T>& scene, Block& block) {
    if (!scene.live[task.trial]) return;
    block.each([&](int thread) {
      const T s = sigmoid(*task.alpha);
      T first = 0, others = 0;
      for (std::int64_t i = thread; i < task.first; i += kThreads) first += task.weights[i] * task.weight_gradient[i];
      const std::int64_t all = task.first + task.others;
      for (std::int64_t i = task.first + thread; i < all; i += kThreads) others += task.weights[i] * task.weight_gradient[i];
      block.shared().sums[thread] = (T{1} - s) * first - s * others;
    });
    for (int half = kThreads / 2; half > 0; half /= 2) {
      block.each([&](int thread) {
        if (thread < half) block.shared().sums[thread] += block.shared().sums[thread + half];
      });
    }
    block.each([&](int thread) {
      if (thread == 0) *task.gradient = block.shared().sums[0];
    });
  }
};

// ---- Adam

/// Number i of a trial's parameters (model/adam.h).
template <typename T>
FUSION_BOTH void adam(const AdamTask<T>& task, const Scene<T>& scene, std::int64_t i) {
  const AdamStep<T> step = scene.cohorts[task.cohort].adam[scene.position->step];
  const T old = task.theta[i];
  const T g = task.gradient[i] + step.weight_decay * old;
  const T m = task.moment1[i] * step.beta1 + step.rest1 * g;
  const T v = task.moment2[i] * step.beta2 + step.rest2 * g * g;
  task.moment1[i] = m;
  task.moment2[i] = v;
  task.theta[i] = old - step.step_size * (m / (square_root(v) * step.over_root2 + step.eps));
}

FUSION_BOTH void advance(Position& at) {
  at.first += batch_rows(at);
  ++at.step;
  ++at.chunk_step;
}

}  // namespace fusion::stacked
