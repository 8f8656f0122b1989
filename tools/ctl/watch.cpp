#include "tools/ctl/watch.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "tools/ctl/figures.h"
#include "tools/ctl/networks.h"
#include "tools/ctl/study_views.h"
#include "tools/ctl/table.h"
#include "tools/ctl/text.h"

namespace fusion::ctl {

using nlohmann::json;
using SteadyTime = std::chrono::steady_clock::time_point;

namespace {

constexpr std::chrono::milliseconds kAskEvery{1000}, kRedrawEvery{1000}, kLineEvery{10'000};
constexpr std::int64_t kShownTrials = 8;

bool is_over(const json& study) {
  const std::string state = text_in(study, "state");
  return state == "completed" || state == "failed" || state == "cancelled";
}

std::string heading(const json& study) {
  return "study " + digits_in(study, "id") + " \"" + one_line(text_in(study, "name")) + "\": " + one_line(text_in(study, "state", "?"));
}

std::string percent(const TrialCounts& counts) {
  std::array<char, 16> text{};
  std::snprintf(text.data(), text.size(), "%3.0f %%", std::floor(100 * counts.share()));
  return text.data();
}

std::string pace(const json& study) {
  const auto rate = number_in(study, "trials_per_min");
  const std::string end = member(study, "eta_s") ? "ETA " + duration(number_in(study, "eta_s")) : "ETA ?";
  return (rate ? figure_text(rate) + " trials/min, " : "") + end;
}

std::string best_text(const json& study) {
  const json& best = value_in(study, "best");
  if (best.is_null()) return "no score yet";
  const std::string network = network_text(value_in(best, "architecture"), dataset_of(study));
  return "best " + score_text(number_in(best, "dev_score")) + " by trial " + digits_in(best, "trial") + " " +
         triplets_text(value_in(best, "architecture")) + (network.empty() ? "" : " " + one_line(network));
}

std::string counts_text(const TrialCounts& counts) {
  return "queued " + std::to_string(counts.queued) + ", leased " + std::to_string(counts.leased) + ", failed " +
         std::to_string(counts.failed);
}

/// One plain line that says it all.
std::string plain_line(const json& study) {
  const TrialCounts counts = TrialCounts::of(study);
  std::string text = heading(study) + ", " + counts.progress();
  if (is_over(study)) {
    const std::string error = text_in(study, "error");
    return text + ", " + std::to_string(counts.failed) + " failed, " + best_text(study) +
           (error.empty() ? "" : "; " + one_line(error));
  }
  const std::string error = text_in(study, "error");  // why it is paused
  return text + ", " + pace(study) + ", " + counts_text(counts) + ", " + best_text(study) + (error.empty() ? "" : "; " + one_line(error));
}

/// What stands on a terminal: one block, drawn over the last one.
class Block {
 public:
  void draw(const std::vector<std::string>& lines) {
    std::string text;
    if (drawn_ > 0) text = "\033[" + std::to_string(drawn_) + "A";
    text += "\r\033[J";
    for (const std::string& line : lines) text += line + "\n";
    drawn_ = lines.size();
    print(text);
    std::fflush(stdout);
  }

 private:
  std::size_t drawn_ = 0;
};

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    lines.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return lines;
}

std::string recent_trials(const json& trials, const std::optional<DatasetSpec>& dataset, const Terminal& terminal) {
  Table table({{"trial", Align::right},
               {"state"},
               {"dev score", Align::right},
               {"took", Align::right},
               {"architecture", Align::left, true},
               {"network", Align::left, true, true},
               {"error", Align::left, true, true}});
  for (const json& trial : trials) {
    table.add({digits_in(trial, "id"), state_cell(trial), score_text(number_in(trial, "dev_score")),
               duration(number_in(trial, "train_s")), triplets_text(value_in(trial, "architecture")),
               network_text(value_in(trial, "architecture"), dataset), text_in(trial, "error")});
  }
  return table.empty() ? "" : table.text(terminal);
}

/// Everything a drawing needs; kept over an outage.
struct Look {
  Answer answer;
  json study;
  json recent = json::array();
};

std::vector<std::string> block_lines(const Look& look, const std::string& notice, const Terminal& terminal) {
  const TrialCounts counts = TrialCounts::of(look.study);
  const auto cut = [&](const std::string& text) { return truncated(text, terminal.width); };
  const std::string state = text_in(look.study, "state");
  std::vector<std::string> lines{styled(cut(heading(look.study) + ", " + counts.progress()), Style::bold, terminal)};
  if (const std::string error = text_in(look.study, "error"); !error.empty()) {
    lines.push_back(styled(cut(one_line(error)), Style::bad, terminal));
  }
  const std::string rate = is_over(look.study) ? state : pace(look.study);
  const std::size_t bar_width = std::min<std::size_t>(40, std::max<std::size_t>(8, terminal.width / 3));
  lines.push_back(cut(counts.total > 0 ? bar(counts.share(), bar_width) + " " + percent(counts) + "  " + rate : rate));
  lines.push_back(cut(counts_text(counts)));
  lines.push_back(styled(cut(best_text(look.study)), Style::good, terminal));
  if (!notice.empty()) lines.push_back(styled(cut(notice), Style::bad, terminal));
  const std::size_t room = terminal.height > lines.size() + 2 ? terminal.height - lines.size() - 2 : 0;
  std::vector<std::string> rows = lines_of(recent_trials(look.recent, dataset_of(look.study), terminal));
  if (rows.size() > room) rows.resize(room);
  lines.insert(lines.end(), rows.begin(), rows.end());
  return lines;
}

class Watch {
 public:
  Watch(const HttpClient& client, std::int64_t study, const WatchOptions& options)
      : client_(client), path_("/api/v1/studies/" + std::to_string(study)), options_(options) {}

