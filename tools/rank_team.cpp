#include "tools/rank_team.h"

#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <nlohmann/json.hpp>
#include <optional>
#include <system_error>

#include "base/error.h"
#include "base/json_reader.h"
#include "base/log.h"
#include "tools/rank_channel.h"
#include "workers/launch/child_process.h"

namespace fusion {

namespace fs = std::filesystem;
using nlohmann::json;
using SteadyClock = std::chrono::steady_clock;

namespace {

constexpr std::chrono::milliseconds kLook{100};  // between looks at the stop tokens and at who has ended
/// When one rank is in trouble the others notice it by themselves and say what they know of it; then they are killed.
constexpr std::chrono::seconds kGrace{10};

/// A folder that only this user can enter, gone with it.
class PrivateFolder {
 public:
  PrivateFolder() {
    std::string name = (fs::temp_directory_path() / "fusion-ranks-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw std::system_error(errno, std::generic_category(), name);
    path_ = name;
  }
  ~PrivateFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  PrivateFolder(const PrivateFolder&) = delete;
  PrivateFolder& operator=(const PrivateFolder&) = delete;
  fs::path operator/(const char* name) const { return path_ / name; }

 private:
  fs::path path_;
};

struct Rank {
  pid_t pid;
  RankChannel channel;
  std::optional<RetrainingOutcome> outcome;
  std::optional<int> ended;  ///< wait status
};

bool has_checkpoint(const fs::path& folder) {
  std::error_code none;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, none)) {
    if (entry.path().filename().string().starts_with("checkpoint-")) return true;
  }
  return false;
}

template <typename T>
T read_message(const json& message, const char* key) {
  JsonProblems problems;
  JsonReader reader(message.at(key), "rank", problems);
  T value = T::read(reader);
  problems.throw_if_any();
  return value;
}

/// The ranks of one try.
class Team {
 public:
  Team(const RetrainingJob& job, const RankTeamOptions& options, std::int64_t rows_at_once)
      : job_(job), options_(options), rows_at_once_(rows_at_once), told_again_(has_checkpoint(job.folder)) {}
  ~Team() {
    kill_all();
    for (Rank& rank : ranks_) {
      if (!rank.ended) ::waitpid(rank.pid, nullptr, 0);
    }
  }
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  RetrainingOutcome run() {
    for (std::size_t rank = 0; rank < options_.devices.size(); ++rank) start(rank);
    while (std::any_of(ranks_.begin(), ranks_.end(), [](const Rank& rank) { return !rank.ended; })) {
      wait_for_news();
      for (std::size_t i = 0; i < ranks_.size(); ++i) look_at(i);
      heed_tokens();
      if (trouble_ && SteadyClock::now() > *trouble_ + kGrace) kill_all();
    }
    return result();
  }

 private:
  void start(std::size_t rank) {
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) throw std::system_error(errno, std::generic_category(), "socketpair");
    RankChannel here(ends[0]);
    const RankChannel there(ends[1]);
    ChildCommand command;
    command.program = options_.program.string();
    command.input = there.descriptor();
    ranks_.push_back({start_child(command), std::move(here), {}, {}});
    ranks_.back().channel.send({{"start",
                                 {{"rank", rank},
                                  {"ranks", options_.devices.size()},
                                  {"meeting", (folder_ / "meeting").string()},
                                  {"timeout_s", options_.timeout.count()},
                                  {"device", options_.devices[rank]},
                                  {"rows_at_once", rows_at_once_},
                                  {"job", job_.to_json()}}}});
  }

  void wait_for_news() const {
    std::vector<pollfd> descriptors;
    for (const Rank& rank : ranks_) {
      if (!rank.ended) descriptors.push_back({rank.channel.descriptor(), POLLIN, 0});
    }
    const bool closed = ::poll(descriptors.data(), descriptors.size(), static_cast<int>(kLook.count())) > 0 &&
                        std::any_of(descriptors.begin(), descriptors.end(), [](const pollfd& d) { return (d.revents & POLLHUP) != 0; });
    if (closed) ::usleep(1000);  // a rank is about to end: poll does not wait any more
  }

  void look_at(std::size_t i) {
    Rank& rank = ranks_[i];
    if (rank.ended) return;
    const std::optional<int> ended = ended_child(rank.pid);
    for (const json& message : rank.channel.received()) take(rank, message);
    if (!ended) return;
    rank.ended = ended;
    if (rank.outcome || killed_) return;
    if (!first_lost_) first_lost_ = i;
    note_trouble();
  }

