#pragma once

#include <cstdint>

#include "workers/train/plain_kernels.h"

// The stacked engine's work as tables of plain structures: what a step has to do is written down once per epoch, lies in the memory of the
// device, and is read by kernels (workers/train/stacked_bodies.h). Every pointer in here is the device's. This header, the bodies and the
// backend's interface are C++17 and know no LibTorch, for nvcc reads them too.

namespace fusion::stacked {

using plain::AdamStep;
using plain::Nonlinearity;

/// Where the training, or the scoring, of a split stands; it moves on after each step without the host.
struct Position {
  std::int64_t first = 0;       ///< row of the epoch where the batch begins
  std::int64_t end = 0;         ///< rows of the epoch
  std::int64_t tile_first = 0;  ///< row of the epoch that is row 0 of features that are streamed
  std::int32_t batch = 0;       ///< rows of a batch; the last one may be smaller
  std::int32_t step = 0;        ///< of the epoch
  std::int32_t chunk_step = 0;  ///< since the losses were read
};

/// Trials at the same epoch: they read the same rows with the same learning rate.
template <typename T>
struct Cohort {
  const std::uint32_t* order = nullptr;  ///< the epoch's order of rows; null: as they stand
  const AdamStep<T>* adam = nullptr;     ///< [step of the epoch]; null when scoring
  std::int64_t seen = 0;                 ///< rows that were trained on in earlier epochs
  bool streamed = false;                 ///< features lie in a tile, gathered in order
};

enum class Source : std::uint8_t { float32, bfloat16, numbers, ones };
/// With alphas, what a modality's columns are multiplied with: s = sigmoid(alpha), or 1 - s.
enum class Share : std::uint8_t { none, first, others };

/// Some columns of a product's left-hand side [rows, inputs + 1]: one modality's tap, the previous step's output, or the ones that
/// multiply the bias.
template <typename T>
struct Segment {
  const void* data = nullptr;
  std::int64_t stride = 0;       ///< numbers from row to row
  std::int32_t width = 0;
  std::int32_t weight_row = 0;   ///< row of the weights that its first column multiplies
  Source source = Source::ones;  ///< `numbers` are T, of the trial itself; the first two are features, found through the order
  Share share = Share::none;
  const T* alpha = nullptr;
};

enum class ProductKind : std::uint8_t {
  forward,          ///< out [rows, columns] = [segments] right
  weight_gradient,  ///< out [width of the segment, columns] = segment^T right, right [rows, columns]; `out` begins at its own rows
  input_gradient    ///< out [rows, columns] = left right^T, left [rows, depth], right [columns, depth]
};

template <typename T>
struct ProductTask {
  ProductKind kind = ProductKind::forward;
  std::int32_t trial = 0, cohort = 0;
  std::int32_t segment = 0, segments = 0;  ///< the first one, and how many (one for a weight gradient)
  std::int32_t columns = 0, depth = 0;
  const T* left = nullptr;
  const T* right = nullptr;
  T* out = nullptr;
};

/// A rectangle of a product's result that one thread block computes.
struct BlockRef {
  std::int32_t task = 0, row = 0, column = 0;
};

/// Products that are computed in one go: tasks in the order of what they read, and the blocks they are cut into, by size of a block.
template <typename T>
struct ProductList {
  const ProductTask<T>* tasks = nullptr;
  const Segment<T>* segments = nullptr;
  std::int32_t task_count = 0;
  const BlockRef* narrow = nullptr;
  std::int32_t narrow_count = 0;
  const BlockRef* wide = nullptr;
  std::int32_t wide_count = 0;
};

/// What lies between one trial's product of one step and its output, and the way back.
template <typename T>
struct StepTask {
  std::int32_t trial = 0, cohort = 0;
  Nonlinearity nonlinearity = Nonlinearity::relu;
  bool gated = false;
  std::uint64_t mask_seed = 0, mask_stream = 0;
  T* product = nullptr;     ///< [rows, width], or [rows, 2 width] where gated; holds act(.), and sigmoid(.) of the gate, afterwards
  T* hidden = nullptr;      ///< [rows, width], the step's output; `product` itself where nothing comes behind the activation
  T* normalised = nullptr;  ///< [rows, width]
  T* rstd = nullptr;        ///< [width]
  T *gamma = nullptr, *beta = nullptr, *gamma_gradient = nullptr, *beta_gradient = nullptr;
  T *running_mean = nullptr, *running_var = nullptr;
  T* gradient = nullptr;          ///< [rows, width], towards the output
  T* product_gradient = nullptr;  ///< as `product`
};

/// The end of one trial's network.
template <typename T>
struct HeadTask {
  std::int32_t trial = 0, cohort = 0;
  T* logits = nullptr;                   ///< [rows, classes]; training leaves the gradient of the batch's mean loss there
  const std::int64_t* labels = nullptr;  ///< of the split
  const float* stored = nullptr;         ///< [rows of the split, classes], added before a class is chosen; null: none
  std::int32_t* predictions = nullptr;   ///< [rows of the split]
};

/// The gradient of one step's alpha. Weights and gradient: first the first modality's numbers, then the others'.
template <typename T>
struct ShareTask {
  std::int32_t trial = 0;
  const T *weights = nullptr, *weight_gradient = nullptr, *alpha = nullptr;
  std::int64_t first = 0, others = 0;
  T* gradient = nullptr;
};

template <typename T>
struct AdamTask {
  std::int32_t trial = 0, cohort = 0;
  std::int64_t count = 0;
  T *theta = nullptr, *moment1 = nullptr, *moment2 = nullptr;
  const T* gradient = nullptr;
};

/// What every kernel of a step knows.
template <typename T>
struct Scene {
  Position* position = nullptr;
  const Cohort<T>* cohorts = nullptr;
  const std::uint8_t* live = nullptr;  ///< [trial]; the others are passed over
  T* row_losses = nullptr;             ///< [chunk step][trial][batch]
  std::int32_t trials = 0;
  std::int32_t width = 0, classes = 0;
  std::int32_t rows = 0;  ///< at most in a batch
  bool training = false, batchnorm = false, dropout = false;
  std::uint32_t mask_threshold = 0;
  T mask_kept = 1;
};

}  // namespace fusion::stacked
