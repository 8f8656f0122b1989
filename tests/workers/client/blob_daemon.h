#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "workers/client/daemon_url.h"

namespace fusion::testing {

/// A real HTTP server on a loopback port that sends blobs, and does what networks and daemons do at their worst. One thread per connection;
/// set it up before the first request.
class BlobDaemon {
 public:
  BlobDaemon();
  ~BlobDaemon();
  BlobDaemon(const BlobDaemon&) = delete;
  BlobDaemon& operator=(const BlobDaemon&) = delete;

  /// What happens to the n-th request (from 0); afterwards everything is well.
  struct Fault {
    enum class Kind { none, cut, stall, status } kind = Kind::none;
    std::uint64_t after = 0;     ///< bytes of the body; of `status` the status
    std::string bytes{};         ///< sent in place of the blob's, if there are any
  };
  std::map<std::string, std::string> blobs;  ///< digest -> bytes; others are 404
  std::vector<Fault> faults;

  DaemonUrl url() const;
  /// Of each request the digest and what it ranged: "<digest> bytes=5-".
  std::vector<std::string> requests() const;
  /// Bytes of bodies that were handed to the system.
  std::uint64_t sent() const { return sent_; }

 private:
  void accept();
  void serve(int socket);
  void answer(int socket, const std::string& request);
  bool send_all(int socket, const char* data, std::size_t bytes);

  int listener_ = -1;
  std::uint16_t port_ = 0;
  std::atomic<bool> stopping_{false};
  std::atomic<std::uint64_t> sent_{0};
  mutable std::mutex mutex_;
  std::vector<std::string> requests_;
  std::thread acceptor_;
  std::vector<std::thread> connections_;
};

}  // namespace fusion::testing
