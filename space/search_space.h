#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "base/json_reader.h"
#include "base/random.h"
#include "space/architecture.h"
#include "space/dataset_spec.h"

namespace fusion {

/// Which architectures a study may propose: for every step any allowed tap of each modality, any allowed operation, any
/// allowed activation; `min_steps` to `max_steps` steps; nothing ties steps together.
///
/// Canonical order of the choices of one step, as in the reference: first modality slowest, then the others, then the
/// operation, the activation fastest. Architectures are ordered by length, then by their steps, first step slowest.
/// Immutable; safe to share between threads.
class SearchSpace {
 public:
  /// Reads the `space` object of a study:
  ///   {"steps": {"min": 1, "max": 4}, "operations": ["concat_fc"], "activations": ["relu", "sigmoid"],
  ///    "taps": {"audio": ["tap0", "tap3"], "image": [0, 1]}}
  /// Everything has a default (the values above; all taps). Taps are names or indices; modalities not named keep all taps.
  /// Problems go to the reader; the space returned is then only good for reading on.
  static SearchSpace read(JsonReader& reader, const DatasetSpec& dataset);
  /// Every tap of the dataset, concat_fc, the given activations.
  static SearchSpace whole(const DatasetSpec& dataset, int max_steps,
                           std::vector<Activation> activations = {Activation::relu, Activation::sigmoid});

  int min_steps() const { return min_steps_; }
  int max_steps() const { return max_steps_; }
  std::size_t modality_count() const { return taps_.size(); }
  const std::vector<FusionOp>& operations() const { return operations_; }
  const std::vector<Activation>& activations() const { return activations_; }
  /// All choices of one step in canonical order. For AV-MNIST 5 x 3 x 2 = 30.
  const std::vector<FusionStep>& step_choices() const { return choices_; }

  /// Throws SpaceError naming the first offending step and field.
  void check(const Architecture& architecture) const;
  bool contains(const Architecture& architecture) const;

  /// The exact number of architectures, in decimal digits, whatever its size; of one length, or of the whole space.
  std::string count() const;
  std::string count_of_length(int steps) const;
  /// The same as a number, saturating at UINT64_MAX.
  std::uint64_t count_saturated() const;

  /// The architecture at that place of the canonical order, index < count_saturated(); throws SpaceError past the end.
  Architecture at(std::uint64_t index) const;
  /// Every architecture formed by one more step, canonical order; empty at the maximum length.
  std::vector<Architecture> extensions(const Architecture& prefix) const;
  /// Uniform length in [min, max], then uniform steps (the reference's random search).
  Architecture sample(Rng& rng) const;
  /// A neighbour that differs from `parent`: one field of one step is redrawn, or a step is appended or dropped where the
  /// length allows it. Throws SpaceError if the space holds nothing but the parent.
  Architecture mutate(const Architecture& parent, Rng& rng) const;

  /// Equal for equal spaces over datasets with the same taps.
  std::string digest() const;
  /// The effective `space` object, every default filled in; taps by index.
  nlohmann::json to_json() const;

 private:
  SearchSpace() = default;
  void make_choices();

  int min_steps_ = 1;
  int max_steps_ = 4;
  std::vector<std::string> modality_names_;
  std::vector<std::vector<std::int32_t>> taps_;  ///< allowed tap indices per modality, ascending
  std::vector<FusionOp> operations_{FusionOp::concat_fc};
  std::vector<Activation> activations_{Activation::relu, Activation::sigmoid};
  std::vector<FusionStep> choices_;
};

}  // namespace fusion
