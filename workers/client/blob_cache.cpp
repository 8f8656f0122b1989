#include "workers/client/blob_cache.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <thread>
#include <vector>

#include "base/digest.h"
#include "base/files.h"
#include "base/log.h"
#include "workers/client/worker_condition.h"

// What keeps two processes from each other: who wants to write or remove a file holds its flock exclusively, who uses it holds it shared. A name may be
// given to another file while one waits for a lock, so after each lock the name is looked at again (`is_still`).

namespace fusion {

namespace fs = std::filesystem;

namespace {

constexpr std::chrono::milliseconds kWait{100};

std::string system_error_text() { return std::strerror(errno); }

/// Whether `file` is what the name stands for now.
bool is_still(int file, const fs::path& name) {
  struct stat held {}, named {};
  return ::fstat(file, &held) == 0 && ::stat(name.c_str(), &named) == 0 && held.st_ino == named.st_ino && held.st_dev == named.st_dev;
}

/// What it takes on the disk, and will take once it is whole.
std::uint64_t taken(const struct stat& state) {
  return std::max(static_cast<std::uint64_t>(state.st_size), 512 * static_cast<std::uint64_t>(state.st_blocks));
}

void sync_folder(const fs::path& folder) {
  const OwnedFile opened(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!opened || ::fsync(opened.fd()) != 0) throw DataError(folder.string() + ": cannot be synced to disk: " + system_error_text());
}

bool matches(const ManifestFile& what, const fs::path& file) {
  return what.manifest ? is_content_of(what, read_text(file)) : sha256_of_file(file) == what.digest;
}

std::string gigabytes(std::uint64_t bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3f GB", static_cast<double>(bytes) / 1e9);
  return text;
}

struct Entry {
  fs::path file;
  std::uint64_t bytes = 0;
  std::int64_t used_ns = 0;
};

/// The one that was not used for longest first.
std::vector<Entry> entries_of(const fs::path& folder) {
  std::vector<Entry> entries;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    struct stat state {};
    if (::stat(entry.path().c_str(), &state) != 0 || !S_ISREG(state.st_mode)) continue;
    const auto& used = entry.path().extension() == ".part" ? state.st_mtim : state.st_atim;
    entries.push_back({entry.path(), taken(state), used.tv_sec * 1'000'000'000 + used.tv_nsec});
  }
  std::ranges::sort(entries, {}, &Entry::used_ns);
  return entries;
}

/// False if somebody uses it.
bool evict(const Entry& entry) {
  const OwnedFile file(::open(entry.file.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file || ::flock(file.fd(), LOCK_EX | LOCK_NB) != 0 || !is_still(file.fd(), entry.file)) return false;
  logger("worker")->info("blob evicted blob={} bytes={}", entry.file.filename().string(), entry.bytes);
  return ::unlink(entry.file.c_str()) == 0;
}

}  // namespace

OwnedFile::~OwnedFile() {
  if (fd_ >= 0) ::close(fd_);
}

BlobCache::BlobCache(fs::path folder, std::uint64_t limit_bytes) : folder_(fs::absolute(folder)), limit_(limit_bytes) {
  std::error_code error;
  fs::create_directories(folder_.parent_path(), error);
  ::mkdir(folder_.c_str(), 0700);
  struct stat state {};
  if (::stat(folder_.c_str(), &state) != 0 || !S_ISDIR(state.st_mode)) {
    throw ConfigError("--cache: " + folder_.string() + " cannot be made a folder: " + system_error_text() + "; name one that this user may write");
  }
  if (state.st_uid != ::geteuid() || (state.st_mode & 022) != 0) {
    throw ConfigError("--cache: " + folder_.string() + " is somebody else's, or others may write it; name a folder of this user's own");
  }
  ::mkdir((folder_ / "blobs").c_str(), 0700);
  if (::access((folder_ / "blobs").c_str(), W_OK) != 0) {
    throw ConfigError("--cache: " + folder_.string() + " cannot be written: " + system_error_text());
  }
}

std::optional<CachedBlob> BlobCache::find(const std::string& digest) const {
  const fs::path name = blob(digest);
  while (true) {
    OwnedFile file(::open(name.c_str(), O_RDONLY | O_CLOEXEC));
    if (!file) return std::nullopt;
    if (::flock(file.fd(), LOCK_SH) != 0) throw DataError(name.string() + ": cannot be locked: " + system_error_text());
    if (!is_still(file.fd(), name)) continue;
    const timespec times[2] = {{0, UTIME_NOW}, {0, UTIME_OMIT}};
    ::futimens(file.fd(), times);
    return CachedBlob{std::move(file), name};
  }
}

/// Nothing while another process fetches it.
std::optional<OwnedFile> BlobCache::lock_part(const std::string& digest) const {
  const fs::path name = part(digest);
  OwnedFile file(::open(name.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!file) throw DataError(name.string() + ": cannot be opened for writing: " + system_error_text());
  if (::flock(file.fd(), LOCK_EX | LOCK_NB) != 0 || !is_still(file.fd(), name)) return std::nullopt;
  return file;
}

CachedBlob BlobCache::get(const ManifestFile& what, BlobFetcher& fetcher, const std::function<bool()>& stopped) {
  while (true) {
    if (auto found = find(what.digest)) return std::move(*found);
    if (stopped && stopped()) throw FetchStopped();
    const auto file = lock_part(what.digest);
    if (!file) {
      std::this_thread::sleep_for(kWait);
      continue;
    }
    if (fs::exists(blob(what.digest))) {  // it became whole between the two looks
      ::unlink(part(what.digest).c_str());
      continue;
    }
    fetch_whole(what, *file, fetcher, stopped);
  }
}

void BlobCache::fetch_whole(const ManifestFile& what, const OwnedFile& file, BlobFetcher& fetcher, const std::function<bool()>& stopped) const {
  const fs::path from = part(what.digest);
  BlobFetcher::Hooks hooks;
  hooks.stopped = stopped;
  hooks.on_size = [&](std::uint64_t bytes) { make_room(what.digest, file.fd(), bytes); };
  for (int round = 1;; ++round) {
    const auto begun = std::chrono::steady_clock::now();
    const std::uint64_t before = fetcher.received();
    fetcher.fetch(what.digest, file.fd(), hooks);
    if (::fsync(file.fd()) != 0) throw DataError(from.string() + ": cannot be synced to disk: " + system_error_text());
    const bool good = matches(what, from);
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
    logger("worker")->info("blob fetched blob={} bytes={} received_bytes={} seconds={:.3f} matches={}", what.digest, fs::file_size(from),
                           fetcher.received() - before, seconds, good);
    if (good) break;
    if (::ftruncate(file.fd(), 0) != 0) throw DataError(from.string() + ": cannot begin anew: " + system_error_text());
    if (round < 2) continue;
    ::unlink(from.c_str());
    throw UnreadableData("what the daemon at " + fetcher.options().url.text() + " sends for \"" + what.path + "\" does not have the digest " + what.digest +
                         " that the manifest names, fetched twice; the daemon's file was changed or damaged, make it again with fusion-data");
  }
  if (::rename(from.c_str(), blob(what.digest).c_str()) != 0) throw DataError(from.string() + ": cannot be renamed: " + system_error_text());
  sync_folder(from.parent_path());
}

// `bytes`: of the whole file. What is reserved for it counts as taken, so that two who fetch do not count on the same room.
void BlobCache::make_room(const std::string& digest, int file, std::uint64_t bytes) const {
  const OwnedFile lock(::open((folder_ / "lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!lock || ::flock(lock.fd(), LOCK_EX) != 0) throw DataError((folder_ / "lock").string() + ": cannot be locked: " + system_error_text());
  const fs::path own = part(digest);
  std::vector<Entry> entries = entries_of(folder_ / "blobs");
  std::erase_if(entries, [&own](const Entry& entry) { return entry.file == own; });
  std::uint64_t sum = bytes;
  for (const Entry& entry : entries) sum += entry.bytes;
  for (const Entry& entry : entries) {
    if (sum <= limit_) break;
    if (evict(entry)) sum -= entry.bytes;
  }
  if (sum > limit_) {
    throw UnreadableData("the cache " + folder_.string() + " has no room for a blob of " + gigabytes(bytes) + ": " + gigabytes(sum - bytes) + " of its " +
                         gigabytes(limit_) + " are in use; give it more with --cache-gb");
  }
  if (::fallocate(file, FALLOC_FL_KEEP_SIZE, 0, static_cast<off_t>(bytes)) == 0 || errno == EOPNOTSUPP || errno == EINTR || bytes == 0) return;
  throw UnreadableData("the disk of the cache " + folder_.string() + " has no room for a blob of " + gigabytes(bytes) + ": " + system_error_text());
}

bool BlobCache::drop_if_damaged(const ManifestFile& what) const {
  const fs::path name = blob(what.digest);
  if (!fs::exists(name) || matches(what, name)) return false;
  logger("worker")->warn("blob damaged on disk, removed blob={}", what.digest);
  return ::unlink(name.c_str()) == 0;
}

std::uint64_t BlobCache::bytes() const {
  std::uint64_t sum = 0;
  for (const Entry& entry : entries_of(folder_ / "blobs")) sum += entry.bytes;
  return sum;
}

}  // namespace fusion
