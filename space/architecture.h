#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/enum_names.h"

namespace fusion {

/// How a fusion step joins its inputs x = [taps in the order of the modalities, output of the previous step]:
///   concat_fc  h = act(W x + b)                                   (MFAS, CVPR 2019)
///   glu        h = act(W x + b) * sigmoid(V x + c), elementwise   (gated linear unit)
/// The names are stored and sent: never rename.
enum class FusionOp : std::uint8_t { concat_fc, glu };

/// Numbered as in the field's triplets: 0 ReLU, 1 sigmoid, 2 leaky ReLU (slope 0.01), 3 identity. Names are stored.
enum class Activation : std::uint8_t { relu, sigmoid, leaky_relu, identity };

template <>
struct EnumNames<FusionOp> {
  static constexpr std::array<std::pair<FusionOp, std::string_view>, 2> kTable{
      {{FusionOp::concat_fc, "concat_fc"}, {FusionOp::glu, "glu"}}};
};
template <>
struct EnumNames<Activation> {
  static constexpr std::array<std::pair<Activation, std::string_view>, 4> kTable{{{Activation::relu, "relu"},
                                                                                  {Activation::sigmoid, "sigmoid"},
                                                                                  {Activation::leaky_relu, "leaky_relu"},
                                                                                  {Activation::identity, "identity"}}};
};

/// One fusion layer. `taps[m]` is the index of the tap of modality m that the step reads, modalities in the order of the
/// dataset; the previous step's output is always the last input (none for the first step).
struct FusionStep {
  std::vector<std::int32_t> taps;
  FusionOp op = FusionOp::concat_fc;
  Activation activation = Activation::relu;
  auto operator<=>(const FusionStep&) const = default;
};

/// A fusion network: its steps, first one first. 1 to kMaxSteps of them.
struct Architecture {
  std::vector<FusionStep> steps;
  auto operator<=>(const Architecture&) const = default;
};
inline constexpr int kMaxSteps = 8;

/// The field's notation as JSON: a list per step, tap indices then the activation's number, `[[3,0,0],[1,3,0]]`; a step
/// whose operation is not concat_fc has the operation's name behind, `[3,0,0,"glu"]`.
nlohmann::json to_triplets(const Architecture& architecture);

/// `to_triplets` without blanks. Equal text if and only if equal architecture: the unique key in the store.
std::string canonical_text(const Architecture& architecture);

/// Reads the notation, from JSON or text. All steps must have the same number of taps, at least one. Throws SpaceError that
/// names the step and what was expected; whether the taps exist is `SearchSpace::check`'s or `DatasetSpec::check`'s question.
Architecture architecture_from_triplets(const nlohmann::json& triplets);
Architecture architecture_from_text(std::string_view text);

}  // namespace fusion