  int run() {
    while (true) {
      const auto now = std::chrono::steady_clock::now();
      const Terminal terminal = Terminal::of_stdout(options_.no_color);
      const std::chrono::milliseconds interval =
          options_.interval.count() > 0 ? options_.interval : (terminal.interactive ? kRedrawEvery : kLineEvery);
      const bool answered = look(terminal.interactive && !options_.json);
      const bool over = answered && is_over(last_->study);
      if (terminal.interactive || over || now - drawn_at_ >= interval || state_changed()) draw(terminal);
      if (over) break;
      std::this_thread::sleep_for(std::min(interval, kAskEvery));
    }
    if (options_.json) print_line(last_->answer.body);
    return text_in(last_->study, "state") == "completed" ? 0 : 1;
  }

 private:
  /// Asks the daemon; false during an outage.
  bool look(bool with_trials) {
    try {
      Look look{client_.get(path_), json(), json::array()};
      look.study = look.answer.object("study");
      if (with_trials) look.recent = newest_trials(TrialCounts::of(look.study).ended());
      last_ = std::move(look);
      end_outage();
      return true;
    } catch (const DaemonFailure& failure) {
      if (!last_) throw;
      begin_or_continue_outage(failure);
      return false;
    }
  }

  /// The last ones that ended, newest first: the API lists them from the first. A few more than are shown may have ended by now.
  json newest_trials(std::int64_t ended) const {
    const std::string offset = std::to_string(std::max<std::int64_t>(0, ended - kShownTrials));
    json trials = client_.get(path_ + "/trials?order=ended&limit=100&offset=" + offset).list("trials");
    std::stable_sort(trials.begin(), trials.end(), [](const json& a, const json& b) {
      return integer_in(a, "told_index").value_or(-1) > integer_in(b, "told_index").value_or(-1);
    });
    if (trials.size() > kShownTrials) trials.erase(trials.begin() + kShownTrials, trials.end());
    return trials;
  }

  void begin_or_continue_outage(const DaemonFailure& failure) {
    const auto now = std::chrono::steady_clock::now();
    if (!outage_) {
      outage_ = now;
      const std::string what = failure.what();
      told("No answer (" + what.substr(0, what.find('\n')) + ") Trying again for " +
           duration(std::chrono::duration<double>(options_.patience).count()) + ".");
    }
    if (now - *outage_ >= options_.patience) throw DaemonFailure(failure);
  }

  void end_outage() {
    if (!outage_) return;
    const std::chrono::duration<double> away = std::chrono::steady_clock::now() - *outage_;
    outage_.reset();
    told(client_.url().text() + " answers again after " + duration(away.count()) + ".");
    if (Terminal::of_stdout(true).interactive) notice_.clear();
  }

  /// On a terminal the sentence stands in the block, elsewhere on stderr.
  void told(const std::string& sentence) {
    if (Terminal::of_stdout(true).interactive && !options_.json) notice_ = one_line(sentence);
    else say(sentence);
  }

  bool state_changed() const { return last_ && text_in(last_->study, "state") != drawn_state_; }

  void draw(const Terminal& terminal) {
    if (options_.json) return;
    if (terminal.interactive) block_.draw(block_lines(*last_, notice_, terminal));
    else if (!outage_) print_line(plain_line(last_->study));
    std::fflush(stdout);
    drawn_at_ = std::chrono::steady_clock::now();
    drawn_state_ = text_in(last_->study, "state");
  }

  const HttpClient& client_;
  const std::string path_;
  const WatchOptions options_;
  std::optional<Look> last_;
  std::optional<SteadyTime> outage_;
  std::string notice_, drawn_state_;
  SteadyTime drawn_at_{};
  Block block_;
};

}  // namespace

int watch_study(const HttpClient& client, std::int64_t study, const WatchOptions& options) {
  return Watch(client, study, options).run();
}

}  // namespace fusion::ctl
