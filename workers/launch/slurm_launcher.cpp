#include "workers/launch/slurm_launcher.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <fstream>
#include <random>
#include <utility>

#include "base/error.h"
#include "base/files.h"
#include "base/log.h"
#include "workers/launch/job_script.h"
#include "workers/launch/slurm_ledger.h"

namespace fusion {

namespace {

namespace fs = std::filesystem;
using Steady = std::chrono::steady_clock;

constexpr int kMostAtOnce = 50;     // elements of one array: sites cap its size, 500 at the lowest
constexpr int kPatience = 3;        // ends before the worker came, in a row, until others do the work
constexpr std::size_t kLogTail = 300;
constexpr std::chrono::seconds kSettled{60};  // a worker that came and lived so long did not fail at its start

std::chrono::milliseconds milliseconds_of(double seconds) { return std::chrono::milliseconds(static_cast<std::int64_t>(seconds * 1000)); }

std::string random_id() {
  std::random_device device;
  std::array<char, 9> text{};
  std::snprintf(text.data(), text.size(), "%08x", static_cast<unsigned>(device()));
  return text.data();
}

bool names_gpus(const std::vector<std::string>& arguments) {
  return std::ranges::any_of(arguments, [](const std::string& a) { return a.starts_with("--gres") || a.starts_with("--gpus") || a.starts_with("-G"); });
}

void check_token_file(const PoolOptions& pool) {
  if (pool.token_file.empty()) return;
  struct stat status{};
  const std::string where = "pool " + pool.name + ": token_file " + pool.token_file;
  if (::stat(pool.token_file.c_str(), &status) != 0) throw ConfigError(where + " cannot be read here; name a file with the workers' token, mode 0600");
  if ((status.st_mode & 077) != 0) throw ConfigError(where + " may be read by others; expected mode 0600 (chmod 600)");
}

/// The last lines of what a job wrote, as one. Empty where it cannot be read: it may lie on the node.
std::string log_tail(const fs::path& file) {
  std::ifstream stream(file, std::ios::binary | std::ios::ate);
  if (!stream) return "";
  const auto size = static_cast<std::size_t>(stream.tellg());
  std::string text(std::min(size, kLogTail), '\0');
  stream.seekg(static_cast<std::streamoff>(size - text.size()));
  stream.read(text.data(), static_cast<std::streamsize>(text.size()));
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  const std::size_t line = text.find('\n');
  const bool cut = size > kLogTail && line == std::string::npos;
  if (size > kLogTail && !cut) text.erase(0, line + 1);  // whole lines, where there is one
  std::ranges::replace(text, '\n', ' ');
  return cut ? "..." + text : text;
}

}  // namespace

class SlurmLauncher::Impl : public std::enable_shared_from_this<Impl> {
 public:
  Impl(SlurmQueue& queue, PoolOptions pool, const SlurmTimes& times, Setting setting);
  void start();
  int may_launch() const;
  void launch(int count);
  int withdraw(int count);
  void retire(const std::set<std::string>& names);
  void connected(const std::set<std::string>& names);
  void stop(std::function<void()> done);
  std::vector<LaunchedWorker> workers() const { return ledger_.workers(Steady::now()); }
  std::string problem() const;
  bool stuck() const;
  std::vector<std::string> sbatch_arguments(int count, const std::string& launch) const;
  const std::string& script() const { return script_; }

 private:
  std::string identity() const { return "fusion:" + setting_.daemon_id + ":" + pool_.name + ":"; }
  fs::path log_folder() const { return pool_.log_folder.empty() ? setting_.folder / "logs" : fs::path(pool_.log_folder); }
  std::string make_script() const;
  std::map<std::string, std::string> environment() const;
  void answered(const std::string& launch, const SlurmQueue::Answer& answer);
  void take(const std::vector<SlurmJob>& jobs, SteadyTime began);
  void note_end(const SlurmLedger::Ended& ended);
  void failed(const std::string& words, bool at_once);
  void all_well();
  void cancel(const std::vector<std::string>& names);
  void finish_stop();

