#include "tools/api.h"

#include <algorithm>
#include <cmath>

#include "base/version.h"
#include "tools/api_parts.h"
#include "tools/export_document.h"

namespace fusion {

using nlohmann::json;

namespace {

TrialQuery read_trial_query(const HttpRequest& request) {
  QueryReader reader(request);
  TrialQuery query;
  if (const auto state = reader.text("state"); state && !state->empty()) {
    query.state = enum_from_name<TrialState>(*state);
    if (!query.state) reader.fail("?state: expected one of " + enum_choices<TrialState>() + ", got \"" + *state + "\"");
  }
  const std::string order = reader.text("order").value_or("asked");
  if (order == "ended") query.order = TrialQuery::Order::ended;
  else if (order == "best") query.order = TrialQuery::Order::best;
  else if (order != "asked") reader.fail("?order: expected asked, ended or best, got \"" + order + "\"");
  query.limit = reader.integer("limit", 1, 1'000'000, query.limit);
  query.offset = reader.integer("offset", 0, INT64_MAX, 0);
  reader.finish();
  return query;
}

/// The reader counts what ended in the last minute; a study younger than that is measured over its own age.
void scale_rate(json& study) {
  const double age_s = static_cast<double>(SystemClock().unix_ms() - study.at("created_ms").get<UnixMs>()) / 1000;
  const double window_s = std::clamp(age_s, 1.0, 60.0);
  study["trials_per_min"] = study.at("trials_per_min").get<double>() * 60 / window_s;
}

}  // namespace

void Api::handle(HttpRequest request, std::function<void(HttpResponse)> respond) {
  std::vector<std::string> path = split(request.path);
  respond = [route = route_of(request.method, path), respond = std::move(respond)](HttpResponse response) {
    if (response.route.empty()) response.route = route;
    respond(std::move(response));
  };
  const Respond refuse = respond;  // what throws may have taken `respond` along
  try {
    if (route_operations(request, path, respond)) return;
    if (path.size() >= 2 && path[0] == "api" && path[1] == "v1") {
      path.erase(path.begin(), path.begin() + 2);
      if (parts_.files.handle(request, path, respond) || route_studies(request, path, respond) || route_retrainings(request, path, respond) ||
          route_blobs(request, path, respond) || route_rest(request, path, respond)) return;
    }
    HttpResponse unknown = refusal(404, std::vector<std::string>{request.method + " " + request.path +
                                                                 ": there is no such address; docs/protocol.md lists them all"});
    unknown.route = "other";
    respond(std::move(unknown));
  } catch (...) {
    refuse(refusal(422, std::current_exception()));
  }
}

bool Api::route_studies(const HttpRequest& request, const std::vector<std::string>& path, Respond& respond) {
  if (path.empty() || path[0] != "studies") return false;
  if (path.size() == 1) {
    if (request.method == "POST") return submit(request, std::move(respond)), true;
    if (request.method != "GET") return false;
    parts_.readers.async(parts_.io, [](const StoreReader& reader) { return reader.studies(); },
                         [this, respond = std::move(respond)](json studies, std::exception_ptr error) {
                           if (error) return respond(refusal(500, error));
                           for (json& study : studies) study = with_totals(std::move(study));
                           respond(answer(200, {{"studies", std::move(studies)}}));
                         });
    return true;
  }
  const auto id = whole_number(path[1]);
  if (!id || *id < 1) throw ConfigError("study: expected a number of at least 1, got \"" + path[1] + "\"");
  return route_one_study(request, StudyId{*id}, path, respond);
}

bool Api::route_one_study(const HttpRequest& request, StudyId id, const std::vector<std::string>& path, Respond& respond) {
  const bool get = request.method == "GET";
  const std::string missing = "there is no study " + to_string(id);
  if (path.size() == 2 && get) return one_study(id, 200, std::move(respond)), true;
  if (path.size() != 3) return false;
  const std::string& what = path[2];
  if (request.method == "POST") {
    if (what == "pause") return change(id, StudyAction::pause, std::move(respond)), true;
    if (what == "resume") return change(id, StudyAction::resume, std::move(respond)), true;
    if (what == "cancel") return change(id, StudyAction::cancel, std::move(respond)), true;
    if (what == "fork") return fork(request, id, std::move(respond)), true;
    return false;
  }
  if (!get) return false;
  // null where the study is missing, else the list
  const auto of_study = [id](auto list) {
    return [id, list](const StoreReader& reader) { return reader.study(id) ? list(reader) : json(); };
  };
  if (what == "trials") {
    const TrialQuery query = read_trial_query(request);
    read(of_study([id, query](const StoreReader& reader) { return reader.trials(id, query); }), "trials", missing, std::move(respond));
  } else if (what == "best") {
    QueryReader reader(request);
    const std::int64_t top = reader.integer("top", 1, 100'000, 5);
    reader.finish();
    read(of_study([id, top](const StoreReader& store) { return store.best(id, top); }), "trials", missing, std::move(respond));
  } else if (what == "fits") {
    read(of_study([id](const StoreReader& reader) { return reader.fits(id); }), "fits", missing, std::move(respond));
  } else if (what == "export") {
    QueryReader reader(request);
    const std::int64_t top = reader.integer("top", 1, 100'000, 5);
    reader.finish();
    read([id, top](const StoreReader& store) { return export_document(store, id, top).value_or(json()); }, "", missing, std::move(respond));
  } else {
    return false;
  }
  return true;
}

bool Api::route_rest(const HttpRequest& request, const std::vector<std::string>& path, Respond& respond) {
  const bool get = request.method == "GET";
  const std::string what = path.empty() ? "health" : path[0];
  if (path.size() <= 1 && what == "health" && get) {
    const double uptime = std::chrono::duration<double>(SystemClock().steady() - parts_.started).count();
    json health{{"status", "ok"}};
    if (request.known) health.update({{"code_version", kCodeVersion}, {"database", parts_.database}, {"uptime_s", uptime}});
    respond(answer(200, health));
  } else if (path.size() == 2 && what == "trials" && get) {
    const auto id = whole_number(path[1]);
    if (!id || *id < 1) throw ConfigError("trial: expected a number of at least 1, got \"" + path[1] + "\"");
    read([trial = TrialId{*id}](const StoreReader& reader) {
           const auto found = reader.trial(trial);
           if (!found) return json();
           json entry = *found;
           if (const auto study = reader.study(StudyId{entry.at("study").get<std::int64_t>()})) {
             JsonProblems problems;
             const json& dataset = study->at("dataset_spec");
             JsonReader dataset_reader(dataset, "study", problems);
             entry["steps_named"] = DatasetSpec::read(dataset_reader).describe(architecture_from_triplets(entry.at("architecture"))).at("steps");
           }
           return entry;
         },
         "trial", "there is no trial " + path[1], std::move(respond));
  } else if (path.size() == 1 && what == "workers" && get) {
    json waiting = json::array();
    for (const auto& [id, why] : parts_.dispatcher.why_retrainings_wait()) waiting.push_back({{"retraining", id.value}, {"waits", why}});
    respond(answer(200, {{"workers", parts_.dispatcher.workers_json()}, {"pools", parts_.pools()}, {"waiting", std::move(waiting)}}));
  } else if (path.size() == 1 && what == "events" && get) {
    QueryReader reader(request);
    const std::int64_t study = reader.integer("study", 1, INT64_MAX, 0), after = reader.integer("after", 0, INT64_MAX, 0),
                       limit = reader.integer("limit", 1, 100'000, 100);
    reader.finish();
    read([study, after, limit](const StoreReader& store) {
           return store.events(study > 0 ? std::optional(StudyId{study}) : std::nullopt, after, limit);
         },
         "events", "", std::move(respond));
  } else if (path.size() == 1 && what == "query" && request.method == "POST") {
    query(request, std::move(respond));
  } else if (path.size() == 1 && what == "backup" && get) {
    backup(std::move(respond));
  } else if (path.size() == 1 && what == "shutdown" && request.method == "POST") {
    shutdown(request, std::move(respond));
  } else {
    return false;
  }
  return true;
}

void Api::read(std::function<json(const StoreReader&)> work, std::string key, std::string missing, Respond respond, Asker asker) {
  parts_.readers.async(parts_.io, std::move(work),
                       [key = std::move(key), missing = std::move(missing), respond = std::move(respond)](json result, std::exception_ptr error) {
                         if (error) return respond(refusal(422, error));
                         if (result.is_null()) return respond(refusal(404, std::vector<std::string>{missing}));
                         respond(answer(200, key.empty() ? std::move(result) : json{{key, std::move(result)}}));
                       },
                       asker);
}

json Api::with_totals(json study) const {
  const auto total = parts_.studies.total(StudyId{study.at("id").get<std::int64_t>()});
  json& trials = study["trials"];
  const std::string state = study.at("state").get<std::string>();
  if (total) trials["total"] = *total;
  else if (state == "completed") trials["total"] = trials.at("asked");
  return study;
}

void Api::one_study(StudyId id, int status, Respond respond) {
  parts_.readers.async(
      parts_.io,
      [id](const StoreReader& reader) {
        auto study = reader.study(id);
        if (!study) return json();
        scale_rate(*study);
        return *study;
      },
      [this, id, status, respond = std::move(respond)](json study, std::exception_ptr error) {
        if (error) return respond(refusal(500, error));
        if (study.is_null()) return respond(refusal(404, std::vector<std::string>{"there is no study " + to_string(id)}));
        study = with_totals(std::move(study));
        study["eta_s"] = nullptr;
        const double rate = study.at("trials_per_min").get<double>();
        const json& trials = study.at("trials");
        if (study.at("state") == "running" && rate > 0 && trials.value("total", json()).is_number()) {
          const auto ended = trials.at("completed").get<std::int64_t>() + trials.at("failed").get<std::int64_t>();
          study["eta_s"] = static_cast<double>(trials.at("total").get<std::int64_t>() - ended) / rate * 60;
        }
        respond(answer(status, {{"study", std::move(study)}}));
      });
}

void Api::submit(const HttpRequest& request, Respond respond) {
  QueryReader reader(request);
  const bool validate_only = reader.integer("validate", 0, 1, 0) == 1;
  reader.finish();
  parts_.studies.submit(parse_json(request.body, "study"), validate_only,
                        [this, validate_only, respond = std::move(respond)](json summary, std::exception_ptr error) mutable {
                          if (error) return respond(refusal(422, error));
                          if (validate_only) return respond(answer(200, summary));
                          one_study(StudyId{summary.at("study").get<std::int64_t>()}, 201, std::move(respond));
                        });
}

void Api::fork(const HttpRequest& request, StudyId id, Respond respond) {
  ForkRequest wanted = ForkRequest::read(parse_json(request.body.empty() ? "{}" : request.body, "fork"));
  parts_.studies.fork(id, std::move(wanted), [this, id, respond = std::move(respond)](json summary, std::exception_ptr error) mutable {
    if (error) return respond(refusal(422, error));
    if (summary.is_null()) return respond(refusal(404, std::vector<std::string>{"there is no study " + to_string(id)}));
    one_study(StudyId{summary.at("study").get<std::int64_t>()}, 201, std::move(respond));
  });
}

void Api::change(StudyId id, StudyAction action, Respond respond) {
  parts_.studies.change(id, action, [this, id, respond = std::move(respond)](ChangeResult result, std::exception_ptr error) mutable {
    if (error) return respond(refusal(500, error));
    if (result == ChangeResult::unknown_study) return respond(refusal(404, std::vector<std::string>{"there is no study " + to_string(id)}));
    if (result == ChangeResult::not_allowed) {
      return respond(refusal(409, std::vector<std::string>{"study " + to_string(id) + ": its state does not allow that (completed and cancelled "
                                                           "studies are final; a failed one can be resumed or cancelled)"}));
    }
    one_study(id, 200, std::move(respond));
  });
}

void Api::query(const HttpRequest& request, Respond respond) {
  const json document = parse_json(request.body, "query");
  JsonProblems problems;
  JsonReader reader(document, "query", problems);
  const std::string sql = reader.text("sql");
  const std::int64_t limit = reader.integer("limit", 1, 1'000'000, 1'000);
  const double deadline_s = reader.number("deadline_s", 0.001, 600, 5);
  reader.finish();
  problems.throw_if_any();
  const auto deadline = std::chrono::milliseconds(std::llround(deadline_s * 1000));
  read([sql, limit, deadline](const StoreReader& store) { return store.query(sql, limit, deadline); }, "", "", std::move(respond), Asker::person);
}

void Api::backup(Respond respond) {
  const bool begun = parts_.backups.make([respond](std::shared_ptr<const BackupFile> file, std::exception_ptr error) {
    if (error) return respond(refusal(500, error));
    HttpResponse response;
    response.content_type = "application/vnd.sqlite3";
    response.file = file->path();
    response.keep = file;
    respond(std::move(response));
  });
  if (!begun) respond(refusal(409, std::vector<std::string>{"a backup is being made already; ask again when it is done"}));
}

void Api::shutdown(const HttpRequest& request, Respond respond) {
  const json document = parse_json(request.body.empty() ? "{}" : request.body, "shutdown");
  JsonProblems problems;
  JsonReader reader(document, "shutdown", problems);
  const bool workers = reader.boolean("workers", false);
  reader.finish();
  problems.throw_if_any();
  respond(answer(202, {{"status", "stopping"}}));
  parts_.shutdown(workers);
}

}  // namespace fusion
