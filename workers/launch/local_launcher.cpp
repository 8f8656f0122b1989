#include "workers/launch/local_launcher.h"

#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <thread>

#include "base/error.h"
#include "base/log.h"

extern char** environ;

namespace fusion {

namespace {

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> list;
  for (std::string& text : texts) list.push_back(text.data());
  list.push_back(nullptr);
  return list;
}

std::vector<std::string> merged_environment(const std::map<std::string, std::string>& more) {
  std::map<std::string, std::string> merged;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text = *entry;
    const std::size_t equals = text.find('=');
    if (equals != std::string::npos) merged[text.substr(0, equals)] = text.substr(equals + 1);
  }
  merged["OMP_NUM_THREADS"] = "1";
  merged["OPENBLAS_NUM_THREADS"] = "1";
  for (const auto& [key, value] : more) merged[key] = value;
  std::vector<std::string> list;
  for (const auto& [key, value] : merged) list.push_back(key + "=" + value);
  return list;
}

}  // namespace

LocalLauncher::LocalLauncher(asio::io_context& io, LocalLauncherOptions options)
    : io_(io), options_(std::move(options)), exits_(io, SIGCHLD), patience_(io) {
  if (::access(options_.program.c_str(), X_OK) != 0) {
    throw ConfigError("worker program " + options_.program + ": cannot be run: " + std::strerror(errno) +
                      " (build it, or name another with --worker-program)");
  }
  for (int i = 0; i < options_.count; ++i) {
    children_.emplace_back();
    children_.back().index = i;
    children_.back().delay = options_.first_delay;
  }
}

LocalLauncher::~LocalLauncher() {
  for (Child& child : children_) {
    if (child.pid > 0) ::kill(child.pid, SIGKILL);
  }
  for (Child& child : children_) {
    if (child.pid > 0) ::waitpid(child.pid, nullptr, 0);
  }
}

std::string LocalLauncher::name_of_child(const Child& child) const {
  return "local-" + std::to_string(::getpid()) + "-" + std::to_string(child.index);
}

void LocalLauncher::start() {
  wait_for_exits();
  for (Child& child : children_) launch(child);
}

void LocalLauncher::launch(Child& child) {
  std::vector<std::string> command{options_.program};
  command.insert(command.end(), options_.arguments.begin(), options_.arguments.end());
  if (!options_.quiet_arguments) {
    const std::string device = options_.device == "cuda" ? "cuda:" + std::to_string(child.index) : options_.device;
    command.insert(command.end(), {"--name", name_of_child(child), "--device", device});
  }
  std::vector<std::string> environment = merged_environment(options_.environment);
  const std::vector<char*> argv = pointers(command), envp = pointers(environment);
  const auto cores = static_cast<int>(std::thread::hardware_concurrency());
  const bool pin = options_.pin && options_.device == "cpu" && options_.count <= cores;
  cpu_set_t core;
  CPU_ZERO(&core);
  CPU_SET(static_cast<std::size_t>(child.index % std::max(cores, 1)), &core);
  sigset_t none;
  sigemptyset(&none);
  const pid_t parent = ::getpid();
  // Between fork and exec only calls that are safe in a process that had other threads.
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (::getppid() != parent) ::_exit(1);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    if (pin) ::sched_setaffinity(0, sizeof core, &core);
    ::execve(argv[0], argv.data(), envp.data());
    ::_exit(127);
  }
  if (pid < 0) {
    logger("launch")->error("worker could not be started name={} error=\"{}\"", name_of_child(child), std::strerror(errno));
    ended(child, 1 << 8);
    return;
  }
  child.pid = pid;
  child.started = std::chrono::steady_clock::now();
  ++child.starts;
  logger("launch")->info("worker started name={} pid={} starts={}", name_of_child(child), pid, child.starts);
}

void LocalLauncher::wait_for_exits() {
  exits_.async_wait([this](const boost::system::error_code& error, int) {
    if (error) return;
    reap();
    if (!stopping_ || std::any_of(children_.begin(), children_.end(), [](const Child& c) { return c.pid > 0; })) wait_for_exits();
  });
}

void LocalLauncher::reap() {
  for (Child& child : children_) {
    int status = 0;
    if (child.pid > 0 && ::waitpid(child.pid, &status, WNOHANG) == child.pid) {
      child.pid = -1;
      ended(child, status);
    }
  }
  check_stopped();
}

void LocalLauncher::ended(Child& child, int status) {
  const bool exited = WIFEXITED(status);
  const int code = exited ? WEXITSTATUS(status) : WTERMSIG(status);
  if (stopping_) return;
  if (exited && code == 2) {
    child.given_up = true;
    logger("launch")->error("worker refuses its input and is not started again name={} (its own words stand above)", name_of_child(child));
    return;
  }
  if (std::chrono::steady_clock::now() - child.started > options_.healthy) child.delay = options_.first_delay;
  logger("launch")->warn("worker ended {}={} name={} again_in_ms={}", exited ? "status" : "signal", code, name_of_child(child),
                         child.delay.count());
  child.again = std::make_unique<asio::steady_timer>(io_, child.delay);
  child.delay = std::min(child.delay * 2, options_.longest_delay);
  child.again->async_wait([this, &child](const boost::system::error_code& error) {
    if (!error && !stopping_) launch(child);
  });
}

void LocalLauncher::stop(std::function<void()> stopped) {
  stopping_ = true;
  stopped_ = std::move(stopped);
  for (Child& child : children_) {
    if (child.again) child.again->cancel();
    if (child.pid > 0) ::kill(child.pid, SIGTERM);
  }
  patience_.expires_after(options_.patience);
  patience_.async_wait([this](const boost::system::error_code& error) {
    if (error) return;
    for (Child& child : children_) {
      if (child.pid <= 0) continue;
      logger("launch")->warn("worker does not end and is killed name={} pid={}", name_of_child(child), child.pid);
      ::kill(child.pid, SIGKILL);
    }
  });
  check_stopped();
}

void LocalLauncher::check_stopped() {
  if (!stopping_ || !stopped_) return;
  if (std::any_of(children_.begin(), children_.end(), [](const Child& child) { return child.pid > 0; })) return;
  patience_.cancel();
  exits_.cancel();
  auto stopped = std::move(stopped_);
  stopped_ = nullptr;
  stopped();
}

std::vector<LaunchedWorker> LocalLauncher::workers() const {
  std::vector<LaunchedWorker> list;
  for (const Child& child : children_) {
    const char* state = child.pid > 0 ? "running" : child.given_up || stopping_ ? "ended" : "waiting";
    list.push_back({name_of_child(child), state, child.pid, child.starts});
  }
  return list;
}

}  // namespace fusion
