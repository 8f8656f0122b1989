#include "base/progress.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>

namespace fusion {

std::string duration_text(double seconds) {
  char text[64];
  const auto whole = static_cast<long long>(seconds + 0.5);
  if (whole < 60) std::snprintf(text, sizeof text, "%lld s", whole);
  else if (whole < 3600) std::snprintf(text, sizeof text, "%lld min %02lld s", whole / 60, whole % 60);
  else std::snprintf(text, sizeof text, "%lld h %02lld min", whole / 3600, whole / 60 % 60);
  return text;
}

Progress::Progress(std::string what, std::int64_t total, std::string unit, bool quiet)
    : what_(std::move(what)),
      unit_(std::move(unit)),
      total_(total),
      quiet_(quiet),
      terminal_(::isatty(STDERR_FILENO) == 1),
      start_(std::chrono::steady_clock::now()),
      drawn_(start_) {}

Progress::~Progress() {
  if (!ended_ && !quiet_ && terminal_ && drawn_ != start_) std::fputc('\n', stderr);
}

void Progress::set(std::int64_t done) {
  set(done, total_ > 0 ? std::min(1.0, static_cast<double>(done) / static_cast<double>(total_)) : 0);
}

void Progress::begin_at(std::int64_t done, double share) {
  done_ = begin_ = done;
  share_ = begin_share_ = share;
}

void Progress::set(std::int64_t done, double share) {
  done_ = done;
  share_ = share;
  if (quiet_ || ended_) return;
  const auto now = std::chrono::steady_clock::now();
  if (now - drawn_ < (terminal_ ? std::chrono::milliseconds(100) : std::chrono::milliseconds(10'000))) return;
  drawn_ = now;
  draw(false);
}

void Progress::finish() {
  if (ended_) return;
  ended_ = true;
  if (!quiet_) draw(true);
}

void Progress::draw(bool last) {
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  const double rate = seconds > 0 ? static_cast<double>(done_ - begin_) / seconds : 0;
  const std::string when = last ? "in " + duration_text(seconds)
                                : "ETA " + (share_ > begin_share_ ? duration_text((1 - share_) / (share_ - begin_share_) * seconds) : std::string("?"));
  const std::string note = note_.empty() ? "" : "  " + note_;
  if (terminal_) {
    std::string bar(24, ' ');
    std::fill_n(bar.begin(), static_cast<long>(share_ * 24), '=');
    std::fprintf(stderr, "\r\033[K%s [%s] %3.0f %%  %.4g %s/s  %s%s", what_.c_str(), bar.c_str(), 100 * share_, rate,
                 unit_.c_str(), when.c_str(), note.c_str());
    if (last) std::fputc('\n', stderr);
  } else {
    std::fprintf(stderr, "%s: %lld of %lld %s, %.4g %s/s, %s%s\n", what_.c_str(), static_cast<long long>(done_),
                 static_cast<long long>(total_), unit_.c_str(), rate, unit_.c_str(), when.c_str(), note.c_str());
  }
  std::fflush(stderr);
}

}  // namespace fusion