  SlurmQueue& queue_;
  const PoolOptions pool_;
  const SlurmTimes times_;
  const Setting setting_;
  const std::string script_;
  SlurmLedger ledger_;
  int sending_ = 0;                        // commands that run
  int failures_ = 0;                       // in a row
  SteadyTime not_before_{};
  std::string failure_, failed_launch_, cancel_problem_;
  bool refused_ = false;                   // so ended the last sbatch
  bool broken_ = false;                    // a job ended too early, and no worker came since
  bool stopping_ = false;
  std::vector<std::function<void()>> done_;
};

SlurmLauncher::Impl::Impl(SlurmQueue& queue, PoolOptions pool, const SlurmTimes& times, Setting setting)
    : queue_(queue),
      pool_(std::move(pool)),
      times_(times),
      setting_(std::move(setting)),
      script_(make_script()),
      ledger_({identity(), milliseconds_of(times.absent_s), milliseconds_of(times.connect_s)}) {
  check_token_file(pool_);
}

std::string SlurmLauncher::Impl::make_script() const {
  std::vector<std::string> words{pool_.worker_program.empty() ? setting_.worker_program : pool_.worker_program};
  if (!pool_.device.empty()) words.insert(words.end(), {"--device", pool_.device});
  words.insert(words.end(), {"--log-level", setting_.log_level});
  words.insert(words.end(), pool_.worker_args.begin(), pool_.worker_args.end());
  const std::string source = "pool " + pool_.name + ": template" + (pool_.script_template.empty() ? "" : " " + pool_.script_template);
  try {
    const std::string text = pool_.script_template.empty() ? std::string(kDefaultJobTemplate) : read_text(pool_.script_template);
    return job_script(source, text, shell_words(words), pool_.prologue);
  } catch (const DataError& error) {
    throw ConfigError(source + " cannot be read: " + error.what());
  }
}

// What is submitted stands in a file too, for people to read and to try by hand.
void SlurmLauncher::Impl::start() {
  fs::create_directories(log_folder());
  std::string shown = script_;
  const std::size_t line = shown.find('\n');
  shown.insert(line == std::string::npos ? shown.size() : line + 1, "# sbatch " + shell_words(sbatch_arguments(1, "<launch id>")) + "\n");
  write_atomically(setting_.folder / (pool_.name + ".sh"), shown);
  queue_.add(
      [weak = weak_from_this()](const std::vector<SlurmJob>& jobs, SteadyTime began) {
        if (const auto self = weak.lock()) self->take(jobs, began);
      },
      [weak = weak_from_this()] {
        const auto self = weak.lock();
        return self && (self->ledger_.changing() || !self->queue_.known());
      });
}

std::vector<std::string> SlurmLauncher::Impl::sbatch_arguments(int count, const std::string& launch) const {
  std::vector<std::string> arguments{"--parsable",
                                     "--job-name=fusion-" + pool_.name,
                                     "--comment=" + identity() + launch,
                                     "--array=0-" + std::to_string(count - 1),
                                     "--ntasks=1",
                                     "--cpus-per-task=" + std::to_string(pool_.cpus_per_worker),
                                     "--requeue",
                                     "--open-mode=append",
                                     "--signal=B:TERM@60",
                                     "--chdir=" + setting_.folder.string(),
                                     "--output=" + (log_folder() / "%A_%a.log").string()};
  const auto say = [&](const char* option, const std::string& value) {
    if (!value.empty()) arguments.push_back(option + value);
  };
  if (pool_.gpus_per_worker > 0 && !names_gpus(pool_.extra_args)) say("--gres=gpu:", std::to_string(pool_.gpus_per_worker));
  say("--mem=", pool_.memory);
  say("--time=", pool_.time);
  say("--partition=", pool_.partition);
  say("--account=", pool_.account);
  say("--qos=", pool_.qos);
  arguments.insert(arguments.end(), pool_.extra_args.begin(), pool_.extra_args.end());
  return arguments;
}

std::map<std::string, std::string> SlurmLauncher::Impl::environment() const {
  std::map<std::string, std::string> environment = pool_.environment;
  environment["FUSION_URL"] = setting_.url;
  if (!pool_.token_file.empty()) environment["FUSION_TOKEN_FILE"] = pool_.token_file;
  for (const char* threads : {"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"}) environment.try_emplace(threads, "1");
  return environment;
}

int SlurmLauncher::Impl::may_launch() const {
  if (stopping_ || !queue_.known() || !queue_.problem().empty() || ledger_.in_doubt() || ledger_.all_held()) return 0;
  if (Steady::now() < not_before_) return 0;
  if (broken_ && ledger_.untried() > 0) return 0;  // what is there already will tell
  return failures_ > 0 ? 1 : kMostAtOnce;  // after a failure one is enough to see
}

void SlurmLauncher::Impl::launch(int count) {
  count = std::min(count, may_launch());
  if (count <= 0) return;
  const std::string id = random_id();
  ledger_.sending(id, count);
  ++sending_;
  logger("launch")->info("workers asked of slurm pool={} launch={} workers={}", pool_.name, id, count);
  queue_.submit({sbatch_arguments(count, id), environment(), script_}, [weak = weak_from_this(), id](const SlurmQueue::Answer& answer) {
    if (const auto self = weak.lock()) self->answered(id, answer);
  });
}

void SlurmLauncher::Impl::answered(const std::string& launch, const SlurmQueue::Answer& answer) {
  using Kind = SlurmQueue::Answer::Kind;
  --sending_;
  if (answer.kind == Kind::submitted) {
    logger("launch")->info("workers submitted pool={} launch={} job={}", pool_.name, launch, answer.array);
    ledger_.submitted(launch, answer.array, Steady::now());
    if (refused_) all_well();
  } else if (answer.kind == Kind::unclear) {
    logger("launch")->warn("workers perhaps submitted, squeue will tell pool={} launch={} slurm=\"{}\"", pool_.name, launch, answer.words);
    ledger_.unclear(launch, Steady::now());
    failed(answer.words, false);
  } else {
    logger("launch")->error("workers refused pool={} launch={} slurm=\"{}\"", pool_.name, launch, answer.words);
    ledger_.refused(launch);
    failed(answer.words, true);
  }
  finish_stop();
}

// `at_once`: nothing will be otherwise soon. Else it takes a few until others do the work.
void SlurmLauncher::Impl::failed(const std::string& words, bool at_once) {
  failures_ = at_once ? std::max(failures_ + 1, kPatience) : failures_ + 1;
  failure_ = words;
  refused_ = at_once;
  double pause_s = times_.retry_s;
  const int doublings = at_once ? failures_ - kPatience : failures_ - 1;
  for (int i = 0; i < doublings && pause_s < times_.retry_most_s; ++i) pause_s *= 2;
  not_before_ = Steady::now() + milliseconds_of(std::min(pause_s, times_.retry_most_s));
}

void SlurmLauncher::Impl::take(const std::vector<SlurmJob>& jobs, SteadyTime began) {
  const SteadyTime now = Steady::now();
  const SlurmLedger::Polled polled = ledger_.take(jobs, began, now);
  for (const std::string& name : polled.adopted) logger("launch")->info("job adopted pool={} job={}", pool_.name, name);
  for (const std::string& launch : polled.lost_launches) {
    logger("launch")->warn("sbatch without a clear answer submitted nothing pool={} launch={}", pool_.name, launch);
  }
  for (const SlurmLedger::Ended& ended : polled.ended) note_end(ended);
  cancel(ledger_.overdue(now, milliseconds_of(times_.leave_s + 1)));
}

void SlurmLauncher::Impl::note_end(const SlurmLedger::Ended& ended) {
  logger("launch")->info("job ended pool={} job={} state=\"{}\" worker_came={} ran_s={}", pool_.name, ended.name, ended.state, ended.joined,
                         ended.lived.count() / 1000);
  const bool by_slurm = ended.state == "NODE_FAIL" || ended.state == "BOOT_FAIL" || ended.state == "PREEMPTED" || ended.state == "TIMEOUT";
  const bool broken = ended.state == "FAILED" || ended.state == "OUT_OF_MEMORY" || ended.state == "CANCELLED";
  if (ended.asked || (by_slurm && ended.joined)) return;
  if (ended.joined && (!broken || ended.lived >= kSettled)) return;
  std::string words = "job " + ended.name + " ended " + ended.state + (ended.joined ? "" : " before its worker had come");
  const std::string tail = log_tail(log_folder() / (ended.name + ".log"));
  if (!tail.empty()) words += ": " + tail;
  logger("launch")->warn("job ended too early pool={} {}", pool_.name, words);
  broken_ = true;
  if (std::exchange(failed_launch_, ended.launch) == ended.launch) failure_ = words;  // of one launch all fail for one reason
  else failed(words, false);
}

void SlurmLauncher::Impl::connected(const std::set<std::string>& names) {
  if (ledger_.connected(names)) all_well();
}

void SlurmLauncher::Impl::all_well() {
  failures_ = 0;
  failure_.clear();
  failed_launch_.clear();
  not_before_ = {};
  refused_ = broken_ = false;
}

int SlurmLauncher::Impl::withdraw(int count) {
  const std::vector<std::string> taken = ledger_.withdraw(count, Steady::now());
  cancel(ledger_.overdue(Steady::now(), milliseconds_of(times_.leave_s + 1)));
  return static_cast<int>(taken.size());
}

void SlurmLauncher::Impl::retire(const std::set<std::string>& names) {
  for (const std::string& name : names) ledger_.retire(name, Steady::now() + milliseconds_of(times_.leave_s));
}

void SlurmLauncher::Impl::cancel(const std::vector<std::string>& names) {
  if (names.empty()) return;
  std::string shown;
  for (const std::string& name : names) shown += (shown.empty() ? "" : ",") + name;
  logger("launch")->info("jobs cancelled pool={} jobs={}", pool_.name, shown);
  ++sending_;
  queue_.cancel(names, [weak = weak_from_this()](const std::string& problem) {
    const auto self = weak.lock();
    if (!self) return;
    --self->sending_;
    if (!problem.empty()) logger("launch")->warn("jobs not cancelled, it will be tried again pool={} slurm=\"{}\"", self->pool_.name, problem);
    self->cancel_problem_ = problem;
    self->finish_stop();
  });
}

std::string SlurmLauncher::Impl::problem() const {
  if (!queue_.problem().empty()) return queue_.problem();
  if (!queue_.known()) return "Slurm has not answered yet";
  if (!failure_.empty()) {
    const auto left = std::chrono::duration_cast<std::chrono::seconds>(not_before_ - Steady::now()).count();
    return failure_ + (left > 0 ? " (tried again in " + std::to_string(left + 1) + " s)" : "");
  }
  if (!cancel_problem_.empty()) return cancel_problem_;
  const SteadyTime now = Steady::now();
  const std::string silent = ledger_.silent(now), complaint = ledger_.complaint(now, setting_.url);
  const std::string tail = silent.empty() ? "" : log_tail(log_folder() / (silent + ".log"));
  return tail.empty() ? complaint : complaint + "; the log of job " + silent + " ends: " + tail;
}

bool SlurmLauncher::Impl::stuck() const { return !queue_.problem().empty() || failures_ >= kPatience || ledger_.all_held(); }

// Commands that run are waited for, so that what they submit is cancelled too, or is at least known of.
void SlurmLauncher::Impl::stop(std::function<void()> done) {
  done_.push_back(std::move(done));
  stopping_ = true;
  finish_stop();
}

void SlurmLauncher::Impl::finish_stop() {
  if (!stopping_ || sending_ > 0 || done_.empty()) return;
  const std::vector<std::string> left = ledger_.names();
  if (pool_.on_stop == OnStop::cancel && !left.empty()) {
    const SteadyTime now = Steady::now();
    for (const std::string& name : left) ledger_.retire(name, now);
    const std::vector<std::string> late = ledger_.overdue(now, std::chrono::hours(1));
    if (!late.empty()) return cancel(late);
  } else if (!left.empty()) {
    logger("launch")->info("jobs kept: they wait for the next daemon on this database pool={} jobs={}", pool_.name, left.size());
  }
  for (const std::function<void()>& done : std::exchange(done_, {})) done();
}

SlurmLauncher::SlurmLauncher(SlurmQueue& queue, PoolOptions pool, const SlurmTimes& times, Setting setting)
    : impl_(std::make_shared<Impl>(queue, std::move(pool), times, std::move(setting))) {}
SlurmLauncher::~SlurmLauncher() = default;
void SlurmLauncher::start() { impl_->start(); }
int SlurmLauncher::may_launch() const { return impl_->may_launch(); }
void SlurmLauncher::launch(int count) { impl_->launch(count); }
int SlurmLauncher::withdraw(int count) { return impl_->withdraw(count); }
void SlurmLauncher::retire(const std::set<std::string>& names) { impl_->retire(names); }
void SlurmLauncher::connected(const std::set<std::string>& names) { impl_->connected(names); }
void SlurmLauncher::stop(std::function<void()> done) { impl_->stop(std::move(done)); }
std::vector<LaunchedWorker> SlurmLauncher::workers() const { return impl_->workers(); }
std::string SlurmLauncher::problem() const { return impl_->problem(); }
bool SlurmLauncher::stuck() const { return impl_->stuck(); }
std::vector<std::string> SlurmLauncher::sbatch_arguments(int count, const std::string& launch) const { return impl_->sbatch_arguments(count, launch); }
const std::string& SlurmLauncher::script() const { return impl_->script(); }

}  // namespace fusion
