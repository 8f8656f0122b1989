#include "tools/ctl/retraining_watch.h"

#include <algorithm>
#include <cstdio>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tools/ctl/figures.h"
#include "tools/ctl/retraining_views.h"
#include "tools/ctl/text.h"

namespace fusion::ctl {

using nlohmann::json;

namespace {

constexpr std::chrono::milliseconds kAskEvery{1000};

bool is_over(const json& retraining) {
  const std::string state = text_in(retraining, "state");
  return state == "completed" || state == "failed" || state == "cancelled";
}

std::string heading(const json& retraining) {
  return "retraining " + digits_in(retraining, "id") + " (" + one_line(text_in(retraining, "head", "?")) + " head): " +
         one_line(text_in(retraining, "state", "?")) + (text_in(retraining, "waits").empty() ? "" : ", " + one_line(text_in(retraining, "waits")));
}

/// Epochs done, and the part of the one at hand.
double share_of(const json& retraining) {
  const double total = number_in(retraining, "total_epochs").value_or(0);
  if (total <= 0) return 0;
  double done = number_in(retraining, "last_epoch").value_or(0);
  const json& progress = value_in(retraining, "progress");
  const double rows = number_in(progress, "rows").value_or(0), of_rows = number_in(progress, "of_rows").value_or(0);
  if (of_rows > 0) done = std::max(done, number_in(progress, "epoch").value_or(1) - 1 + rows / of_rows);
  return std::clamp(done / total, 0.0, 1.0);
}

std::string pace(const json& retraining) {
  const json& progress = value_in(retraining, "progress");
  if (progress.is_null()) return "epoch " + digits_in(retraining, "last_epoch") + " of " + digits_in(retraining, "total_epochs");
  return "epoch " + digits_in(progress, "epoch") + " of " + digits_in(progress, "epochs") + ", " + figure_text(number_in(progress, "rows_per_s")) +
         " rows/s, ETA " + duration(number_in(progress, "eta_s"));
}

std::string end_text(const json& retraining) {
  if (text_in(retraining, "state") == "completed") {
    return "dev " + score_text(number_in(retraining, "dev_score")) + " in epoch " + digits_in(retraining, "best_epoch") + ", test " +
           score_text(number_in(retraining, "test_score"));
  }
  return one_line(text_in(retraining, "error"));
}

class RetrainingWatch {
 public:
  RetrainingWatch(const HttpClient& client, std::int64_t retraining, const WatchOptions& options)
      : client_(client), path_("/api/v1/retrainings/" + std::to_string(retraining)), options_(options) {}

  int run() {
    while (true) {
      const bool answered = look();
      if (answered && !options_.json) draw(Terminal::of_stdout(options_.no_color));
      if (answered && is_over(last_)) break;
      std::this_thread::sleep_for(options_.interval.count() > 0 ? std::min(options_.interval, kAskEvery) : kAskEvery);
    }
    if (options_.json) print_line(body_);
    return text_in(last_, "state") == "completed" ? 0 : 1;
  }

 private:
  /// Asks the daemon; false during an outage.
  bool look() {
    try {
      const Answer answer = client_.get(path_);
      last_ = answer.object("retraining");
      body_ = answer.body;
      while (!body_.empty() && body_.back() == '\n') body_.pop_back();
      if (outage_) say(client_.url().text() + " answers again.");
      outage_.reset();
      return true;
    } catch (const DaemonFailure& failure) {
      if (last_.is_null()) throw;
      const auto now = std::chrono::steady_clock::now();
      const std::string what = failure.what();
      if (!outage_) say("No answer (" + what.substr(0, what.find('\n')) + ") Trying again.");
      if (!outage_) outage_ = now;
      if (now - *outage_ >= options_.patience) throw;
      return false;
    }
  }

  void draw(const Terminal& terminal) {
    terminal.interactive ? draw_block(terminal) : draw_lines();
    std::fflush(stdout);
  }

  void draw_block(const Terminal& terminal) {
    const auto cut = [&](const std::string& text) { return truncated(text, terminal.width); };
    std::vector<std::string> lines{styled(cut(heading(last_)), Style::bold, terminal)};
    const std::size_t width = std::min<std::size_t>(40, std::max<std::size_t>(8, terminal.width / 3));
    lines.push_back(cut(bar(share_of(last_), width) + "  " + (is_over(last_) ? end_text(last_) : pace(last_))));
    const json& epochs = list_in(last_, "epochs");
    if (!epochs.empty()) lines.push_back(cut(epoch_line(last_, epochs.back())));
    std::string text = drawn_ > 0 ? "\033[" + std::to_string(drawn_) + "A" : "";
    text += "\r\033[J";
    for (const std::string& line : lines) text += line + "\n";
    drawn_ = lines.size();
    print(text);
  }

  /// What is new since the last look.
  void draw_lines() {
    for (const json& epoch : list_in(last_, "epochs")) {
      const auto key = std::pair(integer_in(epoch, "attempt").value_or(0), integer_in(epoch, "epoch").value_or(0));
      if (key <= told_) continue;
      told_ = key;
      print_line(epoch_line(last_, epoch));
    }
    const std::string state = heading(last_) + (is_over(last_) ? ", " + end_text(last_) : "");
    if (std::exchange(told_state_, state) != state) print_line(state);
  }

  const HttpClient& client_;
  const std::string path_;
  const WatchOptions options_;
  json last_;
  std::string body_, told_state_;
  std::optional<std::chrono::steady_clock::time_point> outage_;
  std::pair<std::int64_t, std::int64_t> told_{0, 0};
  std::size_t drawn_ = 0;
};

}  // namespace

int watch_retraining(const HttpClient& client, std::int64_t retraining, const WatchOptions& options) {
  return RetrainingWatch(client, retraining, options).run();
}

}  // namespace fusion::ctl
