#include <cmath>
#include <iostream>
#include <iterator>
#include <memory>

#include "tools/ctl/commands.h"
#include "tools/ctl/daemon_views.h"
#include "tools/ctl/figures.h"
#include "tools/ctl/table.h"

namespace fusion::ctl {

using nlohmann::json;

namespace {

struct NoOptions {};

struct QueryOptions {
  std::string sql;
  std::int64_t limit = 1000;
  double deadline_s = 5;
};

struct EventsOptions {
  std::int64_t study = 0, after = 0, limit = 100, last = 0;
};

struct ShutdownOptions {
  bool workers = false;
};

int query(const Context& context, const QueryOptions& options) {
  std::string sql = options.sql;
  if (sql == "-") sql.assign(std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>());
  const json document{{"sql", sql}, {"limit", options.limit}, {"deadline_s", options.deadline_s}};
  const auto patience = std::chrono::milliseconds(std::llround(1000 * (options.deadline_s + 10)));
  const HttpClient client = context.client().with_timeout_of_at_least(patience);
  const Answer answer = client.post("/api/v1/query", document.dump(-1, ' ', false, json::error_handler_t::replace));
  const bool cut = value_in(answer.value, "truncated") == json(true);
  if (!printed_as_json(context, answer)) print(rows_view(answer.list("columns"), answer.list("rows"), context.terminal()));
  if (cut) say("there are more than " + plural(options.limit, "row") + "; --limit raises the number");
  return 0;
}

int workers(const Context& context, const NoOptions&) {
  const Answer answer = context.client().get("/api/v1/workers");
  if (printed_as_json(context, answer)) return 0;
  const json& list = answer.list("workers");
  if (list.empty()) say("no worker is connected; start one with: fusion-worker --connect " + Url::parse(context.url).text());
  else print(workers_view(list, context.terminal()));
  const std::string pools = pools_view(list_in(answer.value, "pools"), context.terminal());
  if (!pools.empty()) print((list.empty() ? "" : "\n") + pools);
  for (const json& waiting : list_in(answer.value, "waiting")) {
    print_line("retraining " + digits_in(waiting, "retraining") + " " + one_line(text_in(waiting, "waits")));
  }
  return 0;
}

Answer page_of_events(const HttpClient& client, std::int64_t study, std::int64_t after, std::int64_t limit) {
  std::string target = "/api/v1/events?after=" + std::to_string(after) + "&limit=" + std::to_string(limit);
  if (study > 0) target += "&study=" + std::to_string(study);
  return client.get(target);
}

/// The newest events: the log is read forwards, page by page, and only its end kept.
json last_events(const HttpClient& client, const EventsOptions& options) {
  constexpr std::int64_t kPage = 1000;
  const auto wanted = static_cast<std::size_t>(options.last);
  json kept = json::array();
  std::int64_t after = options.after;
  while (true) {
    const Answer page = page_of_events(client, options.study, after, kPage);
    const json& events = page.list("events");
    for (const json& event : events) kept.push_back(event);
    if (kept.size() > wanted) kept.erase(kept.begin(), kept.end() - static_cast<json::difference_type>(wanted));
    const auto last_id = events.empty() ? std::nullopt : integer_in(events.back(), "id");
    if (!last_id || *last_id <= after) return kept;
    after = *last_id;
  }
}

int events(const Context& context, const EventsOptions& options) {
  const HttpClient client = context.client();
  if (options.last > 0) {
    const json kept = last_events(client, options);
    if (context.json) print_line(json{{"events", kept}}.dump());
    else print(events_view(kept, context.terminal()));
    return 0;
  }
  const Answer answer = page_of_events(client, options.study, options.after, options.limit);
  if (printed_as_json(context, answer)) return 0;
  const json& found = answer.list("events");
  if (found.empty()) say("no such events");
  else print(events_view(found, context.terminal()));
  if (static_cast<std::int64_t>(found.size()) == options.limit) {
    say("there may be more: --after " + digits_in(found.back(), "id") + ", or the newest: --last " + std::to_string(options.limit));
  }
  return 0;
}

int health(const Context& context, const NoOptions&) {
  const Answer answer = context.client().get("/api/v1/health");
  if (printed_as_json(context, answer)) return 0;
  print_line("fusiond at " + Url::parse(context.url).text() + ": " + one_line(text_in(answer.value, "status", "?")));
  Facts facts;
  facts.add("version", text_in(answer.value, "code_version", kAbsent));
  facts.add("database", text_in(answer.value, "database", kAbsent));
  facts.add("up for", duration(number_in(answer.value, "uptime_s")));
  print(facts.text());
  return 0;
}

int shutdown(const Context& context, const ShutdownOptions& options) {
  const json document{{"workers", options.workers}};
  const Answer answer = context.client().post("/api/v1/shutdown", document.dump());
  if (printed_as_json(context, answer)) return 0;
  print_line("fusiond at " + Url::parse(context.url).text() + " stops" +
             (options.workers ? "; its workers end what they can in time, give back the rest, and leave" : ""));
  return 0;
}

void add_events(CLI::App& app, Context& context) {
  auto options = std::make_shared<EventsOptions>();
  CLI::App* command = add_command(app, context, "events", "The log of what happened, oldest first", options, events);
  add_id(command, "ID", options->study, "only those of one study");
  command->add_option("--after", options->after, "only those behind the event of this id")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  command->add_option("--limit", options->limit, "how many")->capture_default_str()->check(CLI::Range(1, 100'000));
  command->add_option("--last", options->last, "the newest so many (reads the log from --after to its end)")
      ->check(CLI::Range(1, 1'000'000));
}

}  // namespace

void add_daemon_commands(CLI::App& app, Context& context) {
  auto query_options = std::make_shared<QueryOptions>();
  CLI::App* command = add_command(app, context, "query", "One read-only SQL statement", query_options, query);
  command->add_option("SQL", query_options->sql, "the statement; - reads stdin")->required();
  command->add_option("--limit", query_options->limit, "at most so many rows")->capture_default_str()->check(CLI::Range(1, 1'000'000));
  command->add_option("--deadline", query_options->deadline_s, "seconds it may take")
      ->capture_default_str()
      ->check(CLI::Range(0.001, 600.0));
  add_command(app, context, "workers", "Connected workers and what they hold", std::make_shared<NoOptions>(), workers);
  add_events(app, context);
  add_command(app, context, "health", "Is the daemon up", std::make_shared<NoOptions>(), health);
  auto shutdown_options = std::make_shared<ShutdownOptions>();
  command = add_command(app, context, "shutdown", "Stop the daemon; studies go on when it is started again", shutdown_options, shutdown);
  command->add_flag("--workers", shutdown_options->workers, "workers end too, after what they train");
}

}  // namespace fusion::ctl
