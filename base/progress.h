#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace fusion {

/// Progress of long work on stderr: on a terminal one line that is redrawn with bar, rate and ETA; otherwise a plain line
/// every 10 s and one at the end. Rate and time left are those of this run. Silent when `quiet`. Not thread-safe.
///
///     Progress progress("extract audio train", rows, "rows");
///     progress.advance(batch);      // as often as you like; it draws at most ten times a second
///     progress.finish();            // or the destructor: leaves the line as it stands
class Progress {
 public:
  Progress(std::string what, std::int64_t total, std::string unit, bool quiet = false);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  void advance(std::int64_t by = 1) { set(done_ + by); }
  void set(std::int64_t done);
  /// Where units differ in what they cost: `share` of the work is done, in [0, 1]; bar and ETA follow it.
  void set(std::int64_t done, double share);
  /// So much was done by an earlier run.
  void begin_at(std::int64_t done, double share);
  /// A short text behind the figures, for example a loss.
  void note(std::string text) { note_ = std::move(text); }
  void finish();

 private:
  void draw(bool last);

  std::string what_, unit_, note_;
  std::int64_t total_, done_ = 0, begin_ = 0;
  double share_ = 0, begin_share_ = 0;
  bool quiet_, terminal_, ended_ = false;
  std::chrono::steady_clock::time_point start_, drawn_;
};

/// "42 s", "3 min 05 s", "2 h 07 min".
std::string duration_text(double seconds);

}  // namespace fusion
