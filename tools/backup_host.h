#pragma once

#include <atomic>
#include <exception>
#include <functional>
#include <memory>
#include <string>

#include "base/asio.h"

namespace fusion {

/// A finished copy that has no name in any folder: it is gone when this is, however that comes about.
class BackupFile {
 public:
  /// Takes the name away from the file. Throws StoreError.
  explicit BackupFile(const std::string& named);
  ~BackupFile();
  BackupFile(const BackupFile&) = delete;
  BackupFile& operator=(const BackupFile&) = delete;
  /// By which this process can open it.
  std::string path() const { return "/proc/self/fd/" + std::to_string(descriptor_); }

 private:
  int descriptor_;
};

/// Copies the database for those who ask, one copy at a time, on a thread of its own: a large one takes seconds, and neither the writer
/// nor queries may wait for it. The copy is made beside the database, as `<database>.backup`, and loses its name as soon as it is made.
///
/// Lives on the I/O thread.
class BackupHost {
 public:
  using Done = std::function<void(std::shared_ptr<const BackupFile> file, std::exception_ptr error)>;

  BackupHost(asio::any_io_executor io, std::string database) : io_(std::move(io)), database_(std::move(database)) {}
  ~BackupHost();  ///< as stop(), and waits for the thread

  /// `done` on the I/O thread. False, and nothing is done, while another copy is being made.
  bool make(Done done);
  /// A copy that is being made ends with an error.
  void stop() { stopping_ = true; }

 private:
  std::shared_ptr<const BackupFile> copy() const;

  const asio::any_io_executor io_;
  const std::string database_;
  bool busy_ = false;
  std::atomic<bool> stopping_ = false;
  asio::thread_pool thread_{1};
};

}  // namespace fusion
