#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <iosfwd>
#include <memory>
#include <string>
#include <string_view>

#include "base/error.h"

namespace fusion {

/// A whole file as text. Throws DataError naming the file and the system's reason.
std::string read_text(const std::filesystem::path& file);

/// Replaces `file` in one step: writes `file.tmp.<pid>` beside it, syncs, renames, syncs the folder. After a crash the
/// old file or the new one is there, never a half. Creates the folder. Throws DataError; the temporary file is removed.
void write_atomically(const std::filesystem::path& file, std::string_view text);
void write_atomically(const std::filesystem::path& file, const std::function<void(std::ostream&)>& write);

/// Gives a finished file its name: syncs it, renames it, syncs the folder. Both lie in one folder. A file that has the name already is
/// replaced, or (`replace` false) left as it is: then this throws, as where it cannot be done. Throws DataError; `finished` is left then.
void publish_file(const std::filesystem::path& finished, const std::filesystem::path& name, bool replace);

/// A file mapped read-only. Shared: whoever holds a view keeps the mapping by its shared_ptr. Writing into it kills the
/// process, as does truncating the file underneath, which is why files of ours are replaced by rename only.
class MappedFile {
 public:
  /// Throws DataError naming the file.
  static std::shared_ptr<const MappedFile> open(const std::filesystem::path& file);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  const std::byte* data() const { return data_; }
  std::size_t size() const { return size_; }
  const std::filesystem::path& path() const { return path_; }

 private:
  MappedFile() = default;
  std::filesystem::path path_;
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace fusion
