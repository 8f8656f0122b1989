#include "tests/faults/fault_vfs.h"

#include <sqlite3.h>

#include <algorithm>
#include <cstring>
#include <mutex>
#include <new>
#include <optional>
#include <stdexcept>
#include <utility>
#include <vector>

#include "base/files.h"
#include "base/random.h"
#include "store/page_cache.h"

namespace fusion::testing {

namespace {

/// A write (or, without bytes, a truncation) that was not synced yet.
struct Change {
  std::int64_t at = 0;
  std::optional<std::string> bytes;

  void apply(std::string& content) const {
    const auto begin = static_cast<std::size_t>(at);
    if (!bytes) return content.resize(std::min(content.size(), begin));
    if (content.size() < begin + bytes->size()) content.resize(begin + bytes->size());
    content.replace(begin, bytes->size(), *bytes);
  }
};

/// What the disk holds of a file, and what only the operating system does.
struct Disk {
  bool exists = true;
  std::string synced;
  std::vector<Change> pending;
  std::uint64_t failed_syncs = 0;
};

enum class Operation : std::uint8_t { write, sync, truncate, open, remove, read, lock, size, access, map };

Operation operation_of(FaultKind kind) {
  switch (kind) {
    case FaultKind::write_error:
    case FaultKind::short_write:
    case FaultKind::disk_full:
    case FaultKind::disk_full_lasting: return Operation::write;
    case FaultKind::sync_error:
    case FaultKind::sync_error_lasting: return Operation::sync;
    case FaultKind::truncate_error: return Operation::truncate;
    case FaultKind::open_error: return Operation::open;
    case FaultKind::delete_error: return Operation::remove;
    case FaultKind::read_error: return Operation::read;
    case FaultKind::lock_error: return Operation::lock;
    case FaultKind::size_error: return Operation::size;
    case FaultKind::access_error: return Operation::access;
    case FaultKind::map_error: return Operation::map;
  }
  throw std::logic_error("a kind of fault without an operation");
}

bool lasts(FaultKind kind) { return kind == FaultKind::disk_full_lasting || kind == FaultKind::sync_error_lasting; }

}  // namespace

namespace {
// With the page cache of a daemon, for which it is too late once SQLite is used.
sqlite3_vfs* vfs_of_the_system() {
  use_page_cache(page_block(1));
  return sqlite3_vfs_find(nullptr);
}
}  // namespace

struct FaultVfs::Impl {
  /// What SQLite allocates for an open file; the real one lies behind it.
  struct File {
    sqlite3_file base;
    Impl* vfs;
    Disk* disk;  ///< null: not watched
    std::uint64_t known_failures;  ///< of syncs of that file: the others come with the next sync
    sqlite3_file* real() { return reinterpret_cast<sqlite3_file*>(this + 1); }
  };
  static File& of(sqlite3_file* file) { return *reinterpret_cast<File*>(file); }
  static Impl& of(sqlite3_vfs* vfs) { return *static_cast<Impl*>(vfs->pAppData); }

  Impl();

  /// The fault that strikes this operation, if one does. Called without the lock.
  std::optional<FaultKind> strikes(Operation operation);
  Disk* disk_of(const char* name);
  void note(Disk* disk, Change change);
  bool synced(File& file, bool failed);

  static int open(sqlite3_vfs* vfs, const char* name, sqlite3_file* file, int flags, int* out_flags);
  static int remove(sqlite3_vfs* vfs, const char* name, int sync_folder);
  static int access(sqlite3_vfs* vfs, const char* name, int flags, int* result);
  static int close(sqlite3_file* file);
  static int read(sqlite3_file* file, void* bytes, int count, sqlite3_int64 at);
  static int write(sqlite3_file* file, const void* bytes, int count, sqlite3_int64 at);
  static int truncate(sqlite3_file* file, sqlite3_int64 size);
  static int sync(sqlite3_file* file, int flags);
  static int size(sqlite3_file* file, sqlite3_int64* size);
  static int lock(sqlite3_file* file, int level);
  static int map(sqlite3_file* file, int region, int bytes, int extend, void volatile** memory);

