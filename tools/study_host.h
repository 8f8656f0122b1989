#pragma once

#include <exception>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "base/asio.h"
#include "search/controller.h"
#include "store/group_commit.h"
#include "store/store_reader.h"
#include "tools/fork_document.h"
#include "tools/study_document.h"
#include "workers/dispatch/dispatcher.h"

namespace fusion {

/// What became of a request to change a study.
enum class ChangeResult { done, unknown_study, not_allowed };
enum class StudyAction { pause, resume, cancel };

/// All studies of a daemon: makes a controller for each that runs, carries values between controllers, store and dispatcher.
///
/// Lives on the I/O thread; controllers live on strands of `search`. Answers come back on the I/O thread, after the commit.
class StudyHost {
 public:
  using Failed = std::exception_ptr;

  /// `database` is the file that `store` writes.
  StudyHost(asio::any_io_executor io, asio::thread_pool& search, GroupCommit& store, Dispatcher& dispatcher,
            std::vector<std::filesystem::path> data_roots, std::string database);

  /// Takes up a study found in the database: it is known at once (to the dispatcher too); its trials are read on its strand, over a
  /// read-only connection, so that workers that come back and clients are served meanwhile. Final studies are ignored.
  void take_up(StudyRecord study);

  /// Checks a document on the search threads; stores and starts it unless `validate_only`. `done` gets the summary of
  /// parse_study, with the member `study` (its id) where it was stored; or the exception (ConfigError: the document is wrong).
  void submit(nlohmann::json document, bool validate_only, std::function<void(nlohmann::json, Failed)> done);

  /// Checks the request (tools/fork_document.h) on the search threads, stores the fork with what it inherits, starts it. `done` gets the
  /// summary of the study with its id as `submit` gives it, null where there is no such study; or the exception.
  void fork(StudyId parent, ForkRequest request, std::function<void(nlohmann::json, Failed)> done);

  /// pause, resume (also of a failed study), cancel.
  void change(StudyId id, StudyAction action, std::function<void(ChangeResult, Failed)> done);

  /// The dispatcher's word that a trial is final, in the order of told_index.
  void on_ended(const Ended& ended);

  /// The dispatcher's word that a study was paused in the store because it fails and fails.
  void on_paused(StudyId id, const std::string& why);

  /// Proposals there will be in all; nullopt where unknown or the study does not run.
  std::optional<std::uint64_t> total(StudyId id) const;

  /// Nothing new is proposed any more; the daemon stops.
  void stop();

 private:
  using Strand = asio::strand<asio::thread_pool::executor_type>;
  struct Runtime {
    StudyRecord record;
    Strand strand;
    std::shared_ptr<Controller> controller;
    std::optional<std::uint64_t> total;
    std::vector<Ended> early;  ///< before the controller was made: results that came in while its trials were read
  };
  enum class Trials { none, stored };
  void start(StudyRecord record, Trials trials);
  void read_history(const StudyRecord& record, const Strand& strand, int attempt);
  void make_controller(const StudyRecord& record, const StudyHistory& history, const Strand& strand);
  void post_broken(StudyId id, const std::vector<Trial>& trials);
  void made(StudyId id, const std::shared_ptr<Controller>& controller, const Strand& strand, std::optional<std::uint64_t> total);
  void tell(const Runtime& runtime, const Ended& ended);
  Controller::Hooks hooks(StudyId id);
  void store_fork(ParsedFork parsed, std::function<void(nlohmann::json, Failed)> done);
  void store_submitted(ParsedStudy parsed, std::function<void(nlohmann::json, Failed)> done);
  void restart(StudyId id, std::function<void(ChangeResult, Failed)> done);
  void apply(StudyId id, StudyState state);
  void broken(StudyId id, std::exception_ptr error);
  void forget(StudyId id);

  asio::any_io_executor io_;
  asio::thread_pool& search_;
  GroupCommit& store_;
  Dispatcher& dispatcher_;
  std::vector<std::filesystem::path> data_roots_;
  std::string database_;
  std::map<StudyId, Runtime> studies_;
};

}  // namespace fusion
