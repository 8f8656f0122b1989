#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace fusion {

/// Writes a file that only its owner may read (0600 from its first byte on), in one step: after a crash the old one or the new one is there.
/// Creates its folder (0700). Throws DataError. `replace` false: throws ConfigError where the file is there already.
void write_private(const std::filesystem::path& file, std::string_view text, bool replace);

/// A whole file that only its owner may read: throws ConfigError where its mode says otherwise, DataError where it cannot be read. `what`
/// names it in the sentence ("tokens").
std::string read_private(const std::filesystem::path& file, const std::string& what);

/// While it lives, no other process holds one for a file in the same folder. Leaves nothing behind, however the process ends.
class FolderLock {
 public:
  /// Waits. Throws DataError for a folder that is not there.
  explicit FolderLock(const std::filesystem::path& file);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  int fd_ = -1;
};

}  // namespace fusion
