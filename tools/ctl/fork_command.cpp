#include <memory>

#include "base/error.h"
#include "base/json_reader.h"
#include "tools/ctl/commands.h"
#include "tools/ctl/figures.h"
#include "tools/ctl/study_file.h"

namespace fusion::ctl {

using nlohmann::json;

namespace {

struct ForkOptions {
  std::int64_t study = 0, at = -1;
  std::string options;
  std::vector<std::string> settings;  ///< "strategy.samples=20"
  StudyOverrides overrides;
  bool watch = false;
};

/// Puts "strategy.samples=20" into the changes; what is not JSON is a text.
void apply_setting(const std::string& setting, json& changes) {
  const std::size_t equals = setting.find('=');
  if (equals == 0 || equals == std::string::npos) {
    throw ConfigError("--set: expected KEY=VALUE with a key of a study document, such as strategy.samples=20, got \"" + setting + "\"");
  }
  json value = json::parse(setting.substr(equals + 1), nullptr, false);
  if (value.is_discarded()) value = setting.substr(equals + 1);
  json* place = &changes;
  const std::string key = setting.substr(0, equals);
  for (std::size_t at = 0; at <= key.size();) {
    const std::size_t end = std::min(key.find('.', at), key.size());
    if (!place->is_null() && !place->is_object()) throw ConfigError("--set: " + key + " has no members, it is set to " + place->dump());
    place = &(*place)[key.substr(at, end - at)];
    at = end + 1;
  }
  *place = std::move(value);
}

json changes_of(const ForkOptions& options) {
  json changes = options.options.empty() ? json::object() : parse_json_file(options.options);
  if (!changes.is_object()) {
    throw ConfigError(options.options + ": expected the changed members of a study, a JSON object, got a JSON " + changes.type_name());
  }
  for (const std::string& setting : options.settings) apply_setting(setting, changes);
  if (options.overrides.name) changes["name"] = *options.overrides.name;
  if (options.overrides.seed) changes["seed"] = *options.overrides.seed;
  if (options.overrides.priority) changes["priority"] = *options.overrides.priority;
  return changes;
}

/// The id alone stands on stdout, for scripts.
int fork(const Context& context, const ForkOptions& options) {
  json document{{"changes", changes_of(options)}};
  if (options.at >= 0) document["at"] = options.at;
  const Answer answer = context.client().post(study_path(options.study) + "/fork", document.dump());
  const json& study = answer.object("study");
  const auto id = integer_in(study, "id");
  if (!id) throw DaemonFailure("The answer names no id of the study: is it fusiond that listens there?");
  if (!options.watch && printed_as_json(context, answer)) return 0;
  if (!context.json) print_line(std::to_string(*id));
  if (options.watch) {
    WatchOptions how;
    how.json = context.json;
    how.no_color = context.no_color;
    how.patience = std::chrono::minutes(10);
    return watch_study(context.client(), *id, how);
  }
  const std::int64_t inherited = integer_in(study, "forked_at").value_or(0);
  say("study " + std::to_string(*id) + " began with " + plural(inherited, "trial") + " of study " + std::to_string(options.study) + ", which its strategy " +
      (integer_in(study, "observed").value_or(0) == 0 ? "retraces" : "knows from the start") + "; follow it with: fusionctl watch " + std::to_string(*id));
  return 0;
}

}  // namespace

void add_fork_command(CLI::App& app, Context& context) {
  auto options = std::make_shared<ForkOptions>();
  CLI::App* command = add_command(app, context, "fork", "Begin a study with the first trials of another; prints its id", options, fork);
  add_id(command, "--study", options->study, "the study to fork")->required();
  command->add_option("--at", options->at, "how many of its told trials are inherited (all that were told so far)")->check(CLI::NonNegativeNumber);
  command->add_option("--options", options->options, "a file with the members of the study document that shall differ");
  command->add_option("--set", options->settings, "one of them: strategy.samples=20; may be repeated")->take_all()->expected(1);
  command->add_option("--name", options->overrides.name, "its name");
  command->add_option("--seed", options->overrides.seed, "another seed");
  command->add_option("--priority", options->overrides.priority, "higher goes first");
  command->add_flag("--watch", options->watch, "follow it until it ends");
}

}  // namespace fusion::ctl
