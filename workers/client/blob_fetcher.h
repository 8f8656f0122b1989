#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "base/error.h"
#include "workers/client/daemon_url.h"

namespace fusion {

/// Somebody asked for the end of a fetch, which ends it.
class FetchStopped : public Error {
 public:
  FetchStopped() : Error("the fetch was stopped") {}
};

struct BlobFetcherOptions {
  DaemonUrl url;
  std::string token;    ///< sent as `Authorization: Bearer` where it is not empty
  std::string ca_file;  ///< for https: what is trusted, PEM; empty: the system's authorities
  std::chrono::milliseconds silence{20'000};    ///< a connection from which nothing comes for so long is given up, and made anew
  std::chrono::milliseconds patience{180'000};  ///< without one more byte for so long: the fetch is given up
  std::chrono::milliseconds backoff_min{200}, backoff_max{10'000};  ///< between tries, doubled each time that brought nothing
};

/// Fetches files from the daemon, by digest (`/api/v1/blobs/<digest>`, docs/protocol.md) or from another of its addresses, one at a time, each on a
/// connection of its own.
///
/// What is there already is kept: a file that is partly on disk is asked for from its end on, also after the process was killed. A connection that
/// stalls, breaks or is refused, and a daemon that is away, are waited for and tried again. Bytes are written as they come; whether they
/// are the right ones is the caller's to check. Blocks; one thread at a time.
class BlobFetcher {
 public:
  /// Throws ConfigError for a `ca_file` that is none.
  explicit BlobFetcher(BlobFetcherOptions options);
  ~BlobFetcher();
  BlobFetcher(const BlobFetcher&) = delete;
  BlobFetcher& operator=(const BlobFetcher&) = delete;

  struct Hooks {
    std::function<bool()> stopped;                    ///< asked ten times a second; true: throw FetchStopped
    std::function<void(std::uint64_t bytes)> on_size; ///< the whole file's, known before any of it is written; may throw
  };
  /// Goes on behind what `file` (open for writing) holds, until it is whole. Throws UnreadableData with a sentence: the daemon has no such blob, refuses
  /// this worker, or was silent for `patience`; DataError where the disk refuses; FetchStopped.
  void fetch(const std::string& digest, int file, const Hooks& hooks);
  /// Something that is to be had from the daemon.
  struct Source {
    std::string target;  ///< "/api/v1/...", without the prefix of the daemon's URL
    std::string name;    ///< for sentences: "blob <digest>"
    std::string tag{};   ///< if there is one: what is asked for is the rest of this one, or the whole of another
  };
  void fetch(const Source& source, int file, const Hooks& hooks);

  /// Bytes that came over the network, in all.
  std::uint64_t received() const { return received_; }
  const BlobFetcherOptions& options() const { return options_; }

 private:
  struct Attempt;
  bool try_once(Attempt& attempt, const Hooks& hooks);

  BlobFetcherOptions options_;
  struct Trust;
  std::unique_ptr<Trust> trust_;
  std::uint64_t received_ = 0;
};

}  // namespace fusion
