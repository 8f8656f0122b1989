#pragma once

#include <string>

namespace fusion {

/// The advisory lock `<path>.lock` (flock) that keeps a second writer from a database. It holds the owner's process id as text,
/// and is removed when the lock ends; one left behind by a killed process locks nothing. Move-only.
class DatabaseLock {
 public:
  /// Throws StoreError naming the process that holds it, or why the file cannot be made.
  explicit DatabaseLock(const std::string& database_path);
  DatabaseLock() = default;  ///< locks nothing
  ~DatabaseLock();
  DatabaseLock(DatabaseLock&& other) noexcept;
  DatabaseLock& operator=(DatabaseLock&&) = delete;

 private:
  std::string file_;
  int descriptor_ = -1;
};

}  // namespace fusion
