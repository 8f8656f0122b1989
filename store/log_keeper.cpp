#include "store/log_keeper.h"

#include <sqlite3.h>

#include <nlohmann/json.hpp>

#include "base/json_reader.h"
#include "base/log.h"
#include "store/database.h"
#include "store/reader_gate.h"

namespace fusion {

namespace {
constexpr std::int64_t kPagesPerMb = 256;
}

LogLimits LogLimits::read(JsonReader& reader, LogLimits base) {
  base.checkpoint_pages = kPagesPerMb * reader.integer("checkpoint_mb", 1, 4096, base.checkpoint_pages / kPagesPerMb);
  base.longest_pages = kPagesPerMb * reader.integer("longest_mb", 1, 65'536, base.longest_pages / kPagesPerMb);
  if (base.longest_pages < base.checkpoint_pages) reader.fail("longest_mb", "expected at least checkpoint_mb");
  reader.finish();
  return base;
}

nlohmann::json LogLimits::to_json() const {
  return {{"checkpoint_mb", checkpoint_pages / kPagesPerMb}, {"longest_mb", longest_pages / kPagesPerMb}};
}

LogKeeper::LogKeeper(Database& database, LogLimits limits)
    : database_(database), limits_(limits), next_checkpoint_(limits.checkpoint_pages), next_pause_(limits.longest_pages) {
  sqlite3_wal_hook(database_.handle(), committed, this);  // in place of SQLite's own, that checkpoints within the commit
}

LogKeeper::~LogKeeper() { sqlite3_wal_hook(database_.handle(), nullptr, nullptr); }

int LogKeeper::committed(void* self, sqlite3*, const char*, int pages) {
  LogKeeper& keeper = *static_cast<LogKeeper*>(self);
  if (pages < keeper.pages_) {  // it was begun anew
    keeper.next_checkpoint_ = keeper.limits_.checkpoint_pages;
    keeper.next_pause_ = keeper.limits_.longest_pages;
  }
  keeper.pages_ = pages;
  return SQLITE_OK;
}

void LogKeeper::tend() noexcept {
  if (untrusted_) return;
  const bool asked = gate_ != nullptr && gate_->closed();
  if (asked ? gate_->empty() : pages_ >= next_checkpoint_) checkpoint();
  if (asked && gate_->empty()) gate_->open();
  if (asked || gate_ == nullptr || pages_ < next_pause_) return;
  next_pause_ = pages_ + pages_ / 4;
  gate_->close();
  if (!gate_->empty()) return;  // the last reader says when
  checkpoint();
  gate_->open();
}

// Where nobody reads from the log any more, the next transaction begins it anew.
void LogKeeper::checkpoint() noexcept {
  next_checkpoint_ = pages_ + limits_.checkpoint_pages / 4;
  const int code = sqlite3_wal_checkpoint_v2(database_.handle(), nullptr, SQLITE_CHECKPOINT_PASSIVE, nullptr, nullptr);
  if (code == SQLITE_OK || code == SQLITE_BUSY) return;
  if (code == SQLITE_IOERR_FSYNC) {
    untrusted_ = true;
    database_.keep_log_on_close();
    return;
  }
  logger("store")->warn("the log was not moved into the file, and is kept; it is tried again pages={} error=\"{}\"", pages_, sqlite3_errstr(code));
}

}  // namespace fusion
