#include "model/backbone_report.h"

#include <ATen/ops/isfinite.h>
#include <ATen/ops/rand.h>

#include <nlohmann/json.hpp>

#include "model/staged_backbone.h"
#include "model/time_axis.h"
#include "model/torch_compat.h"

namespace fusion {

using nlohmann::json;

namespace {

void count(const at::Tensor& parameter, BackboneReport& report) {
  report.parameters += parameter.numel();
  if (parameter.requires_grad()) report.trainable_parameters += parameter.numel();
}

json use(bool can, const std::string& why) { return {{"can", can}, {"why", why}}; }

json temporal_use(const BackboneReport& report) {
  std::string keep, lose;
  for (const TapReport& tap : report.taps) (tap.time ? keep : lose) += " " + tap.name;
  if (!keep.empty()) return use(true, "taps that keep time:" + keep + (lose.empty() ? "" : "; without, one step:" + lose));
  return use(false, "no tap has a time axis that is known; if one of the axes behind the channels is time, name it (--time-axis, "
                    "\"time_axis\" in dataset.json; -1 for spectrograms)");
}

/// Run stage by stage it must give what it gives as a whole; the stages' names and widths are checked when it is opened.
std::string why_stages_differ(const StagedBackbone& backbone, const at::Tensor& x, const BackboneMaps& whole) {
  at::Tensor map = x;
  for (std::size_t i = 0; i < whole.maps.size(); ++i) {
    map = backbone.stage(i, map, false);
    const at::Tensor tap = backbone.tap_map(i, map);
    if (tap.sizes() != whole.maps[i].sizes() || !tap.allclose(whole.maps[i], 1e-3, 1e-4)) {
      return "stage(" + std::to_string(i) + ", x) does not give forward's \"" + backbone.taps()[i].name + "\"";
    }
  }
  const at::Tensor logits = backbone.classify(map, false);
  if (!logits.defined() || !whole.logits.defined()) return "";
  const bool same = logits.sizes() == whole.logits.sizes() && logits.allclose(whole.logits, 1e-3, 1e-4);
  return same ? "" : "classify(x) does not give forward's \"logits\"";
}

}  // namespace

BackboneReport inspect_backbone(const std::filesystem::path& file, const std::vector<std::int64_t>& row_shape,
                                std::optional<std::int64_t> time_axis) {
  const auto backbone = open_staged_backbone(file, row_shape);
  BackboneReport report;
  report.file = file.string();
  report.kind = backbone->kind();
  report.digest = backbone->digest();
  report.input = row_shape;
  report.classes = backbone->classes();
  for (const auto& [name, parameter] : backbone->parameters()) count(parameter, report);
  const at::NoGradGuard no_grad;
  std::vector<std::int64_t> shape{2};
  shape.insert(shape.end(), row_shape.begin(), row_shape.end());
  const at::Tensor x = at::rand(shape);
  const BackboneMaps whole = backbone->forward(x, false);
  for (std::size_t i = 0; i < whole.maps.size(); ++i) {
    const at::Tensor& map = whole.maps[i];
    TapReport tap{backbone->taps()[i].name, map.sizes().slice(1).vec(), backbone->taps()[i].width, {}};
    if (const auto axis = time_axis_of(map, time_axis)) tap.time = map.size(*axis);
    if (!at::isfinite(map).all().item<bool>()) report.problems.push_back("tap \"" + tap.name + "\" is not finite on an input in [0, 1)");
    report.taps.push_back(std::move(tap));
  }
  report.why_not_staged = backbone->why_not_staged();
  if (report.why_not_staged.empty()) report.why_not_staged = why_stages_differ(*backbone, x, whole);
  return report;
}

json BackboneReport::to_json() const {
  json list = json::array();
  for (const TapReport& tap : taps) {
    list.push_back({{"name", tap.name}, {"shape", tap.shape}, {"pooled", {tap.width}}, {"time", nullptr}});
    if (tap.time) list.back()["time"] = *tap.time;
  }
  const std::string fixed = trainable_parameters > 0 ? "" : "as it is: none of its parameters can be trained";
  json uses = {{"search", use(true, "")},
               {"linear", use(true, fixed)},
               {"mmtm", use(why_not_staged.empty(), why_not_staged.empty() ? fixed : why_not_staged)},
               {"temporal", temporal_use(*this)}};
  return {{"file", file},     {"kind", kind},
          {"digest", digest}, {"input", input},
          {"taps", list},     {"logits", classes > 0 ? json(classes) : json()},
          {"parameters", parameters}, {"trainable_parameters", trainable_parameters},
          {"staged", why_not_staged.empty()}, {"uses", uses},
          {"problems", problems}};
}

}  // namespace fusion
