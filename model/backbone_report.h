#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

namespace fusion {

/// What one tap of a backbone is, before and after pooling.
struct TapReport {
  std::string name;
  std::vector<std::int64_t> shape;   ///< of one row's map, without B: [C, ...]
  std::int64_t width = 0;            ///< after pooling
  std::optional<std::int64_t> time;  ///< steps it keeps; none if it has lost its time, or nothing was said of it
};

/// What a backbone's file holds and what it can be used for: `fusion-data inspect`. Whether it can be run stage by stage, as head mmtm needs
/// it (model/staged_script.h), is tried on one input: it must give what it gives as a whole.
struct BackboneReport {
  std::string file, kind, digest;
  std::vector<std::int64_t> input;  ///< of one row
  std::vector<TapReport> taps;
  std::int64_t classes = 0;         ///< width of the logits, 0 without
  std::int64_t parameters = 0, trainable_parameters = 0;
  std::string why_not_staged;         ///< a sentence; empty if it can be run stage by stage
  std::vector<std::string> problems;  ///< sentences

  /// {file, kind, digest, input, taps: [{name, shape, pooled, time}], logits, parameters, trainable_parameters, staged, problems,
  /// uses: {search, linear, mmtm, temporal: {can, why}}}. `why` is a sentence where `can` is false, or what to know.
  nlohmann::json to_json() const;
};

/// Opens the file, runs it on rows of this shape and looks. Throws as open_staged_backbone does where it is of no use at all: no backbone, a row
/// of another shape, a program that fails or returns no tensors; ModelError if a map has no axis `time_axis` (model/time_axis.h).
BackboneReport inspect_backbone(const std::filesystem::path& file, const std::vector<std::int64_t>& row_shape,
                                std::optional<std::int64_t> time_axis = {});

}  // namespace fusion
