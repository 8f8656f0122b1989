#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "base/id.h"
#include "workers/client/daemon_http.h"

namespace fusion {

/// The daemon does not do it, for good: a sentence, and the HTTP status. 409 and 403: the attempt is not this worker's any more.
class RemoteRefused : public Error {
 public:
  RemoteRefused(unsigned status_, const std::string& sentence) : Error(sentence), status(status_) {}
  const unsigned status;
  bool is_over() const { return status == 409 || status == 403; }
};

/// The folder of a retraining on the daemon's host, for the worker that holds an attempt of it, over HTTP (docs/protocol.md, "Files of a retraining").
///
/// Whatever passes is waited out, for ever: a network that stalls or breaks, a daemon that is restarted. A disk that is full is waited for as long as
/// the fetcher's `patience`. Files are read and written piece by piece. Blocks; one thread at a time. Each call throws RemoteRefused and, when
/// `stopped` says so, FetchStopped.
class RemoteFolder {
 public:
  using Stopped = std::function<bool()>;
  struct File {
    std::string name;
    std::uint64_t bytes = 0;
    std::string sha256;  ///< empty where it was not asked for
  };
  struct Listing {
    std::string mark;         ///< what `.mark` in the folder says
    std::vector<File> files;  ///< the newest first
  };

  /// Throws ConfigError.
  RemoteFolder(const BlobFetcherOptions& daemon, RetrainingId retraining, int attempt);

  Listing list(bool digests, const Stopped& stopped);
  /// Puts it into `folder`, under its name in one step. Throws UnreadableData where that cannot be done, or where what comes has another digest.
  void fetch(const File& file, const std::filesystem::path& folder, const Stopped& stopped);
  /// Sends the file under its name, piece by piece, behind what the daemon has of it. The file may be replaced or removed meanwhile. Throws DataError
  /// where it cannot be read.
  File send(const std::filesystem::path& file, const Stopped& stopped);
  void remove(const std::string& name, const Stopped& stopped);

  /// Bytes that were sent, in all; those that were sent in vain too.
  std::uint64_t sent() const { return sent_; }

 private:
  using Body = std::function<std::string()>;
  HttpReply ask(const std::string& method, const std::string& target, const Body& body, const Stopped& stopped);
  void shrink_pieces();
  std::string target(const std::string& name, const std::string& more = "") const;
  std::uint64_t send_piece(int fd, const File& file, std::uint64_t begin, bool& done, const Stopped& stopped);

  BlobFetcherOptions options_;
  RetrainingId retraining_;
  int attempt_;
  DaemonHttp http_;
  BlobFetcher fetcher_;
  std::size_t piece_;  // bytes that are sent at once: more on a good network, fewer on a bad one
  std::uint64_t sent_ = 0;
};

}  // namespace fusion
