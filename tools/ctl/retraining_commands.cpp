#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>

#include "base/digest.h"
#include "base/files.h"
#include "base/json_reader.h"
#include "space/retraining_options.h"
#include "tools/ctl/commands.h"
#include "tools/ctl/figures.h"
#include "tools/ctl/retraining_views.h"
#include "tools/ctl/retraining_watch.h"
#include "tools/ctl/text.h"

namespace fusion::ctl {

using nlohmann::json;
namespace fs = std::filesystem;

namespace {

constexpr std::chrono::minutes kDownloadLimit{30};

struct RetrainOptions {
  std::int64_t trial = 0, rank = 1;
  std::string from, dataset, options_file;
  bool all = false, wait = false;
  std::optional<std::uint64_t> seed;
  std::optional<std::int64_t> priority, retries;
  std::map<std::string, std::string> given;  ///< an option's key -> what stands behind its flag
};

struct ListOptions {
  std::string state, head, order = "newest";
  std::int64_t study = 0, trial = 0, limit = 50;
};

struct EvaluateOptions {
  std::int64_t retraining = 0;
  std::string split, html;
};

std::string path_of(std::int64_t retraining) { return "/api/v1/retrainings/" + std::to_string(retraining); }

/// A flag's text as JSON of the kind that the option has; what does not fit stays a text, and the daemon says what was expected.
json value_of(const json& example, const std::string& text) {
  if (example.is_boolean() && (text == "true" || text == "false")) return text == "true";
  if (!example.is_number()) return text;
  const json number = json::parse(text, nullptr, false);
  return number.is_number() ? number : json(text);
}

/// The file's options with the flags over them.
json options_of(const RetrainOptions& given) {
  json options = given.options_file.empty() ? json::object() : parse_json_file(given.options_file);
  if (!options.is_object()) throw ConfigError(given.options_file + ": expected the options as a JSON object, got a JSON " + options.type_name());
  const json defaults = RetrainingOptions{}.to_json();
  for (const auto& [key, text] : given.given) options[key] = value_of(defaults.at(key), text);
  return options;
}

/// One request per retraining.
std::vector<json> requests_of(const RetrainOptions& given) {
  if ((given.trial > 0) == !given.from.empty()) {
    throw ConfigError("retrain: expected either --trial N, a completed trial, or --from FILE, what fusionctl export wrote");
  }
  json request{{"options", options_of(given)}};
  if (given.seed) request["seed"] = *given.seed;
  if (given.priority) request["priority"] = *given.priority;
  if (given.retries) request["retries"] = *given.retries;
  if (!given.dataset.empty()) {
    std::error_code ignored;
    request["dataset"] = fs::exists(given.dataset, ignored) ? fs::absolute(given.dataset).lexically_normal().string() : given.dataset;
  }
  if (given.trial > 0) {
    request["trial"] = given.trial;
    return {request};
  }
  request["export"] = parse_json_file(given.from);
  request["source"] = fs::path(given.from).filename().string();
  const std::size_t count = given.all ? list_in(request["export"], "architectures").size() : 1;
  if (count == 0) throw ConfigError(given.from + ": /architectures: expected a list of at least one, as fusionctl export writes it");
  std::vector<json> requests(count, request);
  for (std::size_t i = 0; i < count; ++i) requests[i]["rank"] = given.all ? static_cast<std::int64_t>(i) + 1 : given.rank;
  return requests;
}

WatchOptions watch_options(const Context& context) {
  WatchOptions how;
  how.json = context.json;
  how.no_color = context.no_color;
  return how;
}

/// Ids alone stand on stdout, for scripts.
int retrain(const Context& context, const RetrainOptions& options) {
  const HttpClient client = context.client();
  std::vector<std::int64_t> ids;
  for (const json& request : requests_of(options)) {
    const Answer answer = client.post("/api/v1/retrainings", request.dump());
    const auto id = integer_in(answer.object("retraining"), "id");
    if (!id) throw DaemonFailure("The answer names no id of the retraining: is it fusiond that listens there?");
    ids.push_back(*id);
    if (!options.wait && printed_as_json(context, answer)) continue;
    if (!context.json) print_line(std::to_string(*id));
    if (!options.wait) say("retraining " + std::to_string(*id) + " was accepted; follow it with: fusionctl watch --retraining " + std::to_string(*id));
    const std::string waits = text_in(answer.object("retraining"), "waits");
    if (!options.wait && !waits.empty()) say("it " + one_line(waits));
  }
  int status = 0;
  if (!options.wait) return status;
  for (const std::int64_t id : ids) status = std::max(status, watch_retraining(client, id, watch_options(context)));
  return status;
}

int list_retrainings(const Context& context, const ListOptions& options) {
  std::string target = "/api/v1/retrainings?order=" + options.order + "&limit=" + std::to_string(options.limit);
  if (!options.state.empty()) target += "&state=" + options.state;
  if (!options.head.empty()) target += "&head=" + options.head;
  if (options.study > 0) target += "&study=" + std::to_string(options.study);
  if (options.trial > 0) target += "&trial=" + std::to_string(options.trial);
  const Answer answer = context.client().get(target);
  if (printed_as_json(context, answer)) return 0;
  const json& found = answer.list("retrainings");
  if (found.empty()) say("no such retrainings; begin one with: fusionctl retrain --trial N --head linear");
  else print(retrainings_view(found, context.terminal()));
  if (static_cast<std::int64_t>(found.size()) == options.limit) say("there may be more: --limit " + std::to_string(2 * options.limit));
  return 0;
}

/// A completed retraining; a ConfigError for one that is not (yet).
json completed_retraining(const HttpClient& client, std::int64_t id, Answer& answer) {
  answer = client.get(path_of(id));
  const json& retraining = answer.object("retraining");
  const std::string state = text_in(retraining, "state", "?");
  if (state == "completed") return retraining;
  throw ConfigError("retraining " + std::to_string(id) + " is " + one_line(state) + "; only a completed one has a model and an evaluation");
}

/// Renaming over a device or a folder would replace it.
void require_plain(const fs::path& file, const std::string& option) {
  std::error_code ignored;
  if (fs::exists(file, ignored) && !fs::is_regular_file(file, ignored)) {
    throw ConfigError(option + ": " + one_line(file.string()) + " is not a regular file");
  }
}

int evaluate(const Context& context, const EvaluateOptions& options) {
  if (!options.html.empty()) require_plain(options.html, "--html");
  Answer answer;
  const json retraining = completed_retraining(context.client(), options.retraining, answer);
  const json& evaluation = value_in(retraining, "evaluation");
  std::vector<std::string> splits{options.split};
  if (options.split.empty()) {
    splits.clear();
    for (const char* name : {"dev", "test"}) {
      if (member(evaluation, name)) splits.emplace_back(name);
    }
    if (splits.empty()) splits.emplace_back("dev");
  }
  std::string text;
  for (const std::string& split : splits) text += (text.empty() ? "" : "\n") + evaluation_view(retraining, split, context.terminal());
  if (!options.html.empty()) write_atomically(options.html, evaluation_html(retraining));
  if (context.json) {
    print_line(json{{"retraining", retraining.at("id")}, {"evaluation", evaluation}}.dump(-1, ' ', false, json::error_handler_t::replace));
    return 0;
  }
  print(text);
  if (!options.html.empty()) say(options.html + " was written");
  return 0;
}

// ---- export

/// Downloads beside the file, checks the digest, then takes its place.
void fetch(const HttpClient& client, std::int64_t retraining, const json& artifact, const fs::path& file) {
  const std::string name = text_in(artifact, "name"), expected = text_in(artifact, "sha256");
  const fs::path part = file.string() + ".part." + std::to_string(::getpid());
  const auto drop = [&part] {
    std::error_code ignored;
    fs::remove(part, ignored);
  };
  try {
    client.with_timeout_of_at_least(kDownloadLimit).download(path_of(retraining) + "/artifacts/" + name, part);
    const std::string digest = sha256_of_file(part);
    if (digest != expected) {
      throw DaemonFailure(name + " came with the SHA-256 " + digest + ", and the retraining wrote one with " + expected +
                          ": the file was changed since, or damaged on its way. Nothing was written.");
    }
    std::error_code error;
    fs::rename(part, file, error);
    if (error) throw DataError(file.string() + ": cannot be written: " + error.message());
  } catch (...) {
    drop();
    throw;
  }
}

/// What a format is made of, and where each file goes.
std::vector<std::pair<std::string, fs::path>> files_of(const std::string& format, std::int64_t id, const std::string& output) {
  const std::string stem = "retraining-" + std::to_string(id);
  if (format == "torchscript") return {{"model.pt", output.empty() ? stem + ".pt" : output}};
  const fs::path weights = output.empty() ? stem + ".safetensors" : output;
  fs::path beside = weights;
  beside.replace_extension(".json");
  if (beside == weights) beside += ".architecture.json";
  return {{"model.safetensors", weights}, {"architecture.json", beside}};
}

void add_option_flags(CLI::App* command, const std::shared_ptr<RetrainOptions>& options) {
  const json defaults = RetrainingOptions{}.to_json();
  for (const auto& [key, value] : defaults.items()) {
    std::string flag = "--" + key;
    std::replace(flag.begin(), flag.end(), '_', '-');
    if (key == "processes") flag += ",--gpus";  // what they are on a machine with GPUs
    const std::string shown = value.is_string() ? value.get<std::string>() : value.dump();
    command
        ->add_option_function<std::string>(flag, [options, name = key](const std::string& text) { options->given[name] = text; },
                                           "default " + shown + " (configs/README.md)")
        ->group("Options of the training");
  }
}

}  // namespace

int show_retraining(const Context& context, std::int64_t id) {
  const Answer answer = context.client().get(path_of(id));
  if (!printed_as_json(context, answer)) print(retraining_view(answer.object("retraining"), context.terminal()));
  return 0;
}

int watch_retraining(const Context& context, std::int64_t id, WatchOptions how) { return watch_retraining(context.client(), id, how); }

int change_retraining(const Context& context, std::int64_t id, const std::string& action) {
  const Answer answer = context.client().post(path_of(id) + "/" + action);
  if (printed_as_json(context, answer)) return 0;
  print_line("retraining " + std::to_string(id) + " is " + one_line(text_in(answer.object("retraining"), "state", "changed")));
  return 0;
}

int export_retraining(const Context& context, std::int64_t id, const std::string& format, const std::string& output) {
  const HttpClient client = context.client();
  Answer answer;
  const json retraining = completed_retraining(client, id, answer);
  json written = json::array();
  for (const auto& [name, file] : files_of(format, id, output)) {
    require_plain(file, "--output");
    const json& artifacts = list_in(retraining, "artifacts");
    const auto artifact = std::find_if(artifacts.begin(), artifacts.end(), [&](const json& a) { return text_in(a, "name") == name; });
    if (artifact == artifacts.end()) {
      throw ConfigError("retraining " + std::to_string(id) + " made no " + name + "; fusionctl show --retraining lists what it made");
    }
    fetch(client, id, *artifact, file);
    written.push_back({{"name", name}, {"file", file.string()}, {"bytes", value_in(*artifact, "bytes")}, {"sha256", value_in(*artifact, "sha256")}});
    if (context.json) continue;
    print_line(one_line(file.string()) + " was written: " + name + " of retraining " + std::to_string(id) + ", " +
               grouped(digits_in(*artifact, "bytes")) + " bytes");
  }
  if (context.json) print_line(json{{"files", written}}.dump());
  return 0;
}

void add_retraining_commands(CLI::App& app, Context& context) {
  auto options = std::make_shared<RetrainOptions>();
  CLI::App* command = add_command(app, context, "retrain", "Train a found configuration again; prints the id", options, retrain);
  add_id(command, "--trial", options->trial, "a completed trial");
  command->add_option("--from", options->from, "a file that export wrote, also from another database");
  command->add_option("--rank", options->rank, "which architecture of the file")->capture_default_str()->check(CLI::Range(1, 1'000'000));
  command->add_flag("--all", options->all, "every architecture of the file");
  command->add_option("--dataset", options->dataset, "where its dataset lies here, if not where it lay");
  command->add_option("--options", options->options_file, "options as a JSON object; flags stand over it");
  command->add_option("--seed", options->seed, "in place of the trial's");
  command->add_option("--priority", options->priority, "higher goes first (0)");
  command->add_option("--retries", options->retries, "attempts that may fail (2)");
  command->add_flag("--wait", options->wait, "follow it until it ends");
  add_option_flags(command, options);

  auto listed = std::make_shared<ListOptions>();
  command = add_command(app, context, "retrainings", "All retrainings", listed, list_retrainings);
  command->add_option("--state", listed->state, "only those")->check(CLI::IsMember({"queued", "leased", "paused", "completed", "failed", "cancelled"}));
  command->add_option("--head", listed->head, "only those");
  command->add_option("--order", listed->order, "newest or best")->capture_default_str()->check(CLI::IsMember({"newest", "best"}));
  add_id(command, "--study", listed->study, "only of this study");
  add_id(command, "--trial", listed->trial, "only of this trial");
  command->add_option("--limit", listed->limit, "how many")->capture_default_str()->check(CLI::Range(1, 1'000'000));

  auto evaluated = std::make_shared<EvaluateOptions>();
  command = add_command(app, context, "evaluate", "What a completed retraining scored, class by class", evaluated, evaluate);
  add_id(command, "RETRAINING", evaluated->retraining, "the retraining's id")->required();
  command->add_option("--split", evaluated->split, "dev or test; default: both")->check(CLI::IsMember({"dev", "test"}));
  command->add_option("--html", evaluated->html, "also write one page of HTML that needs nothing else");
}

}  // namespace fusion::ctl
