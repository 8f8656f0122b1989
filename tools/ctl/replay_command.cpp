#include <unistd.h>

#include <memory>

#include "base/error.h"
#include "base/progress.h"
#include "search/replay.h"
#include "search/study_strategy.h"
#include "store/store_reader.h"
#include "tools/ctl/commands.h"
#include "tools/ctl/figures.h"
#include "tools/ctl/text.h"

namespace fusion::ctl {

using nlohmann::json;

namespace {

struct ReplayCommandOptions {
  std::string database;
  std::int64_t study = 0;
};

/// What came of one study.
struct Replayed {
  StudyRecord study;
  std::int64_t proposals = 0, told = 0, fits = 0, inherited = 0;
  std::optional<ReplayDifference> difference;
};

/// `parent` is that of a fork.
Replayed replay_study(const StudyHistory& history, const std::optional<StudyHistory>& parent) {
  std::int64_t ended = 0;
  for (const Trial& trial : history.trials) ended += is_final(trial.state) && !trial.inherited_from ? 1 : 0;
  Progress progress("replay study " + to_string(history.study.id), ended, "trials", isatty(STDERR_FILENO) == 0);
  ReplayOptions options;
  options.progress = [&progress](std::int64_t told) { progress.set(told); };
  const auto strategy = make_study_strategy(history.study, history.trials);
  Replay replay(history.study, history.trials, history.fits, *strategy, options);
  Replayed result;
  result.study = history.study;
  result.inherited = replay.inherited();
  if (parent) result.difference = compare_inherited(history, *parent);
  if (!result.difference) result.difference = replay.run();
  result.proposals = replay.proposals();
  result.told = replay.told();
  result.fits = static_cast<std::int64_t>(std::min(replay.fits().size(), history.fits.size()));
  return result;
}

std::vector<StudyId> studies_to_replay(const StoreReader& reader, const ReplayCommandOptions& options) {
  const std::vector<StudyId> all = reader.study_ids();
  if (options.study == 0) return all;
  for (const StudyId id : all) {
    if (id.value == options.study) return {id};
  }
  std::string known;
  for (const StudyId id : all) known += (known.empty() ? "" : ", ") + to_string(id);
  throw ConfigError("--study: there is no study " + std::to_string(options.study) + " in " + options.database +
                    (all.empty() ? "; it has none" : "; expected one of " + known));
}

json to_json(const Replayed& replayed) {
  json difference = nullptr;
  if (const auto& found = replayed.difference) {
    difference = {{"ask_index", nullptr}, {"fit_index", nullptr}, {"what", found->what}, {"stored", found->stored},
                  {"recomputed", found->recomputed}};
    if (found->ask_index) difference["ask_index"] = *found->ask_index;
    if (found->fit_index) difference["fit_index"] = *found->fit_index;
  }
  json fork = nullptr;
  if (const auto& lineage = replayed.study.fork) {
    fork = {{"forked_from", lineage->from.value}, {"forked_at", lineage->at}, {"observed", lineage->observed}};
  }
  return {{"study", replayed.study.id.value}, {"fork", fork}, {"inherited", replayed.inherited}, {"name", replayed.study.spec.name},
          {"state", std::string(name_of(replayed.study.state))},
          {"identical", !replayed.difference}, {"proposals", replayed.proposals}, {"told", replayed.told}, {"fits", replayed.fits},
          {"difference", difference}};
}

std::string line_of(const Replayed& replayed) {
  const auto& fork = replayed.study.fork;
  const std::string inherited = fork ? std::to_string(replayed.inherited) + " inherited of study " + to_string(fork->from) + ", " : "";
  const std::string counts = inherited + plural(replayed.proposals, "proposal") + ", " + std::to_string(replayed.told) + " told, " +
                             plural(replayed.fits, "fit");
  return "study " + to_string(replayed.study.id) + " \"" + one_line(replayed.study.spec.name) + "\": " +
         (replayed.difference ? "differs behind " + counts + "\n  " + one_line(replayed.difference->sentence())
                              : "identical (" + counts + ")");
}

int replay(const Context& context, const ReplayCommandOptions& options) {
  const StoreReader reader = StoreReader::open(options.database);
  json studies = json::array();
  bool identical = true;
  for (const StudyId id : studies_to_replay(reader, options)) {
    const auto history = reader.history(id);
    if (!history) continue;
    const Replayed replayed = replay_study(*history, history->study.fork ? reader.history(history->study.fork->from) : std::nullopt);
    identical = identical && !replayed.difference;
    if (context.json) studies.push_back(to_json(replayed));
    else print_line(line_of(replayed));
  }
  if (context.json) print_line(json{{"identical", identical}, {"studies", studies}}.dump(-1, ' ', false, json::error_handler_t::replace));
  return identical ? 0 : 1;
}

}  // namespace

void add_replay_command(CLI::App& app, Context& context) {
  auto options = std::make_shared<ReplayCommandOptions>();
  CLI::App* command = add_command(app, context, "replay", "Make every proposal of a database again and compare it with what is stored", options, replay);
  command->add_option("DB", options->database, "the database's file; a daemon may be using it")->required();
  add_id(command, "--study", options->study, "only this study");
}

}  // namespace fusion::ctl
