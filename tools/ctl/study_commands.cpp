#include <unistd.h>

#include <filesystem>
#include <limits>
#include <memory>

#include "base/files.h"
#include "tools/ctl/commands.h"
#include "tools/ctl/figures.h"
#include "tools/ctl/study_file.h"
#include "tools/ctl/study_views.h"
#include "tools/ctl/watch.h"

namespace fusion::ctl {

using nlohmann::json;

namespace {

struct FileOptions {
  std::string file;
  StudyOverrides overrides;
  bool watch = false;
};

struct StudyOptions {
  std::int64_t study = 0, retraining = 0;
  bool yes = false;
};

struct WatchCommandOptions {
  std::int64_t study = 0, retraining = 0;
  double interval_s = 0, patience_s = 600;
};

struct ExportOptions {
  std::int64_t study = 0, retraining = 0, top = 5;
  std::string format, output;
};

std::chrono::milliseconds milliseconds(double seconds) {
  return std::chrono::milliseconds(static_cast<std::int64_t>(seconds * 1000));
}

int watch(const Context& context, const WatchCommandOptions& options) {
  require_one_id(options.study, options.retraining, "watch", "ID");
  WatchOptions how;
  how.json = context.json;
  how.no_color = context.no_color;
  how.interval = milliseconds(options.interval_s);
  how.patience = milliseconds(options.patience_s);
  if (options.retraining > 0) return watch_retraining(context, options.retraining, how);
  const HttpClient client = context.client();
  return watch_study(client, options.study, how);
}

/// The id alone stands on stdout, for scripts; what a person wants to read next on stderr.
int submit(const Context& context, const FileOptions& options) {
  const json document = read_study_file(options.file, options.overrides);
  const Answer answer = context.client().post("/api/v1/studies", document.dump());
  const json& study = answer.object("study");
  const auto id = integer_in(study, "id");
  if (!id) throw DaemonFailure("The answer names no id of the study: is it fusiond that listens there?");
  if (options.watch) {
    if (!context.json) print_line(std::to_string(*id));
    return watch(context, {*id, 0, 0, 600});
  }
  if (printed_as_json(context, answer)) return 0;
  print_line(std::to_string(*id));
  const TrialCounts counts = TrialCounts::of(study);
  say("study " + std::to_string(*id) + " \"" + text_in(study, "name") + "\" was accepted" +
      (counts.total > 0 ? " (" + plural(counts.total, "trial") + ")" : "") + "; follow it with: fusionctl watch " +
      std::to_string(*id));
  return 0;
}

int validate(const Context& context, const FileOptions& options) {
  const json document = read_study_file(options.file, options.overrides);
  const Answer answer = context.client().post("/api/v1/studies?validate=1", document.dump());
  if (printed_as_json(context, answer)) return 0;
  const json& count = value_in(answer.value, "count");
  const std::string digits = count.is_string() ? count.get<std::string>() : digits_in(answer.value, "count");
  const auto trials = integer_in(answer.value, "trials");
  print_line(one_line(options.file) + " is a valid study");
  Facts facts;
  facts.add("space", digits == "1" ? "1 architecture" : grouped(digits) + " architectures");
  facts.add("trials", trials ? grouped(std::to_string(*trials)) : "not known beforehand");
  print(facts.text());
  return 0;
}

struct NoOptions {};

int list(const Context& context, const NoOptions&) {
  const Answer answer = context.client().get("/api/v1/studies");
  if (printed_as_json(context, answer)) return 0;
  const json& studies = answer.list("studies");
  if (studies.empty()) say("no studies yet; submit one with: fusionctl submit FILE");
  else print(studies_view(studies, context.terminal()));
  return 0;
}

int status(const Context& context, const StudyOptions& options) {
  if (options.study == 0) return list(context, {});
  const Answer answer = context.client().get(study_path(options.study));
  if (!printed_as_json(context, answer)) print(study_view(answer.object("study"), context.terminal()));
  return 0;
}

int fits(const Context& context, const StudyOptions& options) {
  const Answer answer = context.client().get(study_path(options.study) + "/fits");
  if (printed_as_json(context, answer)) return 0;
  const json& list = answer.list("fits");
  if (list.empty()) say("study " + std::to_string(options.study) + " has no surrogate fits");
  else print(fits_view(list, context.terminal()));
  return 0;
}

/// Where an export goes. Renaming over a device or a folder would replace it, over a link the link and not its target.
std::filesystem::path output_file(const std::string& named) {
  std::filesystem::path file = named;
  std::error_code ignored;
  if (std::filesystem::is_symlink(file, ignored)) file = std::filesystem::weakly_canonical(file);
  if (std::filesystem::exists(file, ignored) && !std::filesystem::is_regular_file(file, ignored)) {
    throw ConfigError("--output: " + named + " is not a regular file; use - for stdout");
  }
  return file;
}

int export_winners(const Context& context, const ExportOptions& options) {
  require_one_id(options.study, options.retraining, "export", "ID");
  if (options.retraining > 0) {
    return export_retraining(context, options.retraining, options.format.empty() ? "torchscript" : options.format, options.output);
  }
  if (!options.format.empty()) throw ConfigError("--format: is of export --retraining N; the winners of a study are one JSON document");
  const bool to_stdout = options.output.empty() || options.output == "-";
  std::filesystem::path file;
  if (!to_stdout) file = output_file(options.output);
  const Answer answer = context.client().get(study_path(options.study) + "/export?top=" + std::to_string(options.top));
  const std::string text = nlohmann::ordered_json::parse(answer.body).dump(2) + "\n";
  if (!to_stdout) write_atomically(file, text);
  if (printed_as_json(context, answer)) return 0;
  if (to_stdout) print(text);
  else print_line(one_line(file.string()) + " was written: " +
                  plural(static_cast<std::int64_t>(list_in(answer.value, "architectures").size()), "architecture") +
                  " of study " + std::to_string(options.study));
  return 0;
}

int change(const Context& context, const StudyOptions& options, const std::string& action) {
  require_one_id(options.study, options.retraining, action, "ID");
  if (options.retraining > 0) return change_retraining(context, options.retraining, action);
  const std::int64_t study = options.study;
  const Answer answer = context.client().post(study_path(study) + "/" + action);
  if (printed_as_json(context, answer)) return 0;
  print_line("study " + std::to_string(study) + " is " + one_line(text_in(answer.object("study"), "state", "changed")));
  return 0;
}

int pause(const Context& context, const StudyOptions& options) { return change(context, options, "pause"); }
int resume(const Context& context, const StudyOptions& options) { return change(context, options, "resume"); }

int cancel(const Context& context, const StudyOptions& options) {
  if (!options.yes && ::isatty(STDIN_FILENO) == 1) {
    const bool retraining = options.retraining > 0;
    const std::string id = std::to_string(retraining ? options.retraining : options.study);
    throw ConfigError("cancelling " + std::string(retraining ? "retraining " : "study ") + id + " cannot be undone; if you mean it: fusionctl cancel " +
                      (retraining ? "--retraining " : "") + id + " --yes");
  }
  return change(context, options, "cancel");
}

void add_file_options(CLI::App* command, const std::shared_ptr<FileOptions>& options) {
  command->add_option("FILE", options->file, "the study as JSON; - reads stdin")->required();
  command->add_option("--name", options->overrides.name, "in place of the document's name");
  command->add_option("--seed", options->overrides.seed, "in place of the document's seed");
  command->add_option("--priority", options->overrides.priority, "in place of the document's priority; higher goes first");
}

void add_study_command(CLI::App& app, Context& context, const std::string& name, const std::string& help,
                       int (*run)(const Context&, const StudyOptions&)) {
  auto options = std::make_shared<StudyOptions>();
  CLI::App* command = add_command(app, context, name, help, options, run);
  CLI::Option* id = add_id(command, "ID", options->study, "the study's id");
  if (name == "fits") id->required();
  if (name != "status" && name != "fits") add_retraining_id(command, options->retraining);
  if (name == "cancel") command->add_flag("--yes", options->yes, "needed where stdin is a terminal");
}

void add_watch(CLI::App& app, Context& context) {
  auto options = std::make_shared<WatchCommandOptions>();
  CLI::App* command = add_command(app, context, "watch", "Follow a study or a retraining until it ends", options, watch);
  add_id(command, "ID", options->study, "the study's id");
  add_retraining_id(command, options->retraining);
  command->add_option("--interval", options->interval_s, "seconds between drawings (1 on a terminal, 10 elsewhere)")
      ->check(CLI::Range(0.05, 3600.0));
  command->add_option("--patience", options->patience_s, "seconds a daemon that stopped answering is waited for")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 1e8));
}