  sqlite3_vfs* real = nullptr;
  sqlite3_vfs vfs{};
  sqlite3_io_methods methods{};

  mutable std::mutex guard;  // of everything below
  std::filesystem::path folder;
  std::map<std::string, Disk> disks;  ///< by name; files that are open point into it
  std::optional<FaultKind> fault;
  std::int64_t left = 0;  ///< operations until it strikes; 0: it has
  std::function<void()> happens;
  bool happened = false, lies = false;
  std::int64_t writes_until_loss = 0;
};

FaultVfs::Impl::Impl() : real(vfs_of_the_system()) {
  vfs = *real;
  vfs.iVersion = 2;
  vfs.szOsFile = static_cast<int>(sizeof(File)) + real->szOsFile;
  vfs.zName = "fault";
  vfs.pAppData = this;
  vfs.xOpen = open;
  vfs.xDelete = remove;
  vfs.xAccess = access;
  methods.iVersion = 2;  // no memory-mapped reading, which nobody could strike
  methods.xClose = close;
  methods.xRead = read;
  methods.xWrite = write;
  methods.xTruncate = truncate;
  methods.xSync = sync;
  methods.xFileSize = size;
  methods.xLock = lock;
  methods.xUnlock = [](sqlite3_file* file, int level) { return of(file).real()->pMethods->xUnlock(of(file).real(), level); };
  methods.xCheckReservedLock = [](sqlite3_file* file, int* out) { return of(file).real()->pMethods->xCheckReservedLock(of(file).real(), out); };
  methods.xFileControl = [](sqlite3_file* file, int op, void* out) { return of(file).real()->pMethods->xFileControl(of(file).real(), op, out); };
  methods.xSectorSize = [](sqlite3_file* file) { return of(file).real()->pMethods->xSectorSize(of(file).real()); };
  methods.xDeviceCharacteristics = [](sqlite3_file* file) { return of(file).real()->pMethods->xDeviceCharacteristics(of(file).real()); };
  methods.xShmMap = map;
  methods.xShmLock = [](sqlite3_file* file, int at, int n, int flags) { return of(file).real()->pMethods->xShmLock(of(file).real(), at, n, flags); };
  methods.xShmBarrier = [](sqlite3_file* file) { of(file).real()->pMethods->xShmBarrier(of(file).real()); };
  methods.xShmUnmap = [](sqlite3_file* file, int remove_it) { return of(file).real()->pMethods->xShmUnmap(of(file).real(), remove_it); };
}

std::optional<FaultKind> FaultVfs::Impl::strikes(Operation operation) {
  std::function<void()> tell;
  std::optional<FaultKind> strikes_now;
  {
    const std::lock_guard lock_here(guard);
    if (!fault || operation_of(*fault) != operation) return std::nullopt;
    if (left == 0) return lasts(*fault) ? fault : std::nullopt;
    if (--left > 0) return std::nullopt;
    happened = true;
    strikes_now = fault;
    tell = happens;
  }
  if (tell) tell();
  return strikes_now;
}

Disk* FaultVfs::Impl::disk_of(const char* name) {
  if (name == nullptr) return nullptr;
  const std::filesystem::path path = name;
  const std::lock_guard lock_here(guard);
  if (path.parent_path() != folder) return nullptr;
  const auto [place, is_new] = disks.try_emplace(path.filename().string());
  Disk& disk = place->second;
  if (is_new && std::filesystem::exists(path)) disk.synced = read_text(path);
  if (!disk.exists) disk = Disk{};
  return &disk;
}

void FaultVfs::Impl::note(Disk* disk, Change change) {
  if (disk == nullptr) return;
  const std::lock_guard lock_here(guard);
  disk->pending.push_back(std::move(change));
}

// What could not be written is told once through each descriptor that is open, whoever wrote it (Linux since 4.13).
bool FaultVfs::Impl::synced(File& file, bool failed) {
  Disk* const disk = file.disk;
  if (disk == nullptr) return !failed;
  const std::lock_guard lock_here(guard);
  if (lies) return !failed;
  if (failed) {
    ++disk->failed_syncs;
  } else {
    for (const Change& change : disk->pending) change.apply(disk->synced);
  }
  disk->pending.clear();
  return std::exchange(file.known_failures, disk->failed_syncs) == disk->failed_syncs;
}

int FaultVfs::Impl::open(sqlite3_vfs* vfs, const char* name, sqlite3_file* file, int flags, int* out_flags) {
  Impl& impl = of(vfs);
  file->pMethods = nullptr;
  if (impl.strikes(Operation::open)) return SQLITE_CANTOPEN;
  File* made = new (file) File{{nullptr}, &impl, impl.disk_of(name), 0};
  if (made->disk != nullptr) {
    const std::lock_guard lock_here(impl.guard);
    made->known_failures = made->disk->failed_syncs;
  }
  const int code = impl.real->xOpen(impl.real, name, made->real(), flags, out_flags);
  if (made->real()->pMethods != nullptr) file->pMethods = &impl.methods;
  return code;
}

int FaultVfs::Impl::remove(sqlite3_vfs* vfs, const char* name, int sync_folder) {
  Impl& impl = of(vfs);
  if (impl.strikes(Operation::remove)) return SQLITE_IOERR_DELETE;
  const int code = impl.real->xDelete(impl.real, name, 0);
  const std::lock_guard lock_here(impl.guard);
  const auto found = impl.disks.find(std::filesystem::path(name).filename().string());
  if (code != SQLITE_OK || found == impl.disks.end() || std::filesystem::path(name).parent_path() != impl.folder) return code;
  found->second.exists = false;
  found->second.pending.clear();
  if (sync_folder != 0 && !impl.lies) found->second.synced.clear();  // else it may be there again after the power went
  return code;
}

int FaultVfs::Impl::access(sqlite3_vfs* vfs, const char* name, int flags, int* result) {
  if (of(vfs).strikes(Operation::access)) return SQLITE_IOERR_ACCESS;
  return of(vfs).real->xAccess(of(vfs).real, name, flags, result);
}

int FaultVfs::Impl::close(sqlite3_file* file) { return of(file).real()->pMethods->xClose(of(file).real()); }

int FaultVfs::Impl::read(sqlite3_file* file, void* bytes, int count, sqlite3_int64 at) {
  if (of(file).vfs->strikes(Operation::read)) return SQLITE_IOERR_READ;
  return of(file).real()->pMethods->xRead(of(file).real(), bytes, count, at);
}

int FaultVfs::Impl::write(sqlite3_file* file, const void* bytes, int count, sqlite3_int64 at) {
  File& self = of(file);
  const auto put = [&](int some) {
    const int code = self.real()->pMethods->xWrite(self.real(), bytes, some, at);
    if (code == SQLITE_OK) self.vfs->note(self.disk, {at, std::string(static_cast<const char*>(bytes), static_cast<std::size_t>(some))});
    return code;
  };
  {
    const std::lock_guard lock_here(self.vfs->guard);
    if (self.vfs->writes_until_loss > 0 && --self.vfs->writes_until_loss == 0) return SQLITE_OK;
  }
  const auto struck = self.vfs->strikes(Operation::write);
  if (!struck) return put(count);
  if (*struck == FaultKind::short_write || *struck == FaultKind::disk_full_lasting) put(count / 2);
  return *struck == FaultKind::disk_full || *struck == FaultKind::disk_full_lasting ? SQLITE_FULL : SQLITE_IOERR_WRITE;
}

int FaultVfs::Impl::truncate(sqlite3_file* file, sqlite3_int64 size) {
  File& self = of(file);
  if (self.vfs->strikes(Operation::truncate)) return SQLITE_IOERR_TRUNCATE;
  const int code = self.real()->pMethods->xTruncate(self.real(), size);
  if (code == SQLITE_OK) self.vfs->note(self.disk, {size, std::nullopt});
  return code;
}

int FaultVfs::Impl::sync(sqlite3_file* file, int) {
  const bool struck = of(file).vfs->strikes(Operation::sync).has_value();
  return of(file).vfs->synced(of(file), struck) ? SQLITE_OK : SQLITE_IOERR_FSYNC;
}

int FaultVfs::Impl::size(sqlite3_file* file, sqlite3_int64* size) {
  if (of(file).vfs->strikes(Operation::size)) return SQLITE_IOERR_FSTAT;
  return of(file).real()->pMethods->xFileSize(of(file).real(), size);
}

int FaultVfs::Impl::lock(sqlite3_file* file, int level) {
  if (of(file).vfs->strikes(Operation::lock)) return SQLITE_IOERR_LOCK;
  return of(file).real()->pMethods->xLock(of(file).real(), level);
}

int FaultVfs::Impl::map(sqlite3_file* file, int region, int bytes, int extend, void volatile** memory) {
  if (of(file).vfs->strikes(Operation::map)) {
    *memory = nullptr;
    return SQLITE_IOERR_SHMMAP;
  }
  return of(file).real()->pMethods->xShmMap(of(file).real(), region, bytes, extend, memory);
}

void DiskImage::write_to(const std::filesystem::path& folder) const {
  std::filesystem::create_directories(folder);
  for (const auto& [name, bytes] : files) write_atomically(folder / name, bytes);
}

FaultVfs::FaultVfs() : impl_(std::make_unique<Impl>()) { sqlite3_vfs_register(&impl_->vfs, 1); }

FaultVfs::~FaultVfs() {
  sqlite3_vfs_unregister(&impl_->vfs);
  sqlite3_vfs_register(impl_->real, 1);
}

void FaultVfs::watch(const std::filesystem::path& folder) {
  const std::lock_guard lock(impl_->guard);
  impl_->folder = folder;
  impl_->disks.clear();
  impl_->fault.reset();
  impl_->happened = impl_->lies = false;
  impl_->writes_until_loss = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) impl_->disks[entry.path().filename().string()].synced = read_text(entry.path());
}

