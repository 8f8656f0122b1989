#include <filesystem>

#include "tools/api.h"
#include "tools/api_parts.h"

namespace fusion {

using nlohmann::json;

namespace {

namespace fs = std::filesystem;

std::string no_such(RetrainingId id) { return "there is no retraining " + to_string(id); }

RetrainingQuery read_query(const HttpRequest& request) {
  QueryReader reader(request);
  RetrainingQuery query;
  if (const auto state = reader.text("state"); state && !state->empty()) {
    query.state = enum_from_name<RetrainingState>(*state);
    if (!query.state) reader.fail("?state: expected one of " + enum_choices<RetrainingState>() + ", got \"" + *state + "\"");
  }
  if (const auto head = reader.text("head"); head && !head->empty()) {
    query.head = enum_from_name<HeadKind>(*head);
    if (!query.head) reader.fail("?head: expected one of " + enum_choices<HeadKind>() + ", got \"" + *head + "\"");
  }
  const std::string order = reader.text("order").value_or("newest");
  if (order != "newest" && order != "best") reader.fail("?order: expected newest or best, got \"" + order + "\"");
  query.best = order == "best";
  if (const std::int64_t study = reader.integer("study", 1, INT64_MAX, 0)) query.study = StudyId{study};
  if (const std::int64_t trial = reader.integer("trial", 1, INT64_MAX, 0)) query.trial = TrialId{trial};
  query.limit = reader.integer("limit", 1, 1'000'000, query.limit);
  query.offset = reader.integer("offset", 0, INT64_MAX, 0);
  reader.finish();
  return query;
}

/// The record with the tap names of each step; null where there is none.
json full_record(const StoreReader& reader, RetrainingId id) {
  auto record = reader.retraining(id);
  if (!record) return nullptr;
  JsonProblems problems;
  const json dataset = record->at("dataset_spec");
  JsonReader dataset_reader(dataset, "retraining", problems);
  (*record)["steps_named"] = DatasetSpec::read(dataset_reader).describe(architecture_from_triplets(record->at("architecture"))).at("steps");
  return *record;
}

bool is_below(const fs::path& path, const fs::path& folder) {
  const fs::path below = path.lexically_relative(fs::weakly_canonical(folder));
  return !below.empty() && *below.begin() != "..";
}

/// What is sent of an artifact: {"path", "bytes", "sha256"}; null where there is none. Throws DataError for a file that is not (any more)
/// what was recorded, or does not lie in the retraining's folder below `root`: nothing else may leave.
json file_of(const StoreReader& reader, RetrainingId id, const std::string& name, const fs::path& root) {
  const auto record = reader.retraining(id);
  if (!record) return nullptr;
  for (const json& artifact : record->at("artifacts")) {
    if (artifact.at("name") != name) continue;
    const fs::path path = fs::weakly_canonical(artifact.at("path").get<std::string>());
    if (!is_below(path, root) || !is_below(path, record->at("folder").get<std::string>())) {
      throw DataError(path.string() + " does not lie in the retraining's own folder below the daemon's artifacts folder (" + root.string() +
                      "); start fusiond with --artifacts for its folder, or copy the file by hand");
    }
    std::error_code error;
    const auto bytes = fs::is_regular_file(path, error) ? fs::file_size(path, error) : 0;
    if (error || bytes != artifact.at("bytes").get<std::uintmax_t>()) {
      throw DataError(path.string() + ": expected a file of " + artifact.at("bytes").dump() + " bytes, as the retraining wrote it, got " +
                      (error ? error.message() : std::to_string(bytes) + " bytes") + "; it was changed or removed since");
    }
    return {{"path", path.string()}, {"bytes", bytes}, {"sha256", artifact.at("sha256")}};
  }
  return nullptr;
}

}  // namespace

bool Api::route_retrainings(const HttpRequest& request, const std::vector<std::string>& path, Respond& respond) {
  if (path.empty() || path[0] != "retrainings") return false;
  if (path.size() == 1) {
    if (request.method == "POST") return submit_retraining(request, std::move(respond)), true;
    if (request.method != "GET") return false;
    const RetrainingQuery query = read_query(request);
    read([query](const StoreReader& reader) { return reader.retrainings(query); }, "retrainings", "", std::move(respond));
    return true;
  }
  const auto id = whole_number(path[1]);
  if (!id || *id < 1) throw ConfigError("retraining: expected a number of at least 1, got \"" + path[1] + "\"");
  return route_one_retraining(request, RetrainingId{*id}, path, respond);
}

bool Api::route_one_retraining(const HttpRequest& request, RetrainingId id, const std::vector<std::string>& path, Respond& respond) {
  const bool get = request.method == "GET";
  if (path.size() == 2 && get) return one_retraining(id, 200, std::move(respond)), true;
  if (path.size() == 3 && request.method == "POST") {
    if (path[2] == "pause") return change(id, RetrainingAction::pause, std::move(respond)), true;
    if (path[2] == "resume") return change(id, RetrainingAction::resume, std::move(respond)), true;
    if (path[2] == "cancel") return change(id, RetrainingAction::cancel, std::move(respond)), true;
    return false;
  }
  if (!get || path.size() < 3 || path[2] != "artifacts") return false;
  if (path.size() == 4) return artifact(id, path[3], std::move(respond)), true;
  if (path.size() != 3) return false;
  read([id](const StoreReader& reader) {
         const auto record = reader.retraining(id);
         return record ? record->at("artifacts") : json();
       },
       "artifacts", no_such(id), std::move(respond));
  return true;
}

void Api::submit_retraining(const HttpRequest& request, Respond respond) {
  parts_.retrainings.submit(parse_json(request.body, "retraining"),
                            [this, respond = std::move(respond)](RetrainingId id, std::exception_ptr error) mutable {
                              if (error) return respond(refusal(400, error));
                              one_retraining(id, 201, std::move(respond));
                            });
}

void Api::one_retraining(RetrainingId id, int status, Respond respond) {
  parts_.readers.async(parts_.io, [id](const StoreReader& reader) { return full_record(reader, id); },
                       [this, id, status, respond = std::move(respond)](json record, std::exception_ptr error) {
                         if (error) return respond(refusal(500, error));
                         if (record.is_null()) return respond(refusal(404, std::vector<std::string>{no_such(id)}));
                         record["progress"] = parts_.dispatcher.retrainings().progress(id);
                         const auto reasons = parts_.dispatcher.why_retrainings_wait();
                         const auto why = reasons.find(id);
                         record["waits"] = why == reasons.end() ? json() : json(why->second);
                         respond(answer(status, {{"retraining", std::move(record)}}));
                       });
}

void Api::change(RetrainingId id, RetrainingAction action, Respond respond) {
  parts_.retrainings.change(id, action, [this, id, action, respond = std::move(respond)](RetrainingChange change, std::exception_ptr error) mutable {
    if (error) return respond(refusal(500, error));
    if (!change.known) return respond(refusal(404, std::vector<std::string>{no_such(id)}));
    const bool wanted = action == RetrainingAction::pause    ? change.state == RetrainingState::paused
                        : action == RetrainingAction::cancel ? change.state == RetrainingState::cancelled
                                                             : !is_final(change.state);
    if (!wanted) {
      return respond(refusal(409, std::vector<std::string>{"retraining " + to_string(id) + " is " + std::string(name_of(change.state)) +
                                                           ": its state does not allow that (completed, failed and cancelled ones are final)"}));
    }
    one_retraining(id, 200, std::move(respond));
  });
}

void Api::artifact(RetrainingId id, const std::string& name, Respond respond) {
  const std::string missing = "retraining " + to_string(id) + " has no artifact \"" + name + "\"; /api/v1/retrainings/" + to_string(id) +
                              "/artifacts lists what it has";
  parts_.readers.async(
      parts_.io, [id, name, root = parts_.retrainings.artifacts()](const StoreReader& reader) { return file_of(reader, id, name, root); },
      [missing, name, respond = std::move(respond)](json file, std::exception_ptr error) {
        if (error) return respond(refusal(409, error));
        if (file.is_null()) return respond(refusal(404, std::vector<std::string>{missing}));
        HttpResponse response;
        response.content_type = name.ends_with(".json") ? "application/json" : "application/octet-stream";
        response.file = file.at("path").get<std::string>();
        response.headers = {{"X-Content-SHA256", file.at("sha256").get<std::string>()}};
        respond(std::move(response));
      });
}

}  // namespace fusion
