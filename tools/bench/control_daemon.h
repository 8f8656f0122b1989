#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace fusion::bench {

/// A folder of one run, gone with it.
class BenchFolder {
 public:
  /// Below `parent`, which must be there.
  explicit BenchFolder(const std::filesystem::path& parent);
  ~BenchFolder();
  BenchFolder(const BenchFolder&) = delete;
  BenchFolder& operator=(const BenchFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

/// A real fusiond in a process of its own, on a free port. Killed (SIGKILL) by the destructor: what it acknowledged must be in the
/// database all the same.
class ControlDaemon {
 public:
  /// Starts it on `folder/fusion.db` and waits until its port is told. Throws Error with its log where it ends before.
  ControlDaemon(const std::string& program, const std::filesystem::path& folder, const std::vector<std::string>& more = {});
  ~ControlDaemon();
  ControlDaemon(const ControlDaemon&) = delete;
  ControlDaemon& operator=(const ControlDaemon&) = delete;

  std::uint16_t port() const { return port_; }
  /// From fork to a connection that was accepted.
  double ready_ms() const { return ready_ms_; }
  /// User and system time of all its threads, seconds; of the I/O thread (its main thread) alone.
  double cpu_s() const;
  double io_cpu_s() const;
  double resident_mb() const;
  void kill();

  /// One request on a connection of its own; throws Error for another status than 2xx.
  nlohmann::json get(const std::string& target) const;
  nlohmann::json post(const std::string& target, const nlohmann::json& body) const;

 private:
  pid_t pid_ = -1;
  std::uint16_t port_ = 0;
  double ready_ms_ = 0;
};

/// A keep-alive HTTP connection, blocking; for threads that measure queries. Throws Error, or boost's system_error.
class HttpClient {
 public:
  explicit HttpClient(std::uint16_t port);
  ~HttpClient();
  /// The body of the answer; `status` is told if asked for.
  std::string request(const std::string& method, const std::string& target, const std::string& body = "", int* status = nullptr);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Name of the file system below a folder, and how many times a second 4 KiB can be appended to a file there and synced.
struct Disk {
  std::string file_system;
  double syncs_per_s = 0;
};
Disk measure_disk(const std::filesystem::path& folder);

}  // namespace fusion::bench