void FaultVfs::arm(FaultKind kind, std::int64_t nth, std::function<void()> happens) {
  const std::lock_guard lock(impl_->guard);
  impl_->fault = kind;
  impl_->left = nth;
  impl_->happens = std::move(happens);
  impl_->happened = false;
}

void FaultVfs::disarm() {
  const std::lock_guard lock(impl_->guard);
  impl_->fault.reset();
  impl_->happens = {};
}

bool FaultVfs::happened() const {
  const std::lock_guard lock(impl_->guard);
  return impl_->happened;
}

void FaultVfs::lie_about_syncs(bool lies) {
  const std::lock_guard lock(impl_->guard);
  impl_->lies = lies;
}

void FaultVfs::lose_write(std::int64_t nth) {
  const std::lock_guard lock(impl_->guard);
  impl_->writes_until_loss = nth;
}

DiskImage FaultVfs::after_power_loss(double keep, std::uint64_t seed) const {
  const std::lock_guard lock(impl_->guard);
  Rng rng(seed);
  DiskImage image;
  for (const auto& [name, disk] : impl_->disks) {
    if (!disk.exists && (disk.synced.empty() || rng.uniform() < keep)) continue;  // the deletion may have reached the disk
    std::string content = disk.synced;
    for (const Change& change : disk.pending) {
      if (rng.uniform() < keep) change.apply(content);
    }
    image.files[name] = std::move(content);
  }
  return image;
}

}  // namespace fusion::testing
