#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace fusion {

/// A folder in which a dataset is put together, moved to its place when complete and removed otherwise.
///
/// It lies in `out` if that is there, else beside it, so moving is renaming. Throws DataError if it cannot be made.
class Staging {
 public:
  explicit Staging(const std::filesystem::path& out);
  ~Staging();
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;
  const std::filesystem::path& path() const { return path_; }
  /// Moves `files` (relative paths) into `out`. The last is what makes the others valid: an old one is removed first and the
  /// new one moved last, so readers never see it beside files that are not its own.
  void publish(const std::vector<std::string>& files);

 private:
  std::filesystem::path out_, path_;
  bool inside_;
};

}  // namespace fusion
