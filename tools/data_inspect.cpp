#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "base/error.h"
#include "model/backbone_report.h"
#include "tools/data_commands.h"

namespace fusion {

namespace {

using nlohmann::json;

/// "1x112x112" as [1, 112, 112].
std::vector<std::int64_t> shape_from_text(const std::string& text) {
  std::vector<std::int64_t> shape;
  std::size_t at = 0;
  while (at <= text.size()) {
    const std::size_t end = std::min(text.find('x', at), text.size());
    const std::string size = text.substr(at, end - at);
    if (size.empty() || size.size() > 7 || size.find_first_not_of("0123456789") != std::string::npos || std::stoll(size) < 1 || shape.size() == 6) {
      throw ConfigError("--input: expected the shape of one row, 1 to 6 sizes such as 1x112x112, got \"" + text + "\"");
    }
    shape.push_back(std::stoll(size));
    at = end + 1;
  }
  return shape;
}

std::string shape_text(const json& shape) {
  std::string text;
  for (const json& size : shape) text += (text.empty() ? "" : " x ") + size.dump();
  return text;
}

void print_report(const json& report) {
  const auto text = [](const json& value) { return value.get<std::string>(); };
  std::printf("%s: %s, rows of %s\n", text(report["file"]).c_str(), text(report["kind"]).c_str(), shape_text(report["input"]).c_str());
  std::printf("digest %s\n", text(report["digest"]).c_str());
  std::printf("%s parameters, %s trainable; %s\n\n", report["parameters"].dump().c_str(), report["trainable_parameters"].dump().c_str(),
              report["staged"].get<bool>() ? "staged" : "not staged");
  std::printf("%-16s %-20s %8s %6s\n", "tap", "map of a row", "pooled", "time");
  for (const json& tap : report["taps"]) {
    std::printf("%-16s %-20s %8s %6s\n", text(tap["name"]).c_str(), shape_text(tap["shape"]).c_str(), tap["pooled"][0].dump().c_str(),
                tap["time"].is_null() ? "-" : tap["time"].dump().c_str());
  }
  std::printf("%-16s %-20s\n\n", "logits", report["logits"].is_null() ? "none" : report["logits"].dump().c_str());
  for (const char* use : {"search", "linear", "mmtm", "temporal"}) {
    const json& of = report["uses"][use];
    const std::string why = text(of["why"]);
    std::printf("%-10s %s%s%s\n", use, of["can"].get<bool>() ? "yes" : "no", why.empty() ? "" : ": ", why.c_str());
  }
  for (const json& problem : report["problems"]) std::printf("problem: %s\n", text(problem).c_str());
}

}  // namespace

void add_inspect_command(CLI::App& app) {
  CLI::App* const command = app.add_subcommand("inspect", "run a backbone once and say what its taps are and what it can be used for");
  struct Options {
    std::string file, input;
    std::optional<std::int64_t> time_axis;
    bool as_json = false;
  };
  const auto options = std::make_shared<Options>();
  command->add_option("file", options->file, "TorchScript network (.pt; it is run, so never one from a stranger) or a LeNet of ours")->required();
  command->add_option("--input", options->input, "shape of one row, such as 1x112x112")->required();
  command->add_option("--time-axis", options->time_axis, "which axis of the taps' maps [B, C, ...] is time: 2 or more, -1 for the last, 0 for none")
      ->check(CLI::Range(-4, 6));
  command->add_flag("--json", options->as_json, "as JSON");
  command->callback([options] {
    const std::vector<std::int64_t> shape = shape_from_text(options->input);
    const json report = inspect_backbone(options->file, shape, options->time_axis).to_json();
    if (options->as_json) std::printf("%s\n", report.dump(2).c_str());
    else print_report(report);
  });
}

}  // namespace fusion
