#include "workers/protocol/codec.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <type_traits>

#include "base/error.h"
#include "base/json_depth.h"
#include "base/json_reader.h"

// Each message has one `put` and one `take`; the two tables at the bottom tie them to the text of "type".
//
// A frame is hostile until read: its size and its nesting are checked before it is parsed (writing a deeply nested value
// recurses), lists are measured before they are walked, texts before they are kept, and of many problems ten are told.

namespace fusion::protocol {

using nlohmann::json;

namespace {

constexpr std::size_t kMaxDepth = 32;
constexpr std::size_t kMaxHeld = 100'000;    // trials named by one frame
constexpr std::size_t kMaxName = 200;        // names, hosts, devices, versions
constexpr std::size_t kMaxText = 64u << 10;  // sentences, paths
constexpr std::size_t kMaxArtifacts = 100;
constexpr std::size_t kMaxLineage = 64u << 10;    // bytes of JSON
constexpr std::size_t kMaxEvaluation = 8u << 20;  // bytes of JSON: confusion matrices of a thousand classes
constexpr std::size_t kMaxProblems = 10;
constexpr std::size_t kMaxDevices = 64;
constexpr std::size_t kMaxUnreadable = 1'000;
constexpr std::size_t kMaxSentence = 4u << 10;  // of a condition
constexpr std::int64_t kMaxMegabytes = std::int64_t{1} << 40;
constexpr double kLongest = 1e9;  // seconds
constexpr std::int64_t kMaxSlots = 65'536;
constexpr std::int64_t kMaxCount = 1'000'000'000;  // attempts, epochs
constexpr std::int64_t kMaxSeed = (std::int64_t{1} << 53) - 1;
constexpr double kLargest = std::numeric_limits<double>::max();

// ---- writing

/// Cuts between characters, so that what is cut is still UTF-8.
std::string cut(const std::string& text, std::size_t limit) {
  if (text.size() <= limit) return text;
  std::size_t end = limit - 3;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  return text.substr(0, end) + "...";
}

double finite(std::string_view frame, std::string_view member, double value) {
  if (std::isfinite(value)) return value;
  throw ProtocolError(std::string(frame) + " frame: /" + std::string(member) + ": expected a finite number, got " +
                      std::to_string(value));
}

json held_json(const std::vector<Held>& held) {
  json list = json::array();
  for (const Held& h : held) list.push_back({{"trial", h.trial.value}, {"attempt", h.attempt}});
  return list;
}

json held_json(const std::vector<HeldRetraining>& held) {
  json list = json::array();
  for (const HeldRetraining& h : held) list.push_back({{"retraining", h.retraining.value}, {"attempt", h.attempt}});
  return list;
}

/// Throws for the first number in it that JSON cannot carry.
void require_finite(const json& value, std::string_view frame, const std::string& pointer = "") {
  if (value.is_number_float()) finite(frame, pointer.empty() ? pointer : pointer.substr(1), value.get<double>());
  if (!value.is_structured()) return;
  for (const auto& [key, member] : value.items()) {
    if (member.is_number_float() || member.is_structured()) require_finite(member, frame, pointer + "/" + key);
  }
}

/// A value's own members, behind the type and what it is of.
json frame_of(std::string_view type, const HeldRetraining& what, json members) {
  require_finite(members, type);
  members["type"] = type;
  members["retraining"] = what.retraining.value;
  members["attempt"] = what.attempt;
  return members;
}

template <typename T>
json or_null(const std::optional<T>& value) {
  return value ? json(*value) : json();
}

/// A member that this version got later, left out where there is none: so a daemon from before reads what has nothing new to say.
template <typename T>
void put_later(json& members, const char* key, const std::optional<T>& value) {
  if (value) members[key] = *value;
}

json device_json(const Device& device) {
  return {{"name", cut(device.name, kMaxName)},
          {"model", cut(device.model, kMaxName)},
          {"id", cut(device.id, kMaxName)},
          {"memory_mb", or_null(device.memory_mb)},
          {"free_mb", or_null(device.free_mb)},
          {"utilisation_percent", or_null(device.utilisation_percent)},
          {"temperature_c", or_null(device.temperature_c)},
          {"others", or_null(device.others)},
          {"problem", cut(device.problem, kMaxSentence)}};
}

json condition_members(const Condition& condition) {
  json devices = json::array(), unreadable = json::array();
  for (const Device& device : condition.devices) devices.push_back(device_json(device));
  for (const Unreadable& data : condition.unreadable) {
    unreadable.push_back({{"dataset_digest", data.dataset_digest}, {"why", cut(data.why, kMaxSentence)}});
  }
  for (const auto& seconds : {condition.time_left_s, condition.trial_s, condition.longest_epoch_s, condition.first_epoch_s}) {
    finite("heartbeat", "condition", seconds.value_or(0));
  }
  json members{{"time_left_s", or_null(condition.time_left_s)},
               {"trial_s", or_null(condition.trial_s)},
               {"fits", or_null(condition.fits)},
               {"problem", cut(condition.problem, kMaxSentence)},
               {"devices", std::move(devices)},
               {"unreadable", std::move(unreadable)}};
  put_later(members, "longest_epoch_s", condition.longest_epoch_s);
  put_later(members, "first_epoch_s", condition.first_epoch_s);
  put_later(members, "pack", condition.pack);
  put_later(members, "slots", condition.slots);
  return members;
}

json put(const Hello& m) {
  json frame{{"type", "hello"},
             {"protocol", m.protocol},
             {"name", m.name},
             {"host", m.host},
             {"pid", m.pid},
             {"device", m.device},
             {"pack", m.pack},
             {"slots", m.slots},
             {"code_version", m.code_version},
             {"torch_version", m.torch_version},
             {"held", held_json(m.held)},
             {"retrainings", held_json(m.retrainings)},
             {"job", m.job},
             {"node", m.node},
             {"condition", condition_members(m.condition)}};
  put_later(frame, "processes", m.processes);
  return frame;
}

json put(const Epoch& m) {
  return {{"type", "epoch"},
          {"trial", m.trial.value},
          {"attempt", m.attempt},
          {"epoch", m.report.epoch},
          {"train_loss", finite("epoch", "train_loss", m.report.train_loss)},
          {"dev_score", finite("epoch", "dev_score", m.report.dev_score)},
          {"learning_rate", finite("epoch", "learning_rate", m.report.learning_rate)},
          {"seconds", finite("epoch", "seconds", m.report.seconds)}};
}

json put(const Result& m) {
  const TrialOutcome& o = m.outcome;
  json frame = {{"type", "result"},
                {"trial", o.trial.value},
                {"attempt", o.attempt},
                {"outcome", name_of(o.outcome)},
                {"error", cut(o.error, kMaxText)},
                {"engine", o.engine},
                {"device", o.device},
                {"code_version", o.code_version},
                {"torch_version", o.torch_version}};
  if (!o.score) return frame;
  json score = o.score->to_json();
  for (const auto& [key, value] : score.items()) {
    if (value.is_number_float()) finite("result", "score/" + key, value.get<double>());
  }
  frame["score"] = std::move(score);
  return frame;
}

json put(const Heartbeat& m) {
  return {{"type", "heartbeat"},
          {"held", held_json(m.held)},
          {"retrainings", held_json(m.retrainings)},
          {"condition", condition_members(m.condition)}};
}

json put(const GiveBack& m) {
  return {{"type", "give_back"},
          {"held", held_json(m.held)},
          {"retrainings", held_json(m.retrainings)},
          {"reason", cut(m.reason, kMaxText)}};
}

json put(const RetrainingEpochReport& m) { return frame_of("retraining_epoch", m.what, m.epoch.to_json()); }
json put(const RetrainingProgressReport& m) { return frame_of("retraining_progress", m.what, m.progress.to_json()); }

json put(const RetrainingResult& m) {
  RetrainingOutcome outcome = m.outcome;
  outcome.error = cut(outcome.error, kMaxText);
  return frame_of("retraining_result", {outcome.retraining, outcome.attempt}, outcome.to_json());
}

json put(const Leaving& m) { return {{"type", "leaving"}, {"reason", cut(m.reason, kMaxText)}}; }

json put(const Welcome& m) {
  return {{"type", "welcome"},
          {"worker", m.worker.value},
          {"lease_s", finite("welcome", "lease_s", m.lease_s)},
          {"heartbeat_s", finite("welcome", "heartbeat_s", m.heartbeat_s)},
          {"code_version", m.code_version}};
}

json put(const Refused& m) { return {{"type", "refused"}, {"error", cut(m.error, kMaxText)}}; }

json put(const Pack& m) {
  json trials = json::array();
  for (const TrialJob& job : m.trials) {
    trials.push_back({{"trial", job.trial.value},
                      {"attempt", job.attempt},
                      {"architecture", to_triplets(job.architecture)},
                      {"seed", job.seed}});
  }
  return {{"type", "pack"},
          {"study", m.study.value},
          {"dataset_path", m.dataset_path},
          {"dataset_digest", m.dataset_digest},
          {"training", m.training.to_json()},
          {"order_seed", m.order_seed},
          {"trials", std::move(trials)}};
}

json put(const Cancel& m) {
  return {{"type", "cancel"},
          {"held", held_json(m.held)},
          {"retrainings", held_json(m.retrainings)},
          {"reason", cut(m.reason, kMaxText)}};
}

json put(const RetrainingLease& m) {
  return frame_of("retraining", {m.job.retraining, m.job.attempt}, m.job.to_json());
}

json put(const RetrainingAck& m) {
  return {{"type", "retraining_ack"},     {"what", m.what},   {"retraining", m.held.retraining.value},
          {"attempt", m.held.attempt}, {"epoch", m.epoch}, {"accepted", m.accepted}};
}

json put(const HandBack& m) {
  return {{"type", "hand_back"}, {"retrainings", held_json(m.retrainings)}, {"reason", cut(m.reason, kMaxText)}};
}

json put(const Prune& m) {
  return {{"type", "prune"}, {"held", held_json(m.held)}, {"reason", cut(m.reason, kMaxText)}};
}

json put(const Drain& m) { return {{"type", "drain"}, {"reason", cut(m.reason, kMaxText)}}; }

// ---- reading

std::string bounded_text(JsonReader& reader, std::string_view key, std::size_t limit) {
  std::string text = reader.text(key);
  if (text.size() <= limit) return text;
  reader.fail(key, "expected a text of at most " + std::to_string(limit) + " bytes, got " + std::to_string(text.size()));
  return "";
}

/// A name goes into logs as it is: no control characters.
std::string short_name(JsonReader& reader, std::string_view key) {
  std::string text = bounded_text(reader, key, kMaxName);
  const bool clean = std::none_of(text.begin(), text.end(), [](unsigned char c) { return c < 0x20 || c == 0x7F; });
  if (!clean) reader.fail(key, "expected a text without control characters");
  return text;
}

/// The elements of a list that is there and not too long.
std::vector<JsonReader> bounded_list(JsonReader& reader, std::string_view key, std::size_t limit) {
  const json* list = reader.raw(key);
  if (list != nullptr && list->is_array() && list->size() > limit) {
    reader.fail(key, "expected at most " + std::to_string(limit) + " elements, got " + std::to_string(list->size()));
    return {};
  }
  return reader.list(key, true);
}

template <typename AnyId>
AnyId id_at(JsonReader& reader, std::string_view key) {
  return AnyId{reader.integer(key, 1, std::numeric_limits<std::int64_t>::max())};
}

int attempt_at(JsonReader& reader) { return static_cast<int>(reader.integer("attempt", 1, kMaxCount)); }

std::vector<Held> held_at(JsonReader& reader) {
  std::vector<Held> held;
  for (JsonReader& element : bounded_list(reader, "held", kMaxHeld)) {
    Held h;
    h.trial = id_at<TrialId>(element, "trial");
    h.attempt = attempt_at(element);
    element.finish();
    held.push_back(h);
  }
  return held;
}

std::vector<HeldRetraining> retrainings_at(JsonReader& reader) {
  std::vector<HeldRetraining> held;
  for (JsonReader& element : bounded_list(reader, "retrainings", kMaxHeld)) {
    HeldRetraining h;
    h.retraining = id_at<RetrainingId>(element, "retraining");
    h.attempt = attempt_at(element);
    element.finish();
    held.push_back(h);
  }
  return held;
}

HeldRetraining held_retraining_at(JsonReader& reader) { return {id_at<RetrainingId>(reader, "retraining"), attempt_at(reader)}; }

/// A member that others read later is held to a size here.
void bound_text(JsonReader& reader, std::string_view key, std::size_t limit) {
  const json* text = reader.raw(key);
  if (text == nullptr || !text->is_string() || text->get_ref<const std::string&>().size() <= limit) return;
  reader.fail(key, "expected at most " + std::to_string(limit) + " bytes, got " +
                       std::to_string(text->get_ref<const std::string&>().size()));
}

void bound_json(JsonReader& reader, std::string_view key, std::size_t limit) {
  const json* value = reader.raw(key);
  if (value == nullptr) return;
  const std::size_t bytes = value->dump(-1, ' ', false, json::error_handler_t::replace).size();
  if (bytes > limit) reader.fail(key, "expected at most " + std::to_string(limit) + " bytes, got " + std::to_string(bytes));
}

/// A member that is there and null is none.
bool is_null(JsonReader& reader, std::string_view key) {
  const json* value = reader.raw(key);
  return value != nullptr && value->is_null();
}

/// Of a member that this version got later: absent is none too.
bool is_none(JsonReader& reader, std::string_view key) { return reader.raw(key) == nullptr || is_null(reader, key); }

std::optional<std::int64_t> integer_or_none(JsonReader& reader, std::string_view key, std::int64_t most) {
  if (is_null(reader, key)) return std::nullopt;
  return reader.integer(key, 0, most);
}

std::optional<int> count_or_none(JsonReader& reader, std::string_view key, std::int64_t most) {
  const auto value = integer_or_none(reader, key, most);
  return value ? std::optional(static_cast<int>(*value)) : std::nullopt;
}

std::optional<double> seconds_or_none(JsonReader& reader, std::string_view key) {
  if (is_null(reader, key)) return std::nullopt;
  return reader.number(key, 0, kLongest);
}

Device take_device(JsonReader& reader) {
  Device device;
  device.name = short_name(reader, "name");
  device.model = short_name(reader, "model");
  device.id = short_name(reader, "id");
  device.memory_mb = integer_or_none(reader, "memory_mb", kMaxMegabytes);
  device.free_mb = integer_or_none(reader, "free_mb", kMaxMegabytes);
  device.utilisation_percent = count_or_none(reader, "utilisation_percent", 100);
  device.temperature_c = count_or_none(reader, "temperature_c", 1'000);
  device.others = count_or_none(reader, "others", kMaxSlots);
  device.problem = bounded_text(reader, "problem", kMaxSentence);
  reader.finish();
  return device;
}

Condition condition_at(JsonReader& outer) {
  JsonReader reader = outer.object("condition", true);
  Condition condition;
  if (const json* value = outer.raw("condition"); value == nullptr || !value->is_object()) return condition;
  condition.time_left_s = seconds_or_none(reader, "time_left_s");
  condition.trial_s = seconds_or_none(reader, "trial_s");
  condition.fits = count_or_none(reader, "fits", kMaxSlots);
  condition.problem = bounded_text(reader, "problem", kMaxSentence);
  for (JsonReader& element : bounded_list(reader, "devices", kMaxDevices)) condition.devices.push_back(take_device(element));
  for (JsonReader& element : bounded_list(reader, "unreadable", kMaxUnreadable)) {
    Unreadable data;
    data.dataset_digest = short_name(element, "dataset_digest");
    data.why = bounded_text(element, "why", kMaxSentence);
    element.finish();
    condition.unreadable.push_back(std::move(data));
  }
  if (!is_none(reader, "longest_epoch_s")) condition.longest_epoch_s = reader.number("longest_epoch_s", 0, kLongest);
  if (!is_none(reader, "first_epoch_s")) condition.first_epoch_s = reader.number("first_epoch_s", 0, kLongest);
  if (!is_none(reader, "slots")) condition.slots = static_cast<int>(reader.integer("slots", 1, kMaxSlots));
  if (!is_none(reader, "pack")) condition.pack = static_cast<int>(reader.integer("pack", 1, kMaxSlots));
  if (condition.pack && condition.slots && *condition.pack > *condition.slots) {
    reader.fail("pack", "is larger than slots, which is " + std::to_string(*condition.slots));
  }
  reader.finish();
  return condition;
}

/// Another version's hello is not held to this version's members: the version is what must be refused.
Message take_hello(JsonReader& reader) {
  Hello m;
  m.protocol = static_cast<int>(reader.integer("protocol", 0, kMaxCount));
  if (m.protocol != kVersion && reader.problems().empty()) return m;
  m.name = short_name(reader, "name");
  if (m.name.empty() && reader.has("name")) reader.fail("name", "expected 1 to " + std::to_string(kMaxName) + " bytes");
  m.host = short_name(reader, "host");
  m.pid = reader.integer("pid", 0, std::numeric_limits<std::int64_t>::max());
  m.device = short_name(reader, "device");
  m.pack = static_cast<int>(reader.integer("pack", 1, kMaxSlots));
  m.slots = static_cast<int>(reader.integer("slots", 1, kMaxSlots));
  if (m.pack > m.slots) reader.fail("pack", "is larger than slots, which is " + std::to_string(m.slots));
  m.code_version = short_name(reader, "code_version");
  m.torch_version = short_name(reader, "torch_version");
  m.held = held_at(reader);
  m.retrainings = retrainings_at(reader);
  m.job = short_name(reader, "job");
  m.node = short_name(reader, "node");
  m.condition = condition_at(reader);
  if (!is_none(reader, "processes")) m.processes = static_cast<int>(reader.integer("processes", 0, kMaxSlots));
  reader.finish();
  return m;
}

Message take_epoch(JsonReader& reader) {
  Epoch m;
  m.trial = id_at<TrialId>(reader, "trial");
  m.attempt = attempt_at(reader);
  m.report.epoch = static_cast<int>(reader.integer("epoch", 1, kMaxCount));
  m.report.train_loss = reader.number("train_loss", -kLargest, kLargest);
  m.report.dev_score = reader.number("dev_score", 0, 1);
  m.report.learning_rate = reader.number("learning_rate", -kLargest, kLargest);
  m.report.seconds = reader.number("seconds", 0, kLargest);
  reader.finish();
  return m;
}

Message take_result(JsonReader& reader) {
  TrialOutcome o;
  o.trial = id_at<TrialId>(reader, "trial");
  o.attempt = attempt_at(reader);
  o.outcome = reader.choice<Outcome>("outcome");
  const json* score = reader.raw("score");
  const bool scored = o.outcome == Outcome::completed || o.outcome == Outcome::pruned;
  if (score != nullptr && !scored) {
    reader.fail("score", "stands only where outcome is completed or pruned, and outcome is " + std::string(name_of(o.outcome)));
  } else if (scored) {
    JsonReader score_reader = reader.object("score", true);
    if (score != nullptr && score->is_object()) o.score = Score::read(score_reader);
  }
  o.error = bounded_text(reader, "error", kMaxText);
  o.engine = short_name(reader, "engine");
  o.device = short_name(reader, "device");
  o.code_version = short_name(reader, "code_version");
  o.torch_version = short_name(reader, "torch_version");
  reader.finish();
  return Result{std::move(o)};
}

Message take_heartbeat(JsonReader& reader) {
  Heartbeat m{held_at(reader), retrainings_at(reader), condition_at(reader)};
  reader.finish();
  return m;
}

Message take_give_back(JsonReader& reader) {
  GiveBack m{held_at(reader), bounded_text(reader, "reason", kMaxText), retrainings_at(reader)};
  reader.finish();
  return m;
}

Message take_retraining_epoch(JsonReader& reader) {
  RetrainingEpochReport m;
  m.what = held_retraining_at(reader);
  m.epoch = RetrainingEpoch::read(reader);
  return m;
}

Message take_retraining_progress(JsonReader& reader) {
  RetrainingProgressReport m;
  m.what = held_retraining_at(reader);
  m.progress = RetrainingProgress::read(reader);
  return m;
}

/// Sizes first: what follows copies. Digests, names and the one folder that artifacts may lie in are the daemon's to look at.
void bound_score(JsonReader& score) {
  bound_json(score, "evaluation", kMaxEvaluation);
  for (JsonReader& artifact : bounded_list(score, "artifacts", kMaxArtifacts)) {
    bound_text(artifact, "name", kMaxName);
    bound_text(artifact, "path", kMaxText);
    const json* digest = artifact.raw("sha256");
    const bool hex = digest != nullptr && digest->is_string() && digest->get_ref<const std::string&>().size() == 64 &&
                     digest->get_ref<const std::string&>().find_first_not_of("0123456789abcdef") == std::string::npos;
    if (!hex) artifact.fail("sha256", "expected 64 lower-case hexadecimal digits");
  }
}

Message take_retraining_result(JsonReader& reader) {
  bound_text(reader, "error", kMaxText);
  for (const char* name : {"device", "code_version", "torch_version"}) bound_text(reader, name, kMaxName);
  if (const json* score = reader.raw("score"); score != nullptr && score->is_object()) {
    JsonReader score_reader = reader.object("score");
    bound_score(score_reader);
  }
  if (!reader.problems().empty()) return RetrainingResult{};
  return RetrainingResult{RetrainingOutcome::read(reader)};
}

Message take_retraining(JsonReader& reader) {
  for (const char* name : {"dataset_path", "folder"}) bound_text(reader, name, kMaxText);
  bound_text(reader, "dataset_digest", kMaxName);
  bound_json(reader, "lineage", kMaxLineage);
  if (!reader.has("lineage")) reader.fail("lineage", "is missing; expected an object");
  if (!reader.problems().empty()) return RetrainingLease{};
  return RetrainingLease{RetrainingJob::read(reader)};
}

Message take_leaving(JsonReader& reader) {
  Leaving m{bounded_text(reader, "reason", kMaxText)};
  reader.finish();
  return m;
}

Message take_welcome(JsonReader& reader) {
  Welcome m;
  m.worker = id_at<WorkerId>(reader, "worker");
  m.lease_s = reader.number("lease_s", 0, 1e9);
  m.heartbeat_s = reader.number("heartbeat_s", 0, 1e9);
  m.code_version = short_name(reader, "code_version");
  reader.finish();
  return m;
}

Message take_refused(JsonReader& reader) {
  Refused m{bounded_text(reader, "error", kMaxText)};
  reader.finish();
  return m;
}

TrialJob take_job(JsonReader& reader) {
  TrialJob job;
  job.trial = id_at<TrialId>(reader, "trial");
  job.attempt = attempt_at(reader);
  job.seed = static_cast<std::uint64_t>(reader.integer("seed", 0, kMaxSeed));
  const json* architecture = reader.raw("architecture");
  if (architecture == nullptr) {
    reader.fail("architecture", "is missing; expected triplets such as [[3,0,0],[1,3,0]]");
  } else {
    try {
      job.architecture = architecture_from_triplets(*architecture);
    } catch (const SpaceError& error) {
      reader.fail("architecture", cut(error.what(), 400));
    }
  }
  reader.finish();
  return job;
}

Message take_pack(JsonReader& reader) {
  Pack m;
  m.study = id_at<StudyId>(reader, "study");
  m.dataset_path = bounded_text(reader, "dataset_path", kMaxText);
  m.dataset_digest = short_name(reader, "dataset_digest");
  JsonReader training = reader.object("training", true);
  m.training = TrainingOptions::read(training);
  m.order_seed = static_cast<std::uint64_t>(reader.integer("order_seed", 0, kMaxSeed));
  for (JsonReader& element : bounded_list(reader, "trials", kMaxHeld)) m.trials.push_back(take_job(element));
  reader.finish();
  return m;
}

Message take_ack(JsonReader& reader) {
  Ack m;
  m.what = reader.text("what");
  if (reader.has("what") && m.what != "result" && m.what != "epoch") reader.fail("what", "expected \"result\" or \"epoch\"");
  m.trial = id_at<TrialId>(reader, "trial");
  m.attempt = attempt_at(reader);
  m.epoch = static_cast<int>(reader.integer("epoch", 0, kMaxCount));
  m.accepted = reader.boolean("accepted");
  reader.finish();
  return m;
}

Message take_cancel(JsonReader& reader) {
  Cancel m{held_at(reader), bounded_text(reader, "reason", kMaxText), retrainings_at(reader)};
  reader.finish();
  return m;
}

Message take_retraining_ack(JsonReader& reader) {
  RetrainingAck m;
  m.what = reader.text("what");
  if (reader.has("what") && m.what != "result" && m.what != "epoch") reader.fail("what", "expected \"result\" or \"epoch\"");
  m.held = held_retraining_at(reader);
  m.epoch = static_cast<int>(reader.integer("epoch", 0, kMaxCount));
  m.accepted = reader.boolean("accepted");
  reader.finish();
  return m;
}

Message take_hand_back(JsonReader& reader) {
  HandBack m{retrainings_at(reader), bounded_text(reader, "reason", kMaxText)};
  reader.finish();
  return m;
}

Message take_prune(JsonReader& reader) {
  Prune m{held_at(reader), bounded_text(reader, "reason", kMaxText)};
  reader.finish();
  return m;
}

Message take_drain(JsonReader& reader) {
  Drain m{bounded_text(reader, "reason", kMaxText)};
  reader.finish();
  return m;
}

struct Type {
  std::string_view name;
  Message (*take)(JsonReader&);
};
constexpr Type kTypes[] = {
    {"hello", take_hello},     {"epoch", take_epoch},     {"result", take_result},   {"heartbeat", take_heartbeat},
    {"give_back", take_give_back}, {"leaving", take_leaving}, {"welcome", take_welcome}, {"refused", take_refused},
    {"pack", take_pack},       {"ack", take_ack},         {"cancel", take_cancel},   {"prune", take_prune},
    {"drain", take_drain},     {"retraining", take_retraining}, {"retraining_epoch", take_retraining_epoch},
    {"retraining_progress", take_retraining_progress}, {"retraining_result", take_retraining_result},
    {"retraining_ack", take_retraining_ack}, {"hand_back", take_hand_back},
};

const Type& type_of(const json& document) {
  JsonProblems problems;
  JsonReader reader(document, "frame", problems);
  const std::string name = reader.text("type");
  for (const Type& type : kTypes) {
    if (type.name == name) return type;
  }
  if (problems.empty()) {
    std::string known;
    for (const Type& type : kTypes) known += (known.empty() ? "" : ", ") + std::string(type.name);
    reader.fail("type", "expected one of " + known + ", got \"" + cut(name, 80) + "\"");
  }
  throw ProtocolError(join_problems(problems.list()));
}

json parse_frame(std::string_view text) {
  if (text.size() > kMaxFrame) {
    throw ProtocolError("frame: expected at most " + std::to_string(kMaxFrame) + " bytes, got " + std::to_string(text.size()));
  }
  if (const std::size_t depth = json_depth(text); depth > kMaxDepth) {
    throw ProtocolError("frame: expected lists and objects nested at most " + std::to_string(kMaxDepth) + " deep, got " +
                        std::to_string(depth));
  }
  try {
    return parse_json(text, "frame");
  } catch (const ConfigError& error) {
    throw ProtocolError(cut(error.what(), 400));
  } catch (const json::exception& error) {  // a number out of range, say
    throw ProtocolError("frame: not valid JSON: " + cut(error.what(), 400));
  }
}

}  // namespace

nlohmann::json condition_json(const Condition& condition) { return condition_members(condition); }

namespace {

/// Without a document: most of what a daemon sends is this. `what` is one of our own words.
std::string text_of(const Ack& m) {
  std::string text = m.accepted ? R"({"accepted":true,"attempt":)" : R"({"accepted":false,"attempt":)";
  text += std::to_string(m.attempt) + R"(,"epoch":)" + std::to_string(m.epoch) + R"(,"trial":)" + std::to_string(m.trial.value);
  return text + R"(,"type":"ack","what":")" + m.what + "\"}";
}

}  // namespace

std::string encode(const Message& message) {
  if (const auto* ack = std::get_if<Ack>(&message)) return text_of(*ack);
  const json frame = std::visit([](const auto& m) -> json {
    if constexpr (std::is_same_v<decltype(m), const Ack&>) return nullptr;
    else return put(m);
  }, message);
  return frame.dump(-1, ' ', false, json::error_handler_t::replace);  // texts of others may hold any bytes
}

Message decode(std::string_view text) {
  const json document = parse_frame(text);
  const Type& type = type_of(document);
  JsonProblems problems;
  JsonReader reader(document, std::string(type.name) + " frame", problems);
  reader.raw("type");
  Message message = type.take(reader);
  if (problems.empty()) return message;
  std::vector<std::string> told(problems.list().begin(),
                                problems.list().begin() + std::min(problems.list().size(), kMaxProblems));
  if (const std::size_t more = problems.list().size() - told.size(); more > 0) {
    told.push_back("and " + std::to_string(more) + " more problems");
  }
  throw ProtocolError(join_problems(told));
}

}  // namespace fusion::protocol
