#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "base/enum_names.h"

namespace fusion::testing {

/// What goes wrong below SQLite. Those with `lasting` go on from then on, until disarmed; the others happen once.
enum class FaultKind : std::uint8_t {
  write_error,         ///< EIO, nothing is written
  short_write,         ///< EIO, half of it is written
  disk_full,           ///< once: somebody made room
  disk_full_lasting,   ///< half of it is written; every later write fails too
  sync_error,          ///< EIO, once through each open descriptor of the file; what was not synced will never reach the disk, as Linux has it
  sync_error_lasting,
  truncate_error,
  open_error,
  delete_error,
  read_error,
  lock_error,
  size_error,          ///< the size of a file cannot be asked
  access_error,        ///< whether a file is there cannot be asked
  map_error,           ///< the index of the log cannot be mapped
};

/// A state of the disk: files by name, and their bytes.
struct DiskImage {
  std::map<std::string, std::string> files;
  bool operator==(const DiskImage&) const = default;
  void write_to(const std::filesystem::path& folder) const;
};

/// SQLite's file system with a disk that fails: stands between SQLite and the real one (as the default, so that no code under test knows
/// of it) and makes the n-th operation of a kind fail. It also knows what has been synced: `after_power_loss` is the disk as it would be found
/// if the power went now. Nothing is really synced, which makes small databases quick.
///
/// One at a time in a process, made before the first database is opened. Any thread may use databases meanwhile.
class FaultVfs {
 public:
  FaultVfs();
  ~FaultVfs();
  FaultVfs(const FaultVfs&) = delete;
  FaultVfs& operator=(const FaultVfs&) = delete;

  /// Forgets everything; files directly in this folder count from now on. What lies there already is taken for synced. No database
  /// is open in the folder, or in the one before.
  void watch(const std::filesystem::path& folder);

  /// From now on the `nth` (from 1) operation of that kind fails. `happens` is called at that moment, just before, on the thread that it strikes,
  /// amid the operation: it may ask for images, and use no database.
  void arm(FaultKind kind, std::int64_t nth, std::function<void()> happens = {});
  void disarm();
  bool happened() const;

  /// A disk that reports success for syncs, and does not sync. The lie every promise of durability dies of.
  void lie_about_syncs(bool lies);
  /// A disk that reports success for this write (counted from 1, from now on), and forgets it. 0: none.
  void lose_write(std::int64_t nth);

  /// What is found after the power went: what was synced, and of the later writes each one or not, by chance; none with `keep` 0, all with 1.
  DiskImage after_power_loss(double keep, std::uint64_t seed) const;

  struct Impl;

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace fusion::testing

namespace fusion {
template <>
struct EnumNames<testing::FaultKind> {
  using K = testing::FaultKind;
  static constexpr std::array<std::pair<K, std::string_view>, 14> kTable{{{K::write_error, "write_error"},
                                                                          {K::short_write, "short_write"},
                                                                          {K::disk_full, "disk_full"},
                                                                          {K::disk_full_lasting, "disk_full_lasting"},
                                                                          {K::sync_error, "sync_error"},
                                                                          {K::sync_error_lasting, "sync_error_lasting"},
                                                                          {K::truncate_error, "truncate_error"},
                                                                          {K::open_error, "open_error"},
                                                                          {K::delete_error, "delete_error"},
                                                                          {K::read_error, "read_error"},
                                                                          {K::lock_error, "lock_error"},
                                                                          {K::size_error, "size_error"},
                                                                          {K::access_error, "access_error"},
                                                                          {K::map_error, "map_error"}}};
};
}  // namespace fusion
