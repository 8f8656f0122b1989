#include "base/files.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <sstream>

namespace fusion {

namespace {

DataError failure(const std::filesystem::path& file, std::string_view what) {
  return DataError(file.string() + ": " + std::string(what) + ": " + std::strerror(errno));
}

void sync_path(const std::filesystem::path& path, int flags) {
  const int fd = ::open(path.c_str(), flags | O_CLOEXEC);
  if (fd < 0) throw failure(path, "cannot be opened to sync it");
  const int rc = ::fsync(fd);
  ::close(fd);
  if (rc != 0) throw failure(path, "cannot be synced to disk");
}

}  // namespace

std::string read_text(const std::filesystem::path& file) {
  if (std::filesystem::is_directory(file)) throw DataError(file.string() + ": is a folder, a file was expected");
  std::ifstream stream(file, std::ios::binary);
  if (!stream) throw failure(file, "cannot be opened for reading");
  std::ostringstream text;
  text << stream.rdbuf();
  if (stream.bad()) throw failure(file, "reading failed");
  return std::move(text).str();
}

void write_atomically(const std::filesystem::path& file, std::string_view text) {
  write_atomically(file,
                   [&](std::ostream& out) { out.write(text.data(), static_cast<std::streamsize>(text.size())); });
}

void write_atomically(const std::filesystem::path& file, const std::function<void(std::ostream&)>& write) {
  const std::filesystem::path folder = file.has_parent_path() ? file.parent_path() : ".";
  std::error_code ignored;
  std::filesystem::create_directories(folder, ignored);
  std::filesystem::path temporary = file;
  temporary += ".tmp." + std::to_string(::getpid());
  try {
    {
      std::ofstream stream(temporary, std::ios::binary | std::ios::trunc);
      if (!stream) throw failure(temporary, "cannot be opened for writing");
      write(stream);
      stream.flush();
      if (!stream) throw failure(temporary, "writing failed");
    }
    sync_path(temporary, O_RDONLY);
    if (::rename(temporary.c_str(), file.c_str()) != 0) throw failure(file, "cannot be replaced");
    sync_path(folder, O_RDONLY | O_DIRECTORY);
  } catch (...) {
    std::filesystem::remove(temporary, ignored);
    throw;
  }
}

void publish_file(const std::filesystem::path& finished, const std::filesystem::path& name, bool replace) {
  sync_path(finished, O_RDONLY);
  int failed = ::renameat2(AT_FDCWD, finished.c_str(), AT_FDCWD, name.c_str(), replace ? 0 : RENAME_NOREPLACE);
  if (failed != 0 && errno == EINVAL && !replace) {  // a file system that cannot refuse by itself
    errno = EEXIST;
    failed = std::filesystem::exists(std::filesystem::symlink_status(name)) ? -1 : ::rename(finished.c_str(), name.c_str());
  }
  if (failed != 0) throw failure(name, errno == EEXIST ? "is not replaced" : "cannot get its name");
  sync_path(name.has_parent_path() ? name.parent_path() : ".", O_RDONLY | O_DIRECTORY);
}

std::shared_ptr<const MappedFile> MappedFile::open(const std::filesystem::path& file) {
  const int fd = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) throw failure(file, "cannot be opened for reading");
  struct stat info{};
  if (::fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    ::close(fd);
    throw DataError(file.string() + ": is not a regular file");
  }
  std::shared_ptr<MappedFile> mapped(new MappedFile());
  mapped->path_ = file;
  mapped->size_ = static_cast<std::size_t>(info.st_size);
  if (mapped->size_ > 0) {
    void* base = ::mmap(nullptr, mapped->size_, PROT_READ, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED) {
      ::close(fd);
      throw failure(file, "cannot be mapped into memory");
    }
    mapped->data_ = static_cast<const std::byte*>(base);
  }
  ::close(fd);
  return mapped;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

}  // namespace fusion
