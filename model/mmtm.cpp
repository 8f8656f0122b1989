#include "model/mmtm.h"

#include <ATen/ops/addmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/sigmoid.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "base/error.h"
#include "base/json_reader.h"
#include "model/initialise.h"
#include "model/random_streams.h"
#include "model/torch_compat.h"

namespace fusion {
namespace {

constexpr double kMaxRatio = 1e6;

std::int64_t sum_of(const std::vector<std::int64_t>& channels) {
  return std::accumulate(channels.begin(), channels.end(), std::int64_t{0});
}

std::int64_t hidden_units(const std::vector<std::int64_t>& channels, const MmtmOptions& options) {
  if (channels.size() < 2) {
    throw ModelError("mmtm: expected two modalities or more, got " + std::to_string(channels.size()));
  }
  for (std::size_t m = 0; m < channels.size(); ++m) {
    if (channels[m] < 1) {
      throw ModelError("mmtm: modality " + std::to_string(m) + ": expected at least 1 channel, got " + std::to_string(channels[m]));
    }
  }
  const auto width = static_cast<double>(2 * sum_of(channels));
  if (!(options.ratio > 0 && options.ratio <= width)) {
    throw ModelError("mmtm: ratio: expected above 0 and, so that a hidden unit is left, at most twice the channels (" +
                     std::to_string(static_cast<std::int64_t>(width)) + "), got " + std::to_string(options.ratio));
  }
  return static_cast<std::int64_t>(width / options.ratio);
}

std::string gate_name(std::size_t modality, std::size_t modalities) {
  if (modalities == 2) return modality == 0 ? "fc_visual" : "fc_skeleton";
  return "fc_gate" + std::to_string(modality);
}

FlatTensors::Shapes shapes_of(const std::vector<std::int64_t>& channels, std::int64_t hidden) {
  FlatTensors::Shapes shapes{{"fc_squeeze.weight", {hidden, sum_of(channels)}}, {"fc_squeeze.bias", {hidden}}};
  for (std::size_t m = 0; m < channels.size(); ++m) {
    const std::string name = gate_name(m, channels.size());
    shapes.push_back({name + ".weight", {channels[m], hidden}});
    shapes.push_back({name + ".bias", {channels[m]}});
  }
  return shapes;
}

at::Tensor squeeze(const at::Tensor& map) { return map.dim() == 2 ? map : map.flatten(2).mean(2); }

}  // namespace

nlohmann::json MmtmOptions::to_json() const { return {{"ratio", ratio}, {"gate", name_of(gate)}}; }

MmtmOptions MmtmOptions::read(JsonReader& reader) {
  MmtmOptions options;
  options.ratio = reader.number("ratio", 1.0 / kMaxRatio, kMaxRatio, options.ratio);
  options.gate = reader.choice<GateRule>("gate", options.gate);
  return options;
}

Mmtm::Mmtm(const std::vector<std::int64_t>& channels, const MmtmOptions& options, std::uint64_t seed,
           const at::TensorOptions& tensors)
    : channels_(channels), options_(options), hidden_(hidden_units(channels, options)) {
  const at::NoGradGuard no_grad;
  parameters_ = FlatTensors(shapes_of(channels, hidden_), tensors.has_dtype() ? tensors : tensors.dtype(c10::kFloat), true);
  const NamedTensors& named = parameters_.named();
  for (std::size_t i = 0; i < named.size(); i += 2) {
    Rng rng(seed, random_stream(StreamKind::gates, static_cast<std::uint32_t>(i / 2)));
    initialise_linear(named[i].second, named[i + 1].second, rng);
  }
}

void Mmtm::check_maps(const std::vector<at::Tensor>& maps) const {
  if (maps.size() != channels_.size()) {
    throw ModelError("mmtm: expected a map for each of the " + std::to_string(channels_.size()) + " modalities, got " +
                     std::to_string(maps.size()));
  }
  for (std::size_t m = 0; m < maps.size(); ++m) {
    const std::string where = "mmtm: modality " + std::to_string(m) + ": ";
    if (!maps[m].defined()) throw ModelError(where + "there is no map");
    std::string shape;
    for (const std::int64_t size : maps[m].sizes()) shape += (shape.empty() ? "" : ", ") + std::to_string(size);
    if (maps[m].dim() < 2 || maps[m].size(1) != channels_[m] || maps[m].size(0) != maps[0].size(0)) {
      throw ModelError(where + "expected a map [" + (m == 0 ? "B" : std::to_string(maps[0].size(0))) + ", " +
                       std::to_string(channels_[m]) + ", ...], got [" + shape + "]");
    }
    if (maps[m].numel() == 0) throw ModelError(where + "expected a map that is not empty, got [" + shape + "]");
  }
}

std::vector<at::Tensor> Mmtm::gates(const std::vector<at::Tensor>& maps) const {
  check_maps(maps);
  const NamedTensors& named = parameters_.named();
  const auto linear = [&](std::size_t layer, const at::Tensor& x) {
    return at::addmm(named[2 * layer + 1].second, x, named[2 * layer].second.t());
  };
  std::vector<at::Tensor> squeezed;
  for (const at::Tensor& map : maps) squeezed.push_back(squeeze(map));
  const at::Tensor z = at::relu(linear(0, at::cat(squeezed, 1)));  // [B, D]
  std::vector<at::Tensor> gates;
  for (std::size_t m = 0; m < maps.size(); ++m) {
    const at::Tensor half = at::sigmoid(linear(m + 1, z));  // [B, C_m]
    gates.push_back(options_.gate == GateRule::paper ? half.mul(2) : half);
  }
  return gates;
}

at::Tensor Mmtm::apply(const at::Tensor& gate, const at::Tensor& map) {
  std::vector<std::int64_t> shape(static_cast<std::size_t>(map.dim()), 1);
  shape[0] = gate.size(0);
  shape[1] = gate.size(1);
  return map.mul(gate.view(shape));
}

std::vector<at::Tensor> Mmtm::forward(const std::vector<at::Tensor>& maps) const {
  const std::vector<at::Tensor> gates = this->gates(maps);
  std::vector<at::Tensor> scaled;
  for (std::size_t m = 0; m < maps.size(); ++m) scaled.push_back(apply(gates[m], maps[m]));
  return scaled;
}

}  // namespace fusion
