#include <cstdio>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/digest.h"
#include "base/error.h"
#include "base/json_reader.h"
#include "base/tensor_files.h"
#include "space/feature_manifest.h"
#include "tools/data_commands.h"
#include "workers/data/dataset.h"
#include "workers/data/features.h"

namespace fusion {

namespace {

namespace fs = std::filesystem;
using nlohmann::json;

json info_of_dataset(const fs::path& file) {
  const Dataset dataset = Dataset::open(file);
  const DatasetManifest& manifest = dataset.manifest();
  json modalities = json::array();
  for (const ModalityManifest& m : manifest.modalities) {
    modalities.push_back({{"name", m.name}, {"shape", m.shape}, {"mean", m.mean}, {"std", m.std}});
    if (m.time_axis) modalities.back()["time_axis"] = *m.time_axis;
  }
  json rows = json::object();
  for (const auto& [split, range] : manifest.splits) rows[split] = range.rows();
  return {{"kind", "dataset"},         {"name", manifest.name}, {"digest", manifest.digest},
          {"classes", manifest.classes}, {"rows", rows},          {"modalities", modalities}};
}

json info_of_features(const fs::path& file) {
  const auto features = FeatureSet::open(file);
  json document = features->spec().to_json();
  const json whole = parse_json_file(file);
  std::uintmax_t bytes = 0;
  const auto size = [&](const json& named) {
    const std::uintmax_t own = fs::file_size(file.parent_path() / named.at("file").get<std::string>());
    bytes += own;
    return own;
  };
  for (const auto& [split, files] : whole.at("files").items()) {
    if (!features->has(split)) continue;
    document["file_bytes"][split]["labels"] = size(files.at("labels"));
    for (std::size_t m = 0; m < features->spec().modalities.size(); ++m) {
      document["file_bytes"][split][features->spec().modalities[m].name] = size(files.at("modalities")[m]);
    }
  }
  document["bytes"] = bytes;
  for (std::size_t m = 0; m < features->spec().modalities.size(); ++m) {
    document["modalities"][m]["dtype"] = name_of(features->tap_type(m));
    for (std::size_t i = 0; i < features->spec().modalities[m].taps.size(); ++i) {
      if (const std::int64_t time = features->time(m, i); time > 0) document["modalities"][m]["taps"][i]["time"] = time;
    }
  }
  document["kind"] = "features";
  if (whole.contains("baselines")) document["baselines"] = whole["baselines"];
  if (whole.contains("dataset_digest")) document["dataset_digest"] = whole["dataset_digest"];
  return document;
}

json info_of_tensor(const TensorView& view) { return {{"type", name_of(view.dtype)}, {"shape", view.shape}}; }

json info_of_safetensors(const fs::path& file) {
  const SafetensorsFile opened = SafetensorsFile::open(file);
  const bool backbone = opened.metadata().contains("kind");
  json tensors = json::object();
  for (const auto& [name, view] : opened.tensors()) tensors[name] = info_of_tensor(view);
  return {{"kind", backbone ? "backbone" : "safetensors"},
          {"digest", sha256_of_file(file)},
          {"metadata", opened.metadata()},
          {"tensors", tensors}};
}

json info_of_json(const fs::path& file) {
  const json document = parse_json_file(file);
  const std::string format = document.is_object() && document.contains("format") && document["format"].is_string()
                                 ? document["format"].get<std::string>()
                                 : "";
  if (format == "fusiond-dataset-1") return info_of_dataset(file);
  if (format == "fusiond-features-1") return info_of_features(file);
  throw ConfigError(file.string() + ": /format: expected \"fusiond-dataset-1\" or \"fusiond-features-1\", got \"" + format + "\"");
}

json info_of(const fs::path& file) {
  if (!fs::is_regular_file(file)) throw ConfigError(file.string() + ": there is no such file");
  if (file.extension() == ".json") return info_of_json(file);
  if (file.extension() == ".safetensors") return info_of_safetensors(file);
  if (file.extension() == ".npy") {
    json tensor = info_of_tensor(open_npy(file));
    tensor["kind"] = "npy";
    return tensor;
  }
  char head[2] = {};
  std::ifstream(file, std::ios::binary).read(head, 2);
  if (head[0] == 'P' && head[1] == 'K') {
    // A TorchScript archive is a program; describing it does not run it.
    return {{"kind", "torchscript"}, {"digest", sha256_of_file(file)}};
  }
  throw ConfigError(file.string() + ": expected a dataset.json, features.json, .safetensors, .npy or TorchScript file");
}

void print_text(const json& value, const std::string& indent) {
  for (const auto& [key, entry] : value.items()) {
    const bool deep = (entry.is_object() || entry.is_array()) && entry.dump().size() > 90;
    if (!deep) {
      std::printf("%s%s: %s\n", indent.c_str(), key.c_str(), entry.is_string() ? entry.get_ref<const std::string&>().c_str() : entry.dump().c_str());
      continue;
    }
    std::printf("%s%s:\n", indent.c_str(), key.c_str());
    print_text(entry, indent + "  ");
  }
}

}  // namespace

void add_info_command(CLI::App& app) {
  CLI::App* const command = app.add_subcommand("info", "check a file wholly and print what it holds");
  struct Options {
    std::string file;
    bool as_json = false;
  };
  const auto options = std::make_shared<Options>();
  command->add_option("file", options->file, "dataset.json, features.json, .safetensors, .npy or .pt")->required();
  command->add_flag("--json", options->as_json, "as JSON");
  command->callback([options] {
    const json info = info_of(options->file);
    if (options->as_json) std::printf("%s\n", info.dump(2).c_str());
    else print_text(info, "");
  });
}

}  // namespace fusion
