#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "workers/train/stacked_network.h"

namespace fusion::stacked {

/// Where a tap's numbers lie on the device.
struct TapSource {
  const void* data = nullptr;  ///< null: not there
  std::int64_t stride = 0;
  Source source = Source::float32;
};
using TapSources = std::vector<std::vector<TapSource>>;  ///< [modality][tap]

/// A cohort with its features.
template <typename T>
struct CohortSource {
  Cohort<T> cohort;
  TapSources taps;
};

template <typename T>
struct Member {
  Network<T>* network = nullptr;
  std::int32_t cohort = 0;
  std::int32_t* predictions = nullptr;  ///< [rows of the split], for scoring
};

/// The labels of a split on the device, and the sums of its stored logits or null.
struct Labels {
  const std::int64_t* labels = nullptr;
  const float* stored = nullptr;
};

/// All that some networks do together, written down as tables on the device: either training steps or scoring.
///
/// Step i of all networks that have an i-th step is one list of products (sorted by the taps that they read) and one list of element-wise
/// tasks, whatever lengths the networks have. A training step is
///
///     forward i:   products; activations, gates, dropout; batch normalisation          i = 0 .. longest - 1
///     head:        products; softmax, loss; products of both gradients
///     backward i:  batch normalisation; activations; products of both gradients        i = longest - 1 .. 0
///     alphas' gradients; Adam; on to the next batch
///
/// Networks, features and cohorts must stay where they are while the plan is used.
template <typename T>
class Plan {
 public:
  static constexpr std::int32_t kChunkSteps = 32;  ///< at most, between looks at the losses

  /// Throws OutOfMemory.
  Plan(Backend<T>& backend, const NetworkOptions& options, std::span<const Member<T>> members,
       std::span<const CohortSource<T>> cohorts, const Labels& labels, bool training);

  /// Takes steps from row `first` of an epoch of `end` rows on, at most kChunkSteps. Streamed features begin with row `tile_first`.
  /// Returns the sums of the rows' losses, [steps][members]; 0 for members that were stopped.
  std::vector<double> train(std::int64_t first, std::int64_t end, std::int64_t tile_first, std::int32_t steps);
  /// Scores rows first .. first + rows - 1; the classes go to the members' predictions.
  void score(std::int64_t first, std::int64_t rows, std::int64_t tile_first);
  /// From now on this member is passed over.
  void stop(std::size_t member);

 private:
  template <typename Task>
  struct Table {
    const Task* tasks = nullptr;
    std::int32_t count = 0;
  };
  class Writer;

  Segment<T> tap_segment(const Member<T>& member, const StepLayout& step, std::size_t m, std::int32_t weight_row) const;
  void add_segments(const Member<T>& member, std::size_t index, std::vector<Segment<T>>& segments) const;
  ProductTask<T> task_of(std::int32_t trial, ProductKind kind) const;
  StepTask<T> step_task(std::int32_t trial, std::size_t index) const;
  void write(Writer& writer, const Labels& labels);
  void write_step(Writer& writer, std::size_t index);
  void write_head(Writer& writer, const Labels& labels);
  void write_updates(Writer& writer);
  void forward();
  void backward();

  Backend<T>& backend_;
  const NetworkOptions options_;
  std::vector<Member<T>> members_;
  std::vector<CohortSource<T>> cohorts_;
  Scene<T> scene_;
  std::uint64_t token_ = 0;
  std::size_t longest_ = 0;
  std::vector<ProductList<T>> forward_, backward_;  ///< [step]
  std::vector<Table<StepTask<T>>> steps_;
  ProductList<T> head_forward_, head_backward_;
  Table<HeadTask<T>> heads_;
  Table<ShareTask<T>> shares_;
  Table<AdamTask<T>> adam_;
  std::int64_t most_parameters_ = 0;
  double* sums_ = nullptr;  ///< [chunk steps][members]
  std::uint8_t* live_ = nullptr;
  DeviceMemory<T> tables_;
};

}  // namespace fusion::stacked
