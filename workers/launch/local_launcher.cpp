#include "workers/launch/local_launcher.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <system_error>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "workers/launch/child_process.h"

namespace fusion {

namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr int kBadInput = 2;  // the exit status of every program of ours
constexpr int kMostAtOnce = 64;

/// How many GPUs a child will see; at least 1, so that a host without any gets the worker's own sentence.
int gpu_count() {
  if (const char* visible = std::getenv("CUDA_VISIBLE_DEVICES"); visible != nullptr && *visible != '\0') {
    const std::string text = visible;
    return 1 + static_cast<int>(std::count(text.begin(), text.end(), ','));
  }
  int count = 0;
  while (fs::exists("/dev/nvidia" + std::to_string(count))) ++count;
  return std::max(count, 1);
}

std::string seconds_text(std::chrono::milliseconds time) {
  std::string text = std::to_string(std::chrono::duration<double>(time).count());
  return text.substr(0, text.find('.') + 2);
}

}  // namespace

std::string LocalLauncherOptions::default_name_prefix() { return "local-" + std::to_string(::getpid()); }

class LocalLauncher::Impl : public std::enable_shared_from_this<Impl> {
 public:
  Impl(asio::io_context& io, LocalLauncherOptions options);
  ~Impl();
  void start();
  int may_launch() const { return stopping_ || stuck() ? 0 : kMostAtOnce; }
  void launch(int count);
  int withdraw(int count);
  void retire(const std::set<std::string>& names);
  void stop(std::function<void()> done);
  std::vector<LaunchedWorker> workers() const;
  std::string problem() const;
  bool stuck() const;

 private:
  enum class State { waiting, running, given_up, stopped };
  struct Worker {
    Worker(int place, std::string called, asio::io_context& io) : index(place), name(std::move(called)), pause_timer(io) {}
    const int index;
    const std::string name;
    State state = State::waiting;
    pid_t pid = 0;
    int starts = 0;
    std::string last_end;
    Clock::time_point made = Clock::now(), started;
    std::chrono::milliseconds pause{0};
    bool leaving = false;
    asio::steady_timer pause_timer;
  };

  Worker& add();
  Worker* find(int index);
  ChildCommand command_of(const Worker& worker) const;
  void start(Worker& worker);
  void await_ends();
  void look_for_ends();
  void ended(Worker& worker, int wait_status);
  void start_later(Worker& worker);
  void give_up(Worker& worker);
  void end_by_force(Worker& worker);
  std::size_t running() const;
  void kill_late();
  void finish_stop();

  asio::io_context& io_;
  LocalLauncherOptions options_;
  std::vector<int> cores_;
  int gpus_ = 0;
  std::vector<std::unique_ptr<Worker>> workers_;
  asio::signal_set children_;
  asio::steady_timer stop_timer_;
  std::vector<std::function<void()>> done_;
  bool stopping_ = false;
};

LocalLauncher::Impl::Impl(asio::io_context& io, LocalLauncherOptions options)
    : io_(io), options_(std::move(options)), children_(io), stop_timer_(io) {
  if (options_.program.empty()) options_.program = fs::read_symlink("/proc/self/exe").parent_path() / "fusion-worker";
  options_.environment.try_emplace("OMP_NUM_THREADS", "1");
  options_.environment.try_emplace("OPENBLAS_NUM_THREADS", "1");
  options_.environment.try_emplace("FUSION_PARENT_PID", std::to_string(::getpid()));
  if (options_.device == "cuda") gpus_ = gpu_count();
  const bool on_cpu = options_.device.empty() || options_.device == "cpu";
  if (options_.pin && on_cpu) cores_ = usable_cores();
  for (int i = 0; i < options_.count; ++i) add();
}

// At the lowest place that is free, so that cores and GPUs are shared out evenly.
LocalLauncher::Impl::Worker& LocalLauncher::Impl::add() {
  int place = 0;
  while (find(place) != nullptr) ++place;
  const std::string name = options_.name_prefix.empty() ? "" : options_.name_prefix + "-" + std::to_string(place);
  workers_.push_back(std::make_unique<Worker>(place, name, io_));
  return *workers_.back();
}

LocalLauncher::Impl::Worker* LocalLauncher::Impl::find(int index) {
  const auto found = std::ranges::find_if(workers_, [&](const auto& worker) { return worker->index == index; });
  return found == workers_.end() ? nullptr : found->get();
}

LocalLauncher::Impl::~Impl() {
  for (const auto& worker : workers_) {
    if (worker->state != State::running) continue;
    ::kill(worker->pid, SIGKILL);
    ::waitpid(worker->pid, nullptr, 0);
  }
}

void LocalLauncher::Impl::start() {
  if (::access(options_.program.c_str(), X_OK) != 0 || fs::is_directory(options_.program)) {
    throw ConfigError("the worker program " + options_.program + " is not there, or not executable");
  }
  children_.add(SIGCHLD);
  await_ends();
  for (const auto& worker : workers_) start(*worker);
}

