#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <vector>

#include "base/enum_names.h"
#include "model/flat_tensors.h"

namespace fusion {

class JsonReader;

/// What an excitation e becomes before it multiplies its map.
enum class GateRule : std::uint8_t {
  paper,     ///< 2 sigmoid(e): e = 0 changes nothing
  reference  ///< sigmoid(e), as the authors' code: e = 0 halves
};
template <>
struct EnumNames<GateRule> {
  static constexpr std::array<std::pair<GateRule, std::string_view>, 2> kTable{
      {{GateRule::paper, "paper"}, {GateRule::reference, "reference"}}};
};

struct MmtmOptions {
  double ratio = 4;                  ///< r: larger means fewer hidden units
  GateRule gate = GateRule::paper;

  bool operator==(const MmtmOptions&) const = default;
  nlohmann::json to_json() const;
  static MmtmOptions read(JsonReader& reader);  ///< keys `ratio` and `gate`
};

/// Multimodal transfer module: squeeze and excitation over the maps of M >= 2 modalities at once.
///
/// B batch, C_m channels of modality m, C their sum, D = trunc(2 C / r) hidden units, maps x_m [B, C_m, ...] with any number of axes
/// behind the channels (none: a vector), each modality its own:
///     s_m = mean of x_m over the axes behind the channels            [B, C_m]
///     z = relu(W [s_1, ..., s_M] + b)                                [B, D]
///     g_m = 2 sigmoid(W_m z + b_m), or sigmoid with gate reference   [B, C_m]
///     x'_m = g_m * x_m
/// Joze et al., "MMTM: Multimodal Transfer Module for CNN Fusion", CVPR 2020. As in the authors' code, 2 C / r is taken literally and
/// z has a ReLU. Differs from that code: the factor 2 of the paper, which the code leaves out, is the default; more than two
/// modalities are our addition. With gate reference it is the code exactly.
///
/// Tensors are called as in the code: fc_squeeze.weight [D, C], fc_squeeze.bias [D], then fc_visual.* for the first and fc_skeleton.*
/// for the second of two modalities, whatever they are; with more, fc_gate0.*, fc_gate1.*, ... (.weight [C_m, D], .bias [C_m]).
///
/// Not thread-safe; one instance belongs to one network. Copies share their weights.
class Mmtm {
 public:
  /// Initial weights are PyTorch's default for linear layers, drawn from `seed`. `tensors` gives device and floating type (float where
  /// it says nothing). Throws ModelError unless there are two modalities or more, each has channels, and 2 C / r gives a unit.
  Mmtm(const std::vector<std::int64_t>& channels, const MmtmOptions& options, std::uint64_t seed,
       const at::TensorOptions& tensors = {});

  /// maps[m]: x_m. Returns every x'_m, shapes unchanged; differentiable in maps and weights. Throws ModelError unless there is a map
  /// for each modality, with its channels and one B, and none is empty.
  std::vector<at::Tensor> forward(const std::vector<at::Tensor>& maps) const;
  /// The g_m alone, [B, C_m], for who applies them elsewhere or needs only some.
  std::vector<at::Tensor> gates(const std::vector<at::Tensor>& maps) const;
  /// gate [B, C] * map [B, C, ...].
  static at::Tensor apply(const at::Tensor& gate, const at::Tensor& map);

  const std::vector<std::int64_t>& channels() const { return channels_; }
  const MmtmOptions& options() const { return options_; }
  std::int64_t hidden() const { return hidden_; }  ///< D

  FlatTensors& parameters() { return parameters_; }
  const FlatTensors& parameters() const { return parameters_; }

 private:
  void check_maps(const std::vector<at::Tensor>& maps) const;

  std::vector<std::int64_t> channels_;
  MmtmOptions options_;
  std::int64_t hidden_ = 0;
  FlatTensors parameters_;  ///< weight and bias of the squeeze, then of each modality's gate
};

}  // namespace fusion
