#include "space/retraining.h"

#include <limits>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace fusion {
namespace {

constexpr double kLargest = std::numeric_limits<double>::max();
constexpr std::int64_t kMaxSeed = (std::int64_t{1} << 53) - 1;

int whole(JsonReader& reader, std::string_view key, std::int64_t min, std::int64_t max = 1 << 30) {
  return static_cast<int>(reader.integer(key, min, max));
}

nlohmann::json object_of(JsonReader& reader, std::string_view key) {
  const nlohmann::json* const value = reader.raw(key);
  if (!value) return nlohmann::json::object();
  if (!value->is_object()) {
    reader.fail(key, "expected an object");
    return nlohmann::json::object();
  }
  return *value;
}

}  // namespace

bool is_final(RetrainingState state) {
  return state == RetrainingState::completed || state == RetrainingState::failed || state == RetrainingState::cancelled;
}

bool can_follow(RetrainingState from, RetrainingState to) {
  switch (from) {
    case RetrainingState::queued:
      // completed: a late result of a lease that was thought lost
      return to != RetrainingState::queued && to != RetrainingState::failed;
    case RetrainingState::leased:
      return to != RetrainingState::leased;
    case RetrainingState::paused:
      return to == RetrainingState::queued || to == RetrainingState::cancelled || to == RetrainingState::completed;
    default:
      return false;
  }
}

nlohmann::json RetrainingJob::to_json() const {
  return {{"retraining", retraining.value},
          {"attempt", attempt},
          {"architecture", to_triplets(architecture)},
          {"dataset_path", dataset_path},
          {"dataset_digest", dataset_digest},
          {"options", options.to_json()},
          {"seed", seed},
          {"folder", folder},
          {"lineage", lineage}};
}

RetrainingJob RetrainingJob::read(JsonReader& reader) {
  RetrainingJob job;
  job.retraining = RetrainingId{reader.integer("retraining", 1, INT64_MAX)};
  job.attempt = whole(reader, "attempt", 1);
  const nlohmann::json* const triplets = reader.raw("architecture");
  try {
    if (triplets) {
      job.architecture = architecture_from_triplets(*triplets);
    } else {
      reader.fail("architecture", "is missing");
    }
  } catch (const SpaceError& error) {
    reader.fail("architecture", error.what());
  }
  job.dataset_path = reader.text("dataset_path");
  job.dataset_digest = reader.text("dataset_digest");
  JsonReader options = reader.object("options", true);
  job.options = RetrainingOptions::read(options);
  job.seed = static_cast<std::uint64_t>(reader.integer("seed", 0, kMaxSeed));
  job.folder = reader.text("folder");
  job.lineage = object_of(reader, "lineage");
  reader.finish();
  return job;
}

nlohmann::json RetrainingEpoch::to_json() const {
  return {{"epoch", epoch},         {"phase", phase},     {"train_loss", train_loss},
          {"dev_loss", dev_loss},   {"dev_score", dev_score}, {"learning_rate", learning_rate},
          {"seconds", seconds},     {"rows_per_s", rows_per_s}};
}

RetrainingEpoch RetrainingEpoch::read(JsonReader& reader) {
  RetrainingEpoch e;
  e.epoch = whole(reader, "epoch", 1);
  e.phase = whole(reader, "phase", 1, 2);
  e.train_loss = reader.number("train_loss", -kLargest, kLargest);
  e.dev_loss = reader.number("dev_loss", -kLargest, kLargest);
  e.dev_score = reader.number("dev_score", 0, 1);
  e.learning_rate = reader.number("learning_rate", 0, kLargest);
  e.seconds = reader.number("seconds", 0, kLargest);
  e.rows_per_s = reader.number("rows_per_s", 0, kLargest);
  reader.finish();
  return e;
}

nlohmann::json RetrainingProgress::to_json() const {
  return {{"epoch", epoch},     {"epochs", epochs},         {"rows", rows},
          {"of_rows", of_rows}, {"rows_per_s", rows_per_s}, {"eta_s", eta_s}};
}

