#include "workers/launch/slurm_queue.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "base/error.h"
#include "base/log.h"

namespace fusion {

namespace {

constexpr double kLongestPause_s = 300;

std::chrono::milliseconds milliseconds_of(double seconds) { return std::chrono::milliseconds(static_cast<std::int64_t>(seconds * 1000)); }

std::string path_of_commands() {
  const char* path = std::getenv("PATH");
  return path != nullptr && *path != '\0' ? path : "/usr/local/bin:/usr/bin:/bin";
}

/// "sbatch: Invalid partition name specified", "squeue did not end within 30.0 s".
std::string words_of(const std::string& name, const CommandEnd& end) {
  if (!end.problem.empty()) return name + (end.status < 0 ? " " : ": ") + end.problem;
  const std::string words = slurm_words(end.errors);
  return name + ": " + (words.empty() ? "exit status " + std::to_string(end.status) + " without a word" : words);
}

}  // namespace

SlurmQueue::SlurmQueue(boost::asio::io_context& io, const SlurmTimes& times, std::vector<std::string> pools) : io_(io), times_(times) {
  for (const std::string& pool : pools) pools_ += (pools_.empty() ? "" : ",") + ("fusion-" + pool);
}

SlurmQueue::~SlurmQueue() = default;

std::map<std::string, std::string> SlurmQueue::least_environment() {
  std::map<std::string, std::string> environment{{"PATH", path_of_commands()}};
  for (const char* name : {"HOME", "USER", "LANG", "SLURM_CONF"}) {
    if (const char* value = std::getenv(name)) environment[name] = value;
  }
  return environment;
}

void SlurmQueue::add(OnPoll on_poll, std::function<bool()> changing) { watchers_.push_back({std::move(on_poll), std::move(changing)}); }

void SlurmQueue::stop() {
  stopped_ = true;
  poll_.reset();
}

// A command that is not on the PATH ends as one that could not be started does.
std::unique_ptr<AsyncCommand> SlurmQueue::command(const std::string& name, CommandLine line, std::function<void(CommandEnd)> done) {
  line.program = find_program(name, path_of_commands());
  if (line.program.empty()) {
    done = [done = std::move(done)](CommandEnd end) {
      end.problem = "is not on the daemon's PATH (" + path_of_commands() + "): install Slurm's commands here, or start fusiond where they are";
      done(std::move(end));
    };
  }
  line.limit = milliseconds_of(times_.command_s);
  return AsyncCommand::start(io_, std::move(line), std::move(done));
}

std::chrono::milliseconds SlurmQueue::pause() const {
  const bool changing = std::ranges::any_of(watchers_, [](const Watcher& watcher) { return watcher.changing(); });
  double seconds = changing ? times_.poll_s : times_.steady_poll_s;
  for (int i = 0; i < failures_ && seconds < kLongestPause_s; ++i) seconds = std::min(2 * seconds, kLongestPause_s);
  return milliseconds_of(seconds);
}

void SlurmQueue::tick() {
  if (stopped_ || poll_) return;
  if (!last_poll_ || std::chrono::steady_clock::now() - *last_poll_ >= pause()) poll();
}

void SlurmQueue::poll() {
  last_poll_ = std::chrono::steady_clock::now();
  CommandLine line;
  line.arguments = {"--noheader", "--array", "--states=all", "--user=" + std::to_string(::getuid()), "--name=" + pools_,
                    std::string("--format=") + kSqueueFormat};
  line.environment = least_environment();
  poll_ = command("squeue", std::move(line), [this, began = *last_poll_](CommandEnd end) {
    poll_.reset();
    if (!stopped_) polled(end, began);
  });
}

void SlurmQueue::polled(const CommandEnd& end, SteadyTime began) {
  std::string problem;
  std::vector<SlurmJob> jobs;
  if (!end.good()) problem = words_of("squeue", end);
  try {
    if (problem.empty()) jobs = parse_squeue(end.output);
  } catch (const Error& error) {
    problem = error.what();
  }
  if (!problem.empty()) {
    if (failures_++ == 0 || problem != problem_) logger("launch")->warn("slurm not asked: {}", problem);
    problem_ = problem;
    return;
  }
  if (failures_ > 0) logger("launch")->info("slurm answers again failures={}", failures_);
  failures_ = 0;
  problem_.clear();
  known_ = true;
  for (const Watcher& watcher : watchers_) watcher.on_poll(jobs, began);
}

void SlurmQueue::submit(Submission submission, std::function<void(Answer)> done) {
  CommandLine line;
  line.arguments = std::move(submission.arguments);
  line.environment = std::move(submission.environment);
  for (const auto& [key, value] : least_environment()) line.environment.try_emplace(key, value);
  line.input = std::move(submission.script);
  const std::uint64_t id = next_++;
  const bool there = !find_program("sbatch", path_of_commands()).empty();
  commands_[id] = command("sbatch", std::move(line), [this, id, there, done = std::move(done)](const CommandEnd& end) {
    Answer answer;
    const auto array = end.good() ? parse_submitted(end.output) : std::nullopt;
    if (array) answer = {Answer::Kind::submitted, *array, ""};
    else if (!there) answer = {Answer::Kind::not_run, 0, words_of("sbatch", end)};
    else if (end.good()) answer = {Answer::Kind::unclear, 0, "sbatch printed no job id: " + end.output.substr(0, 200)};
    else if (end.status >= 0 && classify_submit_failure(end.errors) == SubmitFailure::refused) answer = {Answer::Kind::refused, 0, words_of("sbatch", end)};
    else answer = {Answer::Kind::unclear, 0, words_of("sbatch", end)};
    done(std::move(answer));
    commands_.erase(id);
  });
}

void SlurmQueue::cancel(const std::vector<std::string>& jobs, std::function<void(std::string problem)> done) {
  CommandLine line;
  line.arguments = jobs;
  line.environment = least_environment();
  const std::uint64_t id = next_++;
  commands_[id] = command("scancel", std::move(line), [this, id, done = std::move(done)](const CommandEnd& end) {
    done(end.good() ? "" : words_of("scancel", end));
    commands_.erase(id);
  });
}

}  // namespace fusion
