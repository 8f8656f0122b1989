#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "workers/launch/async_command.h"
#include "workers/launch/pool_options.h"
#include "workers/launch/slurm_text.h"

namespace boost::asio {
class io_context;
}

namespace fusion {

/// Slurm's commands for all pools of a daemon: one squeue for all of them, sbatch, scancel.
///
/// Each runs without a shell, with an environment built from nothing (PATH, HOME, USER, LANG, SLURM_CONF, and what the job is to have), and is killed
/// after `command_s`. squeue is asked every `poll_s` while some pool says that something changes, every `steady_poll_s` else, and twice as
/// seldom after each failure, up to five minutes. A poll that failed means "not known", never "gone".
///
/// Lives on the I/O thread.
class SlurmQueue {
 public:
  /// `pools` are the names of those that are asked for.
  SlurmQueue(boost::asio::io_context& io, const SlurmTimes& times, std::vector<std::string> pools);
  ~SlurmQueue();
  SlurmQueue(const SlurmQueue&) = delete;
  SlurmQueue& operator=(const SlurmQueue&) = delete;

  /// After each good poll: what it showed, and when its command was started.
  using OnPoll = std::function<void(const std::vector<SlurmJob>& jobs, SteadyTime began)>;
  /// `changing` is asked how soon the next one is due.
  void add(OnPoll on_poll, std::function<bool()> changing);
  /// Asks squeue if that is due. Its owner calls it a few times in each `poll_s`.
  void tick();
  /// No further poll.
  void stop();

  struct Submission {
    std::vector<std::string> arguments;  ///< of sbatch
    std::map<std::string, std::string> environment;  ///< of the job, on top of the least
    std::string script;
  };
  struct Answer {
    enum class Kind { submitted, refused, unclear, not_run } kind = Kind::not_run;  ///< not_run: there is no sbatch; nothing was submitted
    std::int64_t array = 0;
    std::string words;  ///< Slurm's, or of what went wrong
  };
  void submit(Submission submission, std::function<void(Answer)> done);
  /// Those that are not known are no error. `done` says what went wrong, or nothing.
  void cancel(const std::vector<std::string>& jobs, std::function<void(std::string problem)> done);

  /// A poll was good.
  bool known() const { return known_; }
  /// A sentence why the last poll failed; empty after a good one.
  const std::string& problem() const { return problem_; }
  /// What a job's environment begins with.
  static std::map<std::string, std::string> least_environment();

 private:
  struct Watcher {
    OnPoll on_poll;
    std::function<bool()> changing;
  };
  std::unique_ptr<AsyncCommand> command(const std::string& name, CommandLine line, std::function<void(CommandEnd)> done);
  void poll();
  void polled(const CommandEnd& end, SteadyTime began);
  std::chrono::milliseconds pause() const;

  boost::asio::io_context& io_;
  SlurmTimes times_;
  std::string pools_;  // names of jobs, comma-separated
  std::vector<Watcher> watchers_;
  std::unique_ptr<AsyncCommand> poll_;
  std::map<std::uint64_t, std::unique_ptr<AsyncCommand>> commands_;
  std::uint64_t next_ = 0;
  std::optional<SteadyTime> last_poll_;
  int failures_ = 0;
  bool known_ = false, stopped_ = false;
  std::string problem_;
};

}  // namespace fusion
