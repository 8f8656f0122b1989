#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/id.h"
#include "tools/crash/history_check.h"
#include "tools/crash/program.h"

namespace fusion {

/// A daemon and its simulated workers as real processes in one folder: their database, their journals, their logs. Whoever owns it kills
/// and starts them. One thread.
class Scene {
 public:
  struct Options {
    std::filesystem::path folder;           ///< made if it is not there
    std::string objective = "formula";      ///< of the workers' --simulate
    std::vector<std::string> worker_options;  ///< further ones, of all workers
    std::vector<std::string> daemon_options;
  };
  /// Writes the manifest of features that studies name as `features.json`: AV-MNIST's taps, without files. Workers never open them.
  explicit Scene(Options options);

  const std::filesystem::path& folder() const { return options_.folder; }
  std::string database() const { return (options_.folder / "fusion.db").string(); }

  /// Starts the daemon: on any port the first time, on the same one ever after. Does not wait for it.
  void start_daemon();
  /// Waits for the first start's port. Throws DataError with the daemon's last words if there is none.
  void await_port(std::chrono::seconds limit);
  Program* daemon() { return daemon_.get(); }
  bool daemon_runs() { return daemon_ != nullptr && !daemon_->status(); }

  /// Starts a worker of this name; one that had it before must have ended.
  void start_worker(const std::string& name);
  std::map<std::string, std::unique_ptr<Program>>& workers() { return workers_; }

  /// Begins to submit a study; `submission` says what came of it. One at a time.
  void submit(const nlohmann::json& study);
  bool submitting() const { return submitter_ != nullptr; }
  /// Nothing while it is under way. Ended: true if the daemon acknowledged the study, which is then among the witness' `submitted`.
  std::optional<bool> submission();

  /// A number of the database, read beside whoever writes; nullopt while there is no database.
  std::optional<std::int64_t> number(const std::string& sql) const;
  HistoryWitness witness() const;

  /// SIGTERM to all workers, then to the daemon. Returns a sentence for each that did not end with status 0 in time.
  std::vector<std::string> stop(std::chrono::seconds limit);
  /// `fusionctl replay` of the whole database: empty if identical, else what it said.
  std::string replay(std::chrono::seconds limit);

 private:
  std::string url() const { return "http://127.0.0.1:" + std::to_string(port_); }

  Options options_;
  std::filesystem::path programs_;
  std::shared_ptr<const SimulatedObjective> objective_;
  std::unique_ptr<Program> daemon_;
  std::map<std::string, std::unique_ptr<Program>> workers_;
  std::vector<std::string> names_;  // of all workers there ever were
  std::unique_ptr<Program> submitter_;
  std::string submitted_name_;
  std::vector<std::pair<StudyId, std::string>> submitted_;
  int port_ = 0;
};

/// Where a run keeps its files: a folder that is named, which must be empty, or a new one among the temporary files.
class RunFolder {
 public:
  /// Throws ConfigError for one that is not empty.
  RunFolder(const std::string& named, const std::string& prefix);
  const std::filesystem::path& path() const { return path_; }
  /// A new one is removed if `clean`; else people are told where it is.
  void finish(bool clean) const;

 private:
  std::filesystem::path path_;
  bool own_;
};

/// When a worker saw a result acknowledged, in the order of time; of each journal by itself.
std::map<std::string, std::vector<UnixMs>> acknowledgements(const HistoryWitness& witness);

}  // namespace fusion
