#include "security/private_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "base/error.h"
#include "base/files.h"

namespace fusion {

namespace {

namespace fs = std::filesystem;

fs::path folder_of(const fs::path& file) { return file.has_parent_path() ? file.parent_path() : fs::path("."); }

DataError failure(const fs::path& file, const std::string& what) {
  return DataError(file.string() + ": " + what + ": " + std::strerror(errno));
}

void write_whole(int fd, std::string_view text, const fs::path& file) {
  while (!text.empty()) {
    const ssize_t written = ::write(fd, text.data(), text.size());
    if (written < 0 && errno != EINTR) throw failure(file, "writing failed");
    if (written > 0) text.remove_prefix(static_cast<std::size_t>(written));
  }
  if (::fsync(fd) != 0) throw failure(file, "cannot be synced to disk");
}

void create_private_folder(const fs::path& folder) {
  if (fs::exists(folder)) return;
  std::error_code ignored;
  fs::create_directories(folder, ignored);
  fs::permissions(folder, fs::perms::owner_all, ignored);
}

}  // namespace

void write_private(const fs::path& file, std::string_view text, bool replace) {
  create_private_folder(folder_of(file));
  const std::string temporary = file.string() + ".tmp." + std::to_string(::getpid());
  ::unlink(temporary.c_str());
  const int fd = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (fd < 0) throw failure(temporary, "cannot be created");
  try {
    write_whole(fd, text, temporary);
    // link() refuses a name that is taken, rename() replaces it
    if (replace ? ::rename(temporary.c_str(), file.c_str()) != 0 : ::link(temporary.c_str(), file.c_str()) != 0) {
      if (errno == EEXIST) throw ConfigError(file.string() + " is there already; it is replaced with --force only");
      throw failure(file, "cannot be written");
    }
  } catch (...) {
    ::close(fd);
    ::unlink(temporary.c_str());
    throw;
  }
  ::close(fd);
  if (!replace) ::unlink(temporary.c_str());
  const int folder = ::open(folder_of(file).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder >= 0) {
    ::fsync(folder);
    ::close(folder);
  }
}

std::string read_private(const fs::path& file, const std::string& what) {
  struct stat status {};
  if (::stat(file.c_str(), &status) != 0) throw failure(file, "cannot be read");
  if ((status.st_mode & 077) != 0) {
    char mode[8];
    std::snprintf(mode, sizeof mode, "%04o", static_cast<unsigned>(status.st_mode & 07777));
    throw ConfigError(file.string() + ": others may read or write this file of " + what + " (its mode is " + mode +
                      "); expected 0600 (chmod 600 " + file.string() + ")");
  }
  return read_text(file);
}

FolderLock::FolderLock(const fs::path& file) {
  create_private_folder(folder_of(file));
  fd_ = ::open(folder_of(file).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd_ < 0) throw failure(folder_of(file), "cannot be opened");
  while (::flock(fd_, LOCK_EX) != 0 && errno == EINTR) {
  }
}

FolderLock::~FolderLock() { ::close(fd_); }

}  // namespace fusion