ChildCommand LocalLauncher::Impl::command_of(const Worker& worker) const {
  ChildCommand command;
  command.program = options_.program;
  command.arguments = options_.arguments;
  if (!worker.name.empty()) {
    command.arguments.push_back("--name");
    command.arguments.push_back(worker.name);
  }
  if (!options_.device.empty()) {
    command.arguments.push_back("--device");
    command.arguments.push_back(gpus_ > 0 ? "cuda:" + std::to_string(worker.index % gpus_) : options_.device);
  }
  if (options_.die_with_parent) command.arguments.push_back("--die-with-parent");
  command.environment = options_.environment;
  const bool enough = workers_.size() <= cores_.size() && static_cast<std::size_t>(worker.index) < cores_.size();
  if (enough) command.core = cores_[static_cast<std::size_t>(worker.index)];
  return command;
}

void LocalLauncher::Impl::start(Worker& worker) {
  const ChildCommand command = command_of(worker);
  ++worker.starts;
  worker.started = Clock::now();
  try {
    worker.pid = start_child(command);
  } catch (const std::system_error& error) {
    worker.last_end = error.what();
    logger("launch")->error("local worker not started index={} error=\"{}\"", worker.index, error.what());
    return start_later(worker);
  }
  worker.state = State::running;
  logger("launch")->info("local worker started index={} pid={} start={}{}", worker.index, worker.pid, worker.starts,
                         command.core ? " core=" + std::to_string(*command.core) : "");
}

// One signal may stand for several children, and may be of somebody else's child: every one of ours is asked.
void LocalLauncher::Impl::await_ends() {
  children_.async_wait([weak = weak_from_this()](boost::system::error_code error, int) {
    const auto self = weak.lock();
    if (error || !self) return;
    self->await_ends();
    self->look_for_ends();
  });
}

void LocalLauncher::Impl::look_for_ends() {
  for (const auto& worker : workers_) {
    if (worker->state != State::running) continue;
    if (const auto status = ended_child(worker->pid)) ended(*worker, *status);
  }
  std::erase_if(workers_, [](const auto& worker) { return worker->leaving && worker->state == State::stopped; });
  finish_stop();
}

void LocalLauncher::Impl::ended(Worker& worker, int wait_status) {
  worker.last_end = end_text(wait_status);
  const auto lived = std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - worker.started);
  if (lived >= options_.settled) worker.pause = std::chrono::milliseconds(0);
  if (stopping_ || worker.leaving) {
    worker.state = State::stopped;
    worker.pause_timer.cancel();
    logger("launch")->info("local worker ended index={} pid={} end=\"{}\"", worker.index, std::exchange(worker.pid, 0), worker.last_end);
  } else if (WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == kBadInput) {
    give_up(worker);
  } else {
    logger("launch")->warn("local worker ended index={} pid={} end=\"{}\" lived_s={}", worker.index, std::exchange(worker.pid, 0),
                           worker.last_end, seconds_text(lived));
    start_later(worker);
  }
}

void LocalLauncher::Impl::give_up(Worker& worker) {
  worker.state = State::given_up;
  logger("launch")->error("local worker given up: its input is wrong, and why stands above on stderr index={} pid={} end=\"{}\" program={}",
                          worker.index, std::exchange(worker.pid, 0), worker.last_end, options_.program);
  const auto lost = [](const auto& w) { return w->state == State::given_up; };
  if (std::all_of(workers_.begin(), workers_.end(), lost)) {
    logger("launch")->error("no local worker is left; studies wait for workers from elsewhere");
  }
}

void LocalLauncher::Impl::start_later(Worker& worker) {
  worker.state = State::waiting;
  worker.pause = std::clamp(worker.pause * 2, options_.backoff_min, options_.backoff_max);
  worker.pause_timer.expires_after(worker.pause);
  worker.pause_timer.async_wait([weak = weak_from_this(), index = worker.index](boost::system::error_code error) {
    const auto self = weak.lock();
    if (error || !self || self->stopping_) return;
    Worker* waiting = self->find(index);
    if (waiting != nullptr && waiting->state == State::waiting) self->start(*waiting);
  });
}

void LocalLauncher::Impl::launch(int count) {
  for (int i = 0; i < std::min(count, may_launch()); ++i) start(add());
}

int LocalLauncher::Impl::withdraw(int count) {
  int taken = 0;
  std::erase_if(workers_, [&](const auto& worker) { return worker->state == State::waiting && taken < count && ++taken > 0; });
  return taken;
}

