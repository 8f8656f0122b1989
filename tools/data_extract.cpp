#include <chrono>
#include <cmath>
#include <cstdio>
#include <memory>
#include <optional>
#include <vector>

#include "base/error.h"
#include "base/progress.h"
#include "tools/data_commands.h"
#include "tools/data_tables.h"
#include "workers/data/extract.h"

namespace fusion {

namespace {

struct ExtractCommand {
  std::string dataset_file, out;
  std::vector<std::string> backbones;
  ExtractOptions options;
  bool quiet = false;

  void run() {
    for (const std::string& text : backbones) {
      const std::size_t at = text.find('=');
      if (at == 0 || at == std::string::npos || at + 1 == text.size()) {
        throw ConfigError("--backbone: expected NAME=FILE, such as audio=mine.pt, got \"" + text + "\"");
      }
      options.backbones[text.substr(0, at)] = text.substr(at + 1);
    }
    options.out = out;
    const Dataset dataset = Dataset::open(dataset_file);
    std::optional<Progress> progress;
    const ExtractResult result = extract_features(dataset, options, [&](const ExtractProgress& at) {
      if (!progress) {
        progress.emplace("extract", at.rows, "rows", quiet);
        progress->begin_at(at.resumed, at.resumed_share);
      }
      progress->note(at.modality + " " + at.split);
      progress->set(at.done, at.share);
    });
    if (progress) {
      progress->note("");
      progress->finish();
    }
    print_baselines(result.manifest);
    std::printf("%s: %d feature files made, %d kept", result.file.c_str(), result.made, result.reused);
    if (result.resumed_rows > 0) std::printf("; %lld rows of an earlier run went on", static_cast<long long>(result.resumed_rows));
    std::printf("\ndigest %s\n", result.digest.c_str());
  }
};

}  // namespace

void add_dtype_option(CLI::App& command, TapType& type) {
  const auto choose = [&type](const std::string& text) {
    const auto chosen = enum_from_name<TapType>(text);
    if (!chosen) throw CLI::ValidationError("--dtype", "expected one of " + enum_choices<TapType>() + ", got \"" + text + "\"");
    type = *chosen;
  };
  command.add_option_function<std::string>("--dtype", choose, "how taps are stored, f32 or bf16, which is half of it (f32)")
      ->type_name("TYPE");
}

void add_extract_command(CLI::App& app) {
  CLI::App* const command = app.add_subcommand("extract", "run the frozen backbones once and store their taps; after a kill, the same command goes on");
  const auto extract = std::make_shared<ExtractCommand>();
  command->add_option("dataset", extract->dataset_file, "dataset.json")->required();
  command->add_option("--backbone", extract->backbones,
                      "NAME=FILE: your TorchScript network (.pt) or another LeNet of ours for a modality; a .pt is a program, so "
                      "never one from a stranger");
  command->add_option("--out", extract->out, "folder of features.json (features/ beside the dataset)");
  add_dtype_option(*command, extract->options.dtype);
  command->add_option_function<std::string>(
             "--keep",
             [extract](const std::string& text) {
               const auto chosen = enum_from_name<TapKeep>(text);
               if (!chosen) throw CLI::ValidationError("--keep", "expected one of " + enum_choices<TapKeep>() + ", got \"" + text + "\"");
               extract->options.keep = *chosen;
             },
             "pooled: a vector per tap; time: also its steps over time, for temporal heads (pooled)")
      ->type_name("WHAT");
  command->add_option("--batch", extract->options.batch, "rows at once (64)")->check(CLI::Range(std::int64_t{1}, std::int64_t{100'000}));
  command->add_option("--threads", extract->options.threads, "lanes, each with its own backbones (one per core); the bytes do not depend on it")->check(CLI::Range(1, 1024));
  command->add_flag("--force", extract->options.force, "make feature files again that are there");
  command->add_option_function<double>(
             "--save-every", [extract](const double& s) { extract->options.save_every = std::chrono::milliseconds(std::llround(1000 * s)); },
             "seconds between saves of what is done: about as much is lost if this is killed; run it again to go on (5)")
      ->check(CLI::Range(0.0, 1e6));
  command->add_flag("--quiet", extract->quiet, "no progress bar");
  command->callback([extract] { extract->run(); });
}

}  // namespace fusion
