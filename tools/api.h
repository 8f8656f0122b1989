#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/asio.h"
#include "base/clock.h"
#include "tools/backup_host.h"
#include "tools/blob_table.h"
#include "tools/reader_pool.h"
#include "tools/retraining_files.h"
#include "tools/retraining_host.h"
#include "tools/study_host.h"
#include "workers/dispatch/dispatcher.h"
#include "workers/dispatch/server.h"

namespace fusion {

/// The HTTP API of docs/protocol.md and docs/operations.md: turns a request into a query on a reader, or a call of the study host, and its answer into JSON.
/// Lives on the I/O thread; nothing here blocks.
class Api {
 public:
  struct Parts {
    asio::any_io_executor io;
    ReaderPool& readers;
    StudyHost& studies;
    RetrainingHost& retrainings;
    RetrainingFiles& files;
    Dispatcher& dispatcher;
    BackupHost& backups;
    GroupCommit& store;
    std::string database;
    SteadyTime started;
    std::vector<std::filesystem::path> data_roots;
    std::function<void(bool drain_workers)> shutdown;
    std::function<std::optional<std::string>()> not_ready;  ///< why the daemon takes no work now; nothing while it does
    std::function<ServerCounts()> server;
    std::function<nlohmann::json()> pools;  ///< docs/protocol.md, "pool"
  };
  explicit Api(Parts parts) : parts_(std::move(parts)) {}

  void handle(HttpRequest request, std::function<void(HttpResponse)> respond);

 private:
  using Respond = std::function<void(HttpResponse)>;
  bool route_studies(const HttpRequest& request, const std::vector<std::string>& path, Respond& respond);
  bool route_one_study(const HttpRequest& request, StudyId id, const std::vector<std::string>& path, Respond& respond);
  bool route_retrainings(const HttpRequest& request, const std::vector<std::string>& path, Respond& respond);
  bool route_one_retraining(const HttpRequest& request, RetrainingId id, const std::vector<std::string>& path, Respond& respond);
  bool route_operations(const HttpRequest& request, const std::vector<std::string>& path, Respond& respond);
  bool route_blobs(const HttpRequest& request, const std::vector<std::string>& path, Respond& respond);
  bool route_rest(const HttpRequest& request, const std::vector<std::string>& path, Respond& respond);
  void submit(const HttpRequest& request, Respond respond);
  void fork(const HttpRequest& request, StudyId id, Respond respond);
  void change(StudyId id, StudyAction action, Respond respond);
  void one_study(StudyId id, int status, Respond respond);
  void ready(Respond respond);
  std::string metrics() const;
  void submit_retraining(const HttpRequest& request, Respond respond);
  void change(RetrainingId id, RetrainingAction action, Respond respond);
  void one_retraining(RetrainingId id, int status, Respond respond);
  void artifact(RetrainingId id, const std::string& name, Respond respond);
  void query(const HttpRequest& request, Respond respond);
  void backup(Respond respond);
  void shutdown(const HttpRequest& request, Respond respond);
  /// A reader's answer under `key` (or as it is where key is empty); null becomes 404 with `missing`.
  void read(std::function<nlohmann::json(const StoreReader&)> work, std::string key, std::string missing, Respond respond, Asker asker = Asker::page);
  nlohmann::json with_totals(nlohmann::json study) const;

  Parts parts_;
  std::vector<Respond> ask_ready_;  // waiting for one answer of the store
  std::shared_ptr<const BlobTable> blobs_ = std::make_shared<BlobTable>();  ///< looked at anew when a digest is asked for that is not in it
};

}  // namespace fusion
