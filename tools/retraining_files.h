#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "base/asio.h"
#include "tools/received_folder.h"
#include "workers/dispatch/dispatcher.h"
#include "workers/dispatch/request_head.h"

namespace fusion {

/// What a worker that shares no folder with the daemon sends of its retraining, and fetches to go on: `/api/v1/retrainings/<id>/files`
/// (docs/protocol.md, "Files of a retraining").
///
/// Who may is asked of the dispatcher for each piece, and once more before a file gets its name: the worker that holds the attempt now, known by
/// the token of its connection. So nothing of an attempt that is over takes effect. Parts of files that never were complete are removed
/// when their attempt is over.
///
/// Lives on the I/O thread; disks are touched on a thread of its own, one piece after the other. What waits for that is bounded: beyond it the answer
/// is 503, and the worker comes again.
class RetrainingFiles {
 public:
  using Respond = std::function<void(HttpResponse)>;

  /// `dispatcher` must outlive it.
  RetrainingFiles(asio::io_context& io, Dispatcher& dispatcher, const UploadLimits& limits);
  /// Waits for what is being written.
  ~RetrainingFiles();
  RetrainingFiles(const RetrainingFiles&) = delete;
  RetrainingFiles& operator=(const RetrainingFiles&) = delete;

  /// `path`: behind /api/v1/. False if it is none of this class's addresses. Takes the body along. Throws ConfigError for a query that is wrong.
  bool handle(HttpRequest& request, const std::vector<std::string>& path, Respond& respond);
  /// No more timer; what is asked is still answered.
  void stop();

 private:
  using What = protocol::HeldRetraining;
  struct Asked {
    What what;
    std::string token_id, folder;
  };
  /// Runs `work` with the retraining's folder on the thread of files. What it throws becomes the answer; else `done` is called with what it gave, on
  /// the I/O thread.
  template <typename Work, typename Done>
  void on_disk(const Asked& asked, Respond respond, Work work, Done done);
  bool refuse(const Asked& asked, const Respond& respond) const;
  void list(const Asked& asked, bool digests, Respond respond);
  void send(const Asked& asked, const std::string& name, Respond respond);
  void take(const Asked& asked, ReceivedFolder::Piece piece, Respond respond);
  void publish(const Asked& asked, const std::string& name, std::uint64_t bytes, Respond respond);
  void remove(const Asked& asked, const std::string& name, Respond respond);
  void watch(What what);
  void look();
  void forget(RetrainingId id);

  asio::io_context& io_;
  Dispatcher& dispatcher_;
  const UploadLimits limits_;
  std::map<RetrainingId, int> watched_;  // attempts that have sent something
  std::size_t waiting_bytes_ = 0;        // of pieces that are not on disk yet
  asio::steady_timer timer_;
  bool looking_ = false, stopped_ = false;
  std::map<RetrainingId, ReceivedFolder> folders_;  // of the thread of files
  asio::thread_pool disk_{1};
};

}  // namespace fusion
