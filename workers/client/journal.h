#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "base/clock.h"
#include "workers/protocol/messages.h"

namespace fusion {

/// What a worker was told and what it said, in order, in a file that is only ever appended to: a JSON object per line,
/// `{"at_ms": 1769860800123, "event": "sent", "message": {...}}`, the message as docs/protocol.md has it. What is sent stands there before
/// it is sent, what was received before anything is done with it. Each line is one write(2): a process that is killed loses nothing that
/// it had seen; only the machine's own end can.
///
/// One thread. For tests, and for whoever wants to know afterwards what was said.
class Journal {
 public:
  /// Appends to `file`, creating it; a last line without an end, of a process that died in the middle of it, is ended first. Throws
  /// DataError naming the file.
  explicit Journal(const std::filesystem::path& file);
  ~Journal();
  Journal(const Journal&) = delete;
  Journal& operator=(const Journal&) = delete;

  /// Throws ConfigError naming the file if it cannot be written: whoever asked for a journal wants no work beside it.
  void sent(const protocol::Message& message) { append("sent", message); }
  void received(const protocol::Message& message) { append("received", message); }

 private:
  void append(const char* event, const protocol::Message& message);

  std::filesystem::path file_;
  int descriptor_ = -1;
};

struct JournalLine {
  UnixMs at = 0;
  bool sent = false;  ///< else received
  protocol::Message message;
};
struct JournalText {
  std::vector<JournalLine> lines;
  std::int64_t torn = 0;  ///< lines that a killed process left unfinished
};

/// Throws DataError for a file that cannot be read, or a finished line that is none of ours.
JournalText read_journal(const std::filesystem::path& file);

}  // namespace fusion
