#include "tools/crash/scene.h"

#include <signal.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/error.h"
#include "base/files.h"
#include "space/feature_manifest.h"
#include "store/store_reader.h"
#include "workers/client/journal.h"

namespace fusion {

namespace {

using nlohmann::json;
namespace fs = std::filesystem;

json taps(int count) {
  json list = json::array();
  for (int i = 0; i < count; ++i) list.push_back({{"name", "tap" + std::to_string(i)}, {"width", 8 << i}});
  return list;
}

void write_manifest(const fs::path& file) {
  json manifest{{"format", "fusiond-features-1"},
                {"name", "simulated"},
                {"dataset_digest", "simulated"},
                {"classes", 10},
                {"class_names", json::array()},
                {"modalities",
                 {{{"name", "audio"}, {"has_logits", false}, {"taps", taps(5)}}, {{"name", "image"}, {"has_logits", false}, {"taps", taps(3)}}}},
                {"rows", {{"train", 55'000}, {"dev", 5'000}, {"test", 10'000}}},
                {"files", json::object()}};
  manifest["digest"] = manifest_digest(manifest);
  write_atomically(file, manifest.dump(2));
}

std::string tail_of(const fs::path& log, std::size_t most = 2'000) {
  const std::string text = fs::exists(log) ? read_text(log) : "";
  return text.size() <= most ? text : "..." + text.substr(text.size() - most);
}

/// The journal's name without its ending.
std::string worker_of(const fs::path& journal) { return journal.stem().string(); }

}  // namespace

Scene::Scene(Options options) : options_(std::move(options)), programs_(fs::read_symlink("/proc/self/exe").parent_path()) {
  objective_ = make_objective(options_.objective, std::nullopt, "--objective");
  fs::create_directories(options_.folder);
  write_manifest(options_.folder / "features.json");
}

void Scene::start_daemon() {
  std::vector<std::string> command{(programs_ / "fusiond").string(), "--db", database(), "--listen", "127.0.0.1:" + std::to_string(port_),
                                   "--port-file", (folder() / "port").string(), "--loopback", "same_user"};
  command.insert(command.end(), options_.daemon_options.begin(), options_.daemon_options.end());
  daemon_ = std::make_unique<Program>(command, folder(), folder() / "fusiond.log");
}

void Scene::await_port(std::chrono::seconds limit) {
  const auto end = std::chrono::steady_clock::now() + limit;
  while (!fs::exists(folder() / "port")) {
    if (!daemon_runs() || std::chrono::steady_clock::now() > end) {
      throw DataError((folder() / "fusiond.log").string() + ": the daemon does not start: " + tail_of(folder() / "fusiond.log"));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  port_ = std::stoi(read_text(folder() / "port"));
}

void Scene::start_worker(const std::string& name) {
  std::vector<std::string> command{(programs_ / "fusion-worker").string(), "--connect", url(), "--name", name, "--simulate", options_.objective,
                                   "--journal", (folder() / (name + ".jsonl")).string()};
  command.insert(command.end(), options_.worker_options.begin(), options_.worker_options.end());
  workers_[name] = std::make_unique<Program>(command, folder(), folder() / (name + ".log"));
  if (std::find(names_.begin(), names_.end(), name) == names_.end()) names_.push_back(name);
}

void Scene::submit(const json& study) {
  submitted_name_ = study.at("name").get<std::string>();
  write_atomically(folder() / "study.json", study.dump(2));
  fs::remove(folder() / "submitted");
  submitter_ = std::make_unique<Program>(std::vector<std::string>{(programs_ / "fusionctl").string(), "--url", url(), "submit",
                                                                  (folder() / "study.json").string(), "--json"},
                                         folder(), folder() / "submitted");
}

std::optional<bool> Scene::submission() {
  if (submitter_ == nullptr || !submitter_->status()) return std::nullopt;
  const bool acknowledged = submitter_->status() == 0;
  submitter_.reset();
  const std::string said = fs::exists(folder() / "submitted") ? read_text(folder() / "submitted") : "";
  if (!acknowledged) {
    // Nobody there, or gone before it answered, is what happens here. A study that is refused is a mistake of ours.
    if (said.find("study.json") != std::string::npos) throw DataError(said);
    return false;
  }
  submitted_.emplace_back(StudyId{json::parse(said.substr(std::min(said.find('{'), said.size()))).at("study").at("id").get<std::int64_t>()}, submitted_name_);
  return true;
}

std::optional<std::int64_t> Scene::number(const std::string& sql) const {
  try {
    return StoreReader::open(database()).query(sql, 1, std::chrono::seconds(30)).at("rows").at(0).at(0).get<std::int64_t>();
  } catch (const StoreError&) {
    return std::nullopt;  // not there yet, or its maker was killed before the schema was
  }
}

HistoryWitness Scene::witness() const {
  HistoryWitness witness;
  for (const std::string& name : names_) {
    if (const fs::path journal = folder() / (name + ".jsonl"); fs::exists(journal)) witness.journals.push_back(journal);
  }
  witness.submitted = submitted_;
  witness.objective = objective_;
  return witness;
}

std::vector<std::string> Scene::stop(std::chrono::seconds limit) {
  std::vector<std::string> problems;
  const auto expect_end = [&](const std::string& who, Program& program) {
    const std::optional<int> status = program.wait(limit);
    const bool newcomer = status == 128 + SIGTERM && &program != daemon_.get();  // told before it listened for that
    if (status == 0 || newcomer) return;
    problems.push_back(who + (status ? " ended with status " + std::to_string(*status) : " does not end"));
  };
  for (auto& [name, worker] : workers_) worker->signal(SIGTERM);
  for (auto& [name, worker] : workers_) expect_end("worker " + name, *worker);
  workers_.clear();
  if (daemon_ != nullptr) {
    daemon_->signal(SIGTERM);
    expect_end("the daemon", *daemon_);
    daemon_.reset();
  }
  return problems;
}

std::string Scene::replay(std::chrono::seconds limit) {
  const fs::path log = folder() / "replay";
  Program program({(programs_ / "fusionctl").string(), "replay", database(), "--json"}, folder(), log);
  const std::optional<int> status = program.wait(limit);
  if (!status) return "the replay did not end in time";
  return *status == 0 ? "" : tail_of(log);
}

RunFolder::RunFolder(const std::string& named, const std::string& prefix) : path_(named.empty() ? fs::path() : fs::absolute(named)), own_(named.empty()) {
  if (own_) {
    std::string name = (fs::temp_directory_path() / (prefix + "-XXXXXX")).string();
    if (::mkdtemp(name.data()) == nullptr) throw DataError(name + ": no folder can be made there: " + std::strerror(errno));
    path_ = name;
  } else if (fs::exists(path_) && !fs::is_empty(path_)) {
    throw ConfigError("--folder: " + path_.string() + " is not empty; name a folder that is, or one that is not there");
  }
}

void RunFolder::finish(bool clean) const {
  if (own_ && clean) fs::remove_all(path_);
  else std::fprintf(stderr, "database, journals and logs: %s\n", path_.c_str());
}

std::map<std::string, std::vector<UnixMs>> acknowledgements(const HistoryWitness& witness) {
  std::map<std::string, std::vector<UnixMs>> times;
  for (const fs::path& journal : witness.journals) {
    std::vector<UnixMs>& of_worker = times[worker_of(journal)];
    for (const JournalLine& line : read_journal(journal).lines) {
      const auto* ack = std::get_if<protocol::Ack>(&line.message);
      if (ack != nullptr && !line.sent && ack->what == "result") of_worker.push_back(line.at);
    }
  }
  return times;
}

}  // namespace fusion