  void take(Rank& rank, const json& message) {
    if (message.contains("epoch")) {
      const auto epoch = read_message<RetrainingEpoch>(message, "epoch");
      new_epochs_ += told_again_ ? 0 : 1;
      told_again_ = false;
      epoch_ = epoch.epoch;
      if (options_.on_epoch) options_.on_epoch(epoch);
    } else if (message.contains("progress")) {
      if (options_.on_progress) options_.on_progress(read_message<RetrainingProgress>(message, "progress"));
    } else if (message.contains("outcome")) {
      rank.outcome = read_message<RetrainingOutcome>(message, "outcome");
      const Outcome how = rank.outcome->outcome;
      if (how == Outcome::completed || (how == Outcome::preempted && handed_back_)) return;
      if (how != Outcome::preempted && !wrong_) wrong_ = rank.outcome;
      note_trouble();
    }
  }

  void note_trouble() {
    if (!trouble_) trouble_ = SteadyClock::now();
  }

  void heed_tokens() {
    if (options_.cancel.stop_requested()) kill_all();
    if (!options_.hand_back.stop_requested() || handed_back_) return;
    handed_back_ = true;
    ranks_.front().channel.send({{"hand_back", true}});
  }

  void kill_all() {
    killed_ = true;
    for (const Rank& rank : ranks_) {
      if (!rank.ended) ::kill(rank.pid, SIGKILL);
    }
  }

  RetrainingOutcome result() const {
    const std::optional<RetrainingOutcome>& first = ranks_.front().outcome;
    if (first && first->outcome == Outcome::completed) return *first;
    if (wrong_) return *wrong_;
    if (options_.cancel.stop_requested()) return ended(Outcome::cancelled, "the retraining was cancelled" + in_epoch());
    if (first_lost_) {
      const Rank& lost = ranks_[*first_lost_];
      return ended(given_back(), "process " + std::to_string(*first_lost_ + 1) + " of " + std::to_string(ranks_.size()) + " (" +
                                     options_.devices[*first_lost_] + ") ended with " + end_text(*lost.ended) + in_epoch() + ", so the others were ended too; " +
                                     where_on());
    }
    if (first && handed_back_) return *first;
    for (const Rank& rank : ranks_) {
      if (rank.outcome && rank.outcome->outcome == Outcome::preempted) return ended(given_back(), rank.outcome->error + "; " + where_on());
    }
    return ended(given_back(), "the processes ended" + in_epoch() + " without a result; " + where_on());
  }

  /// Where nothing was gained an attempt counts, so that one which cannot succeed ends.
  Outcome given_back() const { return new_epochs_ > 0 || handed_back_ ? Outcome::preempted : Outcome::failed; }
  std::string in_epoch() const { return " in epoch " + std::to_string(epoch_ + 1) + " of " + std::to_string(job_.options.total_epochs()); }
  std::string where_on() const {
    return epoch_ > 0 ? "the retraining goes on behind epoch " + std::to_string(epoch_) : "the retraining begins again";
  }
  RetrainingOutcome ended(Outcome how, std::string error) const {
    RetrainingOutcome outcome;
    outcome.retraining = job_.retraining;
    outcome.attempt = job_.attempt;
    outcome.outcome = how;
    outcome.error = std::move(error);
    return outcome;
  }

  const RetrainingJob& job_;
  const RankTeamOptions& options_;
  const std::int64_t rows_at_once_;
  const PrivateFolder folder_;
  std::vector<Rank> ranks_;
  bool told_again_;      ///< the next epoch that is told is the checkpoint's
  int new_epochs_ = 0, epoch_ = 0;
  bool handed_back_ = false, killed_ = false;
  std::optional<SteadyClock::time_point> trouble_;  ///< since when
  std::optional<std::size_t> first_lost_;           ///< ended by itself without a word
  std::optional<RetrainingOutcome> wrong_;          ///< what the first rank said that something is wrong with the retraining
};

}  // namespace

RetrainingOutcome retrain_with_ranks(const RetrainingJob& job, const RankTeamOptions& options) {
  const std::int64_t smallest = job.options.batchnorm ? 2 : 1;
  for (std::int64_t rows = job.options.batch;; rows /= 2) {
    RetrainingOutcome outcome = Team(job, options, rows).run();
    if (outcome.outcome != Outcome::oom || rows / 2 < smallest) return outcome;
    logger("train")->warn("memory ran out, all processes begin again retraining={} rows_at_once={} error=\"{}\"", job.retraining.value, rows / 2,
                          outcome.error);
  }
}

}  // namespace fusion
