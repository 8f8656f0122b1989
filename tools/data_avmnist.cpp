#include <chrono>
#include <cstdio>
#include <functional>
#include <memory>
#include <string>

#include "base/progress.h"
#include "tools/data_commands.h"
#include "workers/avmnist/avmnist.h"

namespace fusion {

namespace {

/// An option whose values are the names of an enum.
template <typename E>
CLI::Option* add_choice(CLI::App& command, const std::string& name, const std::string& help, std::function<void(E)> store) {
  return command
      .add_option_function<std::string>(
          name, [store](const std::string& text) { store(*enum_from_name<E>(text)); }, help)
      ->check(CLI::Validator(
          [](std::string& text) {
            return enum_from_name<E>(text) ? std::string() : "expected one of " + enum_choices<E>() + ", got \"" + text + "\"";
          },
          enum_choices<E>()));
}

void build_and_report(const AvmnistOptions& options) {
  const auto begin = std::chrono::steady_clock::now();
  const AvmnistOutcome outcome = build_avmnist(options);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  std::printf("%s: %lld train, %lld dev and %lld test rows, %s\ndigest %s\n", options.out.c_str(),
              static_cast<long long>(outcome.train), static_cast<long long>(outcome.dev), static_cast<long long>(outcome.test),
              outcome.up_to_date ? "up to date, nothing to do" : ("made in " + duration_text(seconds)).c_str(),
              outcome.digest.c_str());
}

}  // namespace

void add_avmnist_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("avmnist", "build AV-MNIST from MNIST, spoken digits and environmental noise");
  const auto options = std::make_shared<AvmnistOptions>();
  command->add_option("--mnist", options->mnist, "folder of the four MNIST files, plain or .gz")->required();
  command->add_option("--fsdd", options->fsdd, "folder of the Free Spoken Digit Dataset")->required();
  command->add_option("--noise", options->noise, "folder of ESC-10 or ESC-50 (not read by the preset reference)");
  command->add_option("--out", options->out, "folder to write the dataset to")->required();
  command->add_option("--seed", options->seed, "seed of every draw (0)")
      ->check(CLI::Validator(  // CLI11 would take -1 for 2^64 - 1
          [](std::string& text) {
            return text.starts_with('-') ? "expected an integer in [0, 2^64), got " + text : std::string();
          },
          ""));
  add_choice<AvmnistPreset>(*command, "--preset", "careful (no leaks, noise; default) or reference (as its code has it)",
                            [options](AvmnistPreset preset) { options->preset = preset; });
  command->add_option("--components", options->components,
                      "principal components an image keeps (careful: 5; reference: its own rule, which gives 3)");
  command->add_option("--snr", options->snr_db, "decibels of speech over noise, careful only (-9; inf: no noise)");
  add_choice<SpeechSplit>(*command, "--split", "what of the speech no two splits share, careful only (recording)",
                          [options](SpeechSplit split) { options->split = split; });
  command->add_option("--threads", options->threads, "threads (0: one per core); the bytes do not depend on it");
  command->add_option("--limit", options->limit, "keep the first rows of each half only, for a quick trial");
  command->add_flag("--quiet", options->quiet, "no progress bars");
  command->callback([options] { build_and_report(*options); });
}

}  // namespace fusion
