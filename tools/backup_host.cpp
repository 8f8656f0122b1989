#include "tools/backup_host.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/error.h"
#include "base/log.h"
#include "store/backup.h"

namespace fusion {

BackupFile::BackupFile(const std::string& named) : descriptor_(::open(named.c_str(), O_RDONLY | O_CLOEXEC)) {
  if (descriptor_ < 0) throw StoreError(named + ": cannot be opened: " + std::strerror(errno));
  ::unlink(named.c_str());
}

BackupFile::~BackupFile() { ::close(descriptor_); }

BackupHost::~BackupHost() {
  stop();
  thread_.join();
}

bool BackupHost::make(Done done) {
  if (busy_) return false;
  busy_ = true;
  asio::post(thread_, [this, done = std::move(done)]() mutable {
    std::shared_ptr<const BackupFile> file;
    std::exception_ptr error;
    try {
      file = copy();
    } catch (...) {
      error = std::current_exception();
    }
    asio::post(io_, [this, file = std::move(file), error = std::move(error), done = std::move(done)] {
      busy_ = false;
      done(file, error);
    });
  });
  return true;
}

std::shared_ptr<const BackupFile> BackupHost::copy() const {
  const std::string name = database_ + ".backup";
  const auto begin = std::chrono::steady_clock::now();
  std::int64_t copied = 0;
  logger("store")->info("backup begun path={}", database_);
  copy_database(database_, name, [this, &copied](std::int64_t done, std::int64_t) {
    if (stopping_) throw StoreError(database_ + ": the daemon stops, and makes no backup any more; fusionctl backup FILE --db " + database_ +
                                    " makes one without it");
    copied = done;
  });
  auto file = std::make_shared<const BackupFile>(name);
  logger("store")->info("backup made path={} pages={} seconds={:.3f}", database_, copied,
                        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  return file;
}

}  // namespace fusion
