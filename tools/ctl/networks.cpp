#include "tools/ctl/networks.h"

#include "base/error.h"
#include "tools/ctl/figures.h"

namespace fusion::ctl {

using nlohmann::json;

namespace {

/// Names by the daemon's own rules; an architecture of a newer daemon may not be one of ours.
std::optional<Architecture> fitting(const json& architecture, const std::optional<DatasetSpec>& dataset) {
  if (!dataset) return std::nullopt;
  try {
    const Architecture read = architecture_from_triplets(architecture);
    dataset->check(read);
    return read;
  } catch (const SpaceError&) {
    return std::nullopt;
  }
}

const std::string& tap_name(const DatasetSpec& dataset, std::size_t modality, const FusionStep& step) {
  return dataset.modalities[modality].taps[static_cast<std::size_t>(step.taps[modality])].name;
}

}  // namespace

std::optional<DatasetSpec> dataset_of(const json& study) {
  const json* spec = member(study, "dataset_spec");
  if (spec == nullptr || !spec->is_object()) return std::nullopt;
  JsonProblems problems;
  JsonReader reader(*spec, "dataset_spec", problems);
  DatasetSpec dataset = DatasetSpec::read(reader);
  if (!problems.empty()) return std::nullopt;
  return dataset;
}

std::string triplets_text(const json& architecture) {
  return architecture.is_array() ? architecture.dump(-1, ' ', false, json::error_handler_t::replace) : kAbsent;
}

std::string network_text(const json& architecture, const std::optional<DatasetSpec>& dataset) {
  const auto network = fitting(architecture, dataset);
  if (!network) return "";
  std::string text;
  for (const FusionStep& step : network->steps) {
    if (!text.empty()) text += " > ";
    for (std::size_t m = 0; m < step.taps.size(); ++m) text += (m > 0 ? "+" : "") + tap_name(*dataset, m, step);
    text += " " + std::string(name_of(step.activation));
    if (step.op != FusionOp::concat_fc) text += " " + std::string(name_of(step.op));
  }
  return text;
}

std::vector<std::string> network_lines(const json& architecture, const std::optional<DatasetSpec>& dataset) {
  std::vector<std::string> lines;
  const auto network = fitting(architecture, dataset);
  if (!network) return lines;
  for (std::size_t s = 0; s < network->steps.size(); ++s) {
    const FusionStep& step = network->steps[s];
    std::string line;
    for (std::size_t m = 0; m < step.taps.size(); ++m) {
      line += (m > 0 ? " + " : "") + dataset->modalities[m].name + "." + tap_name(*dataset, m, step);
    }
    if (s > 0) line += " + step " + std::to_string(s);
    lines.push_back(line + " -> " + std::string(name_of(step.op)) + ", " + std::string(name_of(step.activation)));
  }
  return lines;
}

}  // namespace fusion::ctl