RetrainingProgress RetrainingProgress::read(JsonReader& reader) {
  RetrainingProgress p;
  p.epoch = whole(reader, "epoch", 1);
  p.epochs = whole(reader, "epochs", 1);
  p.rows = reader.integer("rows", 0, INT64_MAX);
  p.of_rows = reader.integer("of_rows", 0, INT64_MAX);
  p.rows_per_s = reader.number("rows_per_s", 0, kLargest);
  p.eta_s = reader.number("eta_s", 0, kLargest);
  reader.finish();
  return p;
}

nlohmann::json Artifact::to_json() const { return {{"name", name}, {"path", path}, {"bytes", bytes}, {"sha256", sha256}}; }

Artifact Artifact::read(JsonReader& reader) {
  Artifact a;
  a.name = reader.text("name");
  a.path = reader.text("path");
  a.bytes = reader.integer("bytes", 0, INT64_MAX);
  a.sha256 = reader.text("sha256");
  if (a.name.empty() || a.name.front() == '.' || a.name.find('/') != std::string::npos) {
    reader.fail("name", "expected a file name without a folder, got \"" + a.name + "\"");
  }
  reader.finish();
  return a;
}

nlohmann::json RetrainingScore::to_json() const {
  nlohmann::json list = nlohmann::json::array();
  for (const Artifact& artifact : artifacts) list.push_back(artifact.to_json());
  nlohmann::json json = {{"dev_score", dev_score},
                         {"best_epoch", best_epoch},
                         {"train_loss", train_loss},
                         {"train_s", train_s},
                         {"parameters", parameters},
                         {"trained_parameters", trained_parameters},
                         {"batch", batch},
                         {"evaluation", evaluation},
                         {"artifacts", std::move(list)}};
  if (test_score) json["test_score"] = *test_score;
  return json;
}

RetrainingScore RetrainingScore::read(JsonReader& reader) {
  RetrainingScore s;
  s.dev_score = reader.number("dev_score", 0, 1);
  s.best_epoch = whole(reader, "best_epoch", 0);
  if (reader.has("test_score")) s.test_score = reader.number("test_score", 0, 1);
  s.train_loss = reader.number("train_loss", -kLargest, kLargest);
  s.train_s = reader.number("train_s", 0, kLargest);
  s.parameters = reader.integer("parameters", 0, INT64_MAX);
  s.trained_parameters = reader.integer("trained_parameters", 0, INT64_MAX);
  s.batch = whole(reader, "batch", 1);
  s.evaluation = object_of(reader, "evaluation");
  for (JsonReader& artifact : reader.list("artifacts")) s.artifacts.push_back(Artifact::read(artifact));
  reader.raw("test_score");
  reader.finish();
  return s;
}

nlohmann::json RetrainingOutcome::to_json() const {
  nlohmann::json json = {{"retraining", retraining.value}, {"attempt", attempt}, {"outcome", name_of(outcome)},
                         {"error", error},                 {"device", device},   {"code_version", code_version},
                         {"torch_version", torch_version}};
  if (score) json["score"] = score->to_json();
  return json;
}

RetrainingOutcome RetrainingOutcome::read(JsonReader& reader) {
  RetrainingOutcome o;
  o.retraining = RetrainingId{reader.integer("retraining", 1, INT64_MAX)};
  o.attempt = whole(reader, "attempt", 1);
  o.outcome = reader.choice<Outcome>("outcome");
  o.error = reader.text("error");
  o.device = reader.text("device");
  o.code_version = reader.text("code_version");
  o.torch_version = reader.text("torch_version");
  const bool scored = reader.has("score");
  if (scored) {
    JsonReader score = reader.object("score");
    o.score = RetrainingScore::read(score);
  }
  if (o.outcome == Outcome::pruned) reader.fail("outcome", "a retraining is never pruned");
  if (scored != (o.outcome == Outcome::completed)) reader.fail("score", "is there if and only if the outcome is completed");
  reader.raw("score");
  reader.finish();
  return o;
}

}  // namespace fusion