void LocalLauncher::Impl::retire(const std::set<std::string>& names) {
  for (const auto& worker : workers_) {
    if (worker->state != State::running || worker->leaving || !names.contains(worker->name)) continue;
    worker->leaving = true;
    worker->pause_timer.expires_after(options_.leave_wait);
    worker->pause_timer.async_wait([weak = weak_from_this(), index = worker->index](boost::system::error_code error) {
      const auto self = weak.lock();
      if (error || !self) return;
      if (Worker* late = self->find(index); late != nullptr && late->leaving && late->state == State::running) self->end_by_force(*late);
    });
  }
}

/// SIGTERM, and when that does not help SIGKILL.
void LocalLauncher::Impl::end_by_force(Worker& worker) {
  ::kill(worker.pid, SIGTERM);
  worker.pause_timer.expires_after(options_.stop_wait);
  worker.pause_timer.async_wait([weak = weak_from_this(), index = worker.index, pid = worker.pid](boost::system::error_code error) {
    const auto self = weak.lock();
    if (error || !self) return;
    if (const Worker* late = self->find(index); late != nullptr && late->state == State::running && late->pid == pid) ::kill(pid, SIGKILL);
  });
}

void LocalLauncher::Impl::stop(std::function<void()> done) {
  done_.push_back(std::move(done));
  if (!stopping_) {
    stopping_ = true;
    for (const auto& worker : workers_) {
      worker->pause_timer.cancel();
      if (worker->state == State::waiting) worker->state = State::stopped;
      if (worker->state == State::running) ::kill(worker->pid, SIGTERM);
    }
    kill_late();
  }
  finish_stop();
}

void LocalLauncher::Impl::kill_late() {
  stop_timer_.expires_after(options_.stop_wait);
  stop_timer_.async_wait([weak = weak_from_this()](boost::system::error_code error) {
    const auto self = weak.lock();
    if (error || !self) return;
    for (const auto& worker : self->workers_) {
      if (worker->state != State::running) continue;
      logger("launch")->warn("local worker killed: it did not end index={} pid={} waited_s={}", worker->index, worker->pid,
                             seconds_text(self->options_.stop_wait));
      ::kill(worker->pid, SIGKILL);
    }
  });
}

std::size_t LocalLauncher::Impl::running() const {
  return static_cast<std::size_t>(
      std::count_if(workers_.begin(), workers_.end(), [](const auto& w) { return w->state == State::running; }));
}

// Every `done` is posted, never called from within `stop`; once, for nothing starts again.
void LocalLauncher::Impl::finish_stop() {
  if (!stopping_ || running() > 0) return;
  stop_timer_.cancel();
  children_.cancel();
  for (std::function<void()>& done : std::exchange(done_, {})) asio::post(io_, std::move(done));
}

std::vector<LaunchedWorker> LocalLauncher::Impl::workers() const {
  static constexpr const char* kNames[] = {"waiting", "running", "given_up", "stopped"};
  std::vector<LaunchedWorker> list;
  for (const auto& w : workers_) {
    LaunchedWorker worker;
    worker.name = w->name;
    worker.state = w->leaving ? "leaving" : kNames[static_cast<int>(w->state)];
    worker.process = w->state == State::running ? w->pid : 0;
    worker.starts = w->starts;
    worker.last_end = w->last_end;
    worker.since_s = std::chrono::duration<double>(Clock::now() - w->made).count();
    list.push_back(std::move(worker));
  }
  return list;
}

std::string LocalLauncher::Impl::problem() const {
  const auto lost = std::ranges::count_if(workers_, [](const auto& w) { return w->state == State::given_up; });
  if (lost > 0) {
    return std::to_string(lost) + " of " + std::to_string(workers_.size()) +
           " given up with exit status 2: their input is wrong, and why stands in the daemon's log";
  }
  const auto waiting = std::ranges::find_if(workers_, [](const auto& w) { return w->state == State::waiting && !w->last_end.empty(); });
  return waiting == workers_.end() ? "" : (*waiting)->name + " ended (" + (*waiting)->last_end + ") and is started again after a pause";
}

bool LocalLauncher::Impl::stuck() const {
  return std::ranges::any_of(workers_, [](const auto& w) { return w->state == State::given_up; });
}

LocalLauncher::LocalLauncher(asio::io_context& io, LocalLauncherOptions options)
    : impl_(std::make_shared<Impl>(io, std::move(options))) {}
LocalLauncher::~LocalLauncher() = default;
void LocalLauncher::start() { impl_->start(); }
int LocalLauncher::may_launch() const { return impl_->may_launch(); }
void LocalLauncher::launch(int count) { impl_->launch(count); }
int LocalLauncher::withdraw(int count) { return impl_->withdraw(count); }
void LocalLauncher::retire(const std::set<std::string>& names) { impl_->retire(names); }
std::string LocalLauncher::problem() const { return impl_->problem(); }
bool LocalLauncher::stuck() const { return impl_->stuck(); }
void LocalLauncher::stop(std::function<void()> done) { impl_->stop(std::move(done)); }
std::vector<LaunchedWorker> LocalLauncher::workers() const { return impl_->workers(); }

}  // namespace fusion
