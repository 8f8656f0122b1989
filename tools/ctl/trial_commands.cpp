#include <limits>
#include <memory>

#include "tools/ctl/commands.h"
#include "tools/ctl/figures.h"
#include "tools/ctl/networks.h"
#include "tools/ctl/trial_views.h"

namespace fusion::ctl {

using nlohmann::json;

namespace {

struct BestOptions {
  std::int64_t study = 0, top = 5;
};

struct TrialsOptions {
  std::int64_t study = 0, limit = 50, offset = 0;
  std::string state, order = "asked";
};

struct ShowOptions {
  std::int64_t trial = 0, retraining = 0;
};

/// The names of a study's taps. Without them the tables show triplets only, so no failure here matters.
std::optional<DatasetSpec> dataset_of_study(const HttpClient& client, std::int64_t study) {
  try {
    return dataset_of(client.get(study_path(study)).object("study"));
  } catch (const Refused&) {
    return std::nullopt;
  } catch (const DaemonFailure&) {
    return std::nullopt;
  }
}

int best(const Context& context, const BestOptions& options) {
  const HttpClient client = context.client();
  const Answer answer = client.get(study_path(options.study) + "/best?top=" + std::to_string(options.top));
  if (printed_as_json(context, answer)) return 0;
  const json& trials = answer.list("trials");
  if (trials.empty()) say("study " + std::to_string(options.study) + " has no completed trials yet");
  else print(best_view(trials, dataset_of_study(client, options.study), context.terminal()));
  return 0;
}

int trials(const Context& context, const TrialsOptions& options) {
  const HttpClient client = context.client();
  std::string target = study_path(options.study) + "/trials?order=" + options.order + "&limit=" + std::to_string(options.limit) +
                       "&offset=" + std::to_string(options.offset);
  if (!options.state.empty()) target += "&state=" + options.state;
  const Answer answer = client.get(target);
  if (printed_as_json(context, answer)) return 0;
  const json& found = answer.list("trials");
  if (found.empty()) {
    say("study " + std::to_string(options.study) + " has no such trials");
    return 0;
  }
  print(trials_view(found, dataset_of_study(client, options.study), context.terminal()));
  if (static_cast<std::int64_t>(found.size()) == options.limit) {
    say("there may be more: --offset " + std::to_string(options.offset + options.limit));
  }
  return 0;
}

int show(const Context& context, const ShowOptions& options) {
  require_one_id(options.trial, options.retraining, "show", "TRIAL");
  if (options.retraining > 0) return show_retraining(context, options.retraining);
  const HttpClient client = context.client();
  const Answer answer = client.get("/api/v1/trials/" + std::to_string(options.trial));
  if (printed_as_json(context, answer)) return 0;
  const json& trial = answer.object("trial");
  const auto study = integer_in(trial, "study");
  print(trial_view(trial, study ? dataset_of_study(client, *study) : std::nullopt, context.terminal()));
  return 0;
}

void add_trials(CLI::App& app, Context& context) {
  auto options = std::make_shared<TrialsOptions>();
  CLI::App* command = add_command(app, context, "trials", "Trials of a study", options, trials);
  add_id(command, "ID", options->study, "the study's id")->required();
  command->add_option("--state", options->state, "only those: queued, leased, completed, failed, cancelled")
      ->check(CLI::IsMember({"queued", "leased", "completed", "failed", "cancelled"}));
  command->add_option("--order", options->order, "asked, ended (both from the first one on) or best")
      ->capture_default_str()
      ->check(CLI::IsMember({"asked", "ended", "best"}));
  command->add_option("--limit", options->limit, "how many")->capture_default_str()->check(CLI::Range(1, 1'000'000));
  command->add_option("--offset", options->offset, "how many to leave out at the start")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
}

}  // namespace

void add_trial_commands(CLI::App& app, Context& context) {
  auto best_options = std::make_shared<BestOptions>();
  CLI::App* command = add_command(app, context, "best", "The best completed trials of a study", best_options, best);
  add_id(command, "ID", best_options->study, "the study's id")->required();
  command->add_option("--top", best_options->top, "how many")->capture_default_str()->check(CLI::Range(1, 100'000));
  add_trials(app, context);
  auto show_options = std::make_shared<ShowOptions>();
  command = add_command(app, context, "show", "One trial or retraining: score, attempts, epochs", show_options, show);
  add_id(command, "TRIAL", show_options->trial, "the trial's id");
  add_retraining_id(command, show_options->retraining);
}

}  // namespace fusion::ctl
