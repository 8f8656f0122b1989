#pragma once

#include <exception>
#include <filesystem>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/asio.h"
#include "store/group_commit.h"
#include "tools/retraining_document.h"
#include "workers/dispatch/dispatcher.h"

namespace fusion {

enum class RetrainingAction { pause, resume, cancel };

/// Carries retrainings between the API, the store and the dispatcher. Lives on the I/O thread; answers come back there, after the commit.
class RetrainingHost {
 public:
  using Failed = std::exception_ptr;

  /// Documents are read on `search`. `artifacts`: absolute.
  RetrainingHost(asio::any_io_executor io, asio::thread_pool& search, GroupCommit& store, Dispatcher& dispatcher,
                 std::vector<std::filesystem::path> data_roots, std::filesystem::path artifacts);

  /// Takes up what was found in the database and is not final. `times`: of their epochs so far (tools/epoch_history.h).
  void take_up(const std::vector<RetrainingRecord>& records, std::map<RetrainingId, EpochTimes> times);
  /// Checks a request, stores and queues the retraining. `done` gets its id, or the exception (ConfigError: the request is wrong).
  void submit(nlohmann::json document, std::function<void(RetrainingId, Failed)> done);
  void change(RetrainingId id, RetrainingAction action, std::function<void(RetrainingChange, Failed)> done);
  const std::filesystem::path& artifacts() const { return artifacts_; }

 private:
  void parse(nlohmann::json document, RetrainingSource source, std::function<void(RetrainingId, Failed)> done);
  void store_parsed(NewRetraining retraining, std::function<void(RetrainingId, Failed)> done);

  asio::any_io_executor io_;
  asio::thread_pool& search_;
  GroupCommit& store_;
  Dispatcher& dispatcher_;
  std::vector<std::filesystem::path> data_roots_;
  std::filesystem::path artifacts_;
};

}  // namespace fusion