void add_export(CLI::App& app, Context& context) {
  auto options = std::make_shared<ExportOptions>();
  CLI::App* command = add_command(app, context, "export", "Write the best trials as one JSON document, or a retrained model", options, export_winners);
  add_id(command, "ID", options->study, "the study's id");
  add_retraining_id(command, options->retraining);
  command->add_option("--format", options->format, "of a retraining: torchscript (the default) or safetensors")
      ->check(CLI::IsMember({"torchscript", "safetensors"}));
  command->add_option("--top", options->top, "how many")->capture_default_str()->check(CLI::Range(1, 100'000));
  command->add_option("-o,--output", options->output, "the file, replaced in one step; - (the default) is stdout; of a retraining retraining-N.pt");
}

}  // namespace

void add_study_commands(CLI::App& app, Context& context) {
  auto to_submit = std::make_shared<FileOptions>();
  CLI::App* command = add_command(app, context, "submit", "Submit a study; prints its id", to_submit, submit);
  add_file_options(command, to_submit);
  command->add_flag("--watch", to_submit->watch, "follow it until it ends");
  auto to_validate = std::make_shared<FileOptions>();
  add_file_options(add_command(app, context, "validate", "Check a study, store nothing", to_validate, validate), to_validate);
  add_command(app, context, "list", "All studies", std::make_shared<NoOptions>(), list);
  add_study_command(app, context, "status", "One study in full; without an id all of them", status);
  add_watch(app, context);
  add_study_command(app, context, "fits", "How well the surrogate predicted, fit by fit", fits);
  add_export(app, context);
  add_study_command(app, context, "pause", "Lease nothing new of a study; hand a retraining back after its epoch", pause);
  add_study_command(app, context, "resume", "Go on with a paused or failed study, or a paused retraining", resume);
  add_study_command(app, context, "cancel", "End a study or a retraining for good; its results stay", cancel);
}

}  // namespace fusion::ctl
