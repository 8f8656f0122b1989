#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>

#include "space/manifest_files.h"
#include "workers/client/blob_fetcher.h"

namespace fusion {

/// A file descriptor that is closed with it; what it has locked is unlocked then, also by a kill.
class OwnedFile {
 public:
  explicit OwnedFile(int fd = -1) : fd_(fd) {}
  ~OwnedFile();
  OwnedFile(OwnedFile&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  OwnedFile& operator=(OwnedFile&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  int fd() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }

 private:
  int fd_;
};

/// A blob in the cache that is not evicted as long as this lives.
struct CachedBlob {
  OwnedFile lock;
  std::filesystem::path file;
};

/// Files by digest in a folder, fetched where they are not there, up to a limit of bytes.
///
///     <folder>/blobs/<digest>        whole, and verified when it came
///     <folder>/blobs/<digest>.part   as far as it came; the next fetch goes on behind it
///     <folder>/lock                  held while room is made
///
/// Workers of one host share a folder: locks (flock) keep two from fetching the same blob, and keep what one uses from being evicted by another;
/// a kill gives them back. A blob appears under its name in one step, synced before. Evicted is what was not used for longest and is not in
/// use. One thread at a time for each object.
class BlobCache {
 public:
  /// Makes the folder (mode 0700). Throws ConfigError where that fails, or where it is somebody else's.
  BlobCache(std::filesystem::path folder, std::uint64_t limit_bytes);

  /// The blob, if it is there; it counts as used now.
  std::optional<CachedBlob> find(const std::string& digest) const;
  /// The blob; fetched if it is not there. One whose bytes are not what the digest names is fetched a second time from its begin. Throws
  /// UnreadableData if these are not either, or if there is no room for it, and what the fetcher throws.
  CachedBlob get(const ManifestFile& what, BlobFetcher& fetcher, const std::function<bool()>& stopped);
  /// Reads a blob whole and removes it if its bytes are not what the digest names. True if it was removed.
  bool drop_if_damaged(const ManifestFile& what) const;

  /// Bytes that all blobs take, parts with what was reserved for them.
  std::uint64_t bytes() const;
  const std::filesystem::path& folder() const { return folder_; }

 private:
  std::filesystem::path blob(const std::string& digest) const { return folder_ / "blobs" / digest; }
  std::filesystem::path part(const std::string& digest) const { return folder_ / "blobs" / (digest + ".part"); }
  std::optional<OwnedFile> lock_part(const std::string& digest) const;
  void fetch_whole(const ManifestFile& what, const OwnedFile& file, BlobFetcher& fetcher, const std::function<bool()>& stopped) const;
  void make_room(const std::string& digest, int file, std::uint64_t bytes) const;

  std::filesystem::path folder_;
  std::uint64_t limit_;
};

}  // namespace fusion
