#include "store/database_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <system_error>
#include <utility>

#include "base/error.h"

namespace fusion {
namespace {

std::string system_words(int error) { return std::generic_category().message(error); }

std::string read_pid(int descriptor) {
  char text[32] = {};
  const ssize_t got = ::pread(descriptor, text, sizeof text - 1, 0);
  std::string pid(text, got > 0 ? static_cast<std::size_t>(got) : 0);
  while (!pid.empty() && pid.back() == '\n') pid.pop_back();
  return pid;
}

// The lock file is removed by its owner, so it may be gone, or another one, between open and flock.
bool is_still(int descriptor, const std::string& file) {
  struct stat opened{}, there{};
  return ::fstat(descriptor, &opened) == 0 && ::stat(file.c_str(), &there) == 0 && opened.st_ino == there.st_ino &&
         opened.st_dev == there.st_dev;
}

// A link to a database is the same database: the lock lies beside the file itself.
std::string lock_file_of(const std::string& database_path) {
  std::error_code failed;
  const auto canonical = std::filesystem::weakly_canonical(database_path, failed);
  return (failed ? database_path : canonical.string()) + ".lock";
}

}  // namespace

DatabaseLock::DatabaseLock(const std::string& database_path) : file_(lock_file_of(database_path)) {
  for (;;) {
    const int descriptor = ::open(file_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (descriptor < 0) {
      throw StoreError(database_path + ": its lock file " + file_ + " cannot be made: " + system_words(errno));
    }
    if (::flock(descriptor, LOCK_EX | LOCK_NB) != 0) {
      const int error = errno;
      const std::string pid = read_pid(descriptor);
      ::close(descriptor);
      if (error != EWOULDBLOCK) throw StoreError(file_ + ": cannot be locked: " + system_words(error));
      throw StoreError(database_path + ": another fusiond uses this database (process " + (pid.empty() ? "?" : pid) +
                       " holds " + file_ + "); stop it, or choose another file");
    }
    if (is_still(descriptor, file_)) {
      descriptor_ = descriptor;
      break;
    }
    ::close(descriptor);
  }
  const std::string pid = std::to_string(::getpid()) + "\n";
  if (::ftruncate(descriptor_, 0) != 0 || ::pwrite(descriptor_, pid.data(), pid.size(), 0) < 0) {
    // The process id only helps a person; a full disk is reported by the database itself.
  }
}

DatabaseLock::DatabaseLock(DatabaseLock&& other) noexcept
    : file_(std::move(other.file_)), descriptor_(std::exchange(other.descriptor_, -1)) {}

DatabaseLock::~DatabaseLock() {
  if (descriptor_ < 0) return;
  ::unlink(file_.c_str());
  ::close(descriptor_);
}

}  // namespace fusion
