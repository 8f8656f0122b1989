#include "tools/worker_pools.h"

#include <unistd.h>

#include <algorithm>
#include <climits>
#include <nlohmann/json.hpp>
#include <optional>
#include <random>
#include <set>
#include <utility>

#include "base/asio.h"
#include "base/error.h"
#include "base/files.h"
#include "base/log.h"
#include "workers/dispatch/dispatcher.h"
#include "workers/launch/local_launcher.h"
#include "workers/launch/pool_size.h"
#include "workers/launch/slurm_launcher.h"

namespace fusion {

using nlohmann::json;

namespace {

namespace fs = std::filesystem;
using Steady = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kTick{500};
constexpr std::chrono::seconds kSlowDisk{10};   // whoever looks is told then what is waited for
constexpr std::chrono::seconds kStopLimit{20};  // local workers are killed after 15 s
constexpr int kTrialsPerWorker = 8;             // until a worker has come and said how many it trains at once

std::chrono::milliseconds milliseconds_of(double seconds) { return std::chrono::milliseconds(static_cast<std::int64_t>(seconds * 1000)); }

/// By it a daemon knows its jobs again. Made once, kept beside the database: a copy of the database alone is another daemon's.
std::string daemon_id(const fs::path& folder) {
  const fs::path file = folder / "daemon_id";
  if (!fs::exists(file)) {
    std::random_device device;
    std::string id;
    for (int i = 0; i < 12; ++i) id += "0123456789abcdef"[device() % 16];
    write_atomically(file, id + "\n");
  }
  std::string id = read_text(file);
  while (!id.empty() && id.back() == '\n') id.pop_back();
  if (id.empty() || id.find_first_not_of("0123456789abcdefghijklmnopqrstuvwxyz-") != std::string::npos) {
    throw ConfigError(file.string() + ": expected the daemon's identity towards Slurm (letters and digits), got \"" + id +
                      "\"; without the file a new one is made, and jobs of the old one are left to themselves");
  }
  return id;
}

std::string beside_this_program(const std::string& program) {
  return program.empty() ? (fs::read_symlink("/proc/self/exe").parent_path() / "fusion-worker").string() : fs::absolute(program).string();
}

struct Pool {
  Pool(PoolOptions given, std::unique_ptr<Launcher> by) : options(std::move(given)), launcher(std::move(by)), sizer(milliseconds_of(options.shrink_after_s)) {}
  const PoolOptions options;
  std::unique_ptr<Launcher> launcher;
  PoolSizer sizer;
  int wanted = 0;
  int pack = kTrialsPerWorker;  // as its workers last said
  std::string lacks;            // for a retraining that no pool can do
  // Of a retraining, the most that one of its workers was ever good for; none: nothing is known that limits it.
  std::optional<int> processes;
  std::optional<double> longest_epoch_s, first_epoch_s;
  std::string token_problem;    // its workers would be turned away
  SteadyTime look_at_token{};   // not before
  std::optional<SteadyTime> looking_since;  // at the token's file
  bool token_good = false;      // it was found since the last tick

  // One that has just come has the whole of its time, and the next one will have as much.
  void learn(const Workload::Worker& worker) {
    if (worker.processes) processes = std::max(processes.value_or(0), *worker.processes);
    if (!worker.longest_epoch_s) return;
    longest_epoch_s = std::max(longest_epoch_s.value_or(0), *worker.longest_epoch_s);
    first_epoch_s = worker.first_epoch_s;
  }
  std::string problem() const {
    if (!token_problem.empty()) return token_problem;
    const std::string of_launcher = launcher->problem();
    return of_launcher.empty() ? lacks : of_launcher;
  }
};

}  // namespace

class WorkerPools::Impl {
 public:
  Impl(asio::io_context& io, Dispatcher& dispatcher, Setting setting);
  void start();
  void tokens_changed();
  void hold() { held_ = true; }
  void stop(bool drained, std::function<void()> done);
  json to_json() const;

 private:
  using Known = std::map<std::string, const Workload::Worker*>;  // by name, and by job

  std::unique_ptr<Launcher> make_launcher(const PoolOptions& pool);
  std::unique_ptr<Launcher> make_local(const PoolOptions& pool) const;
  void await_tick();
  void tick();
  PoolState state_of(Pool& pool, const Known& known) const;
  void resize(Pool& pool, const Known& known);
  bool may_show_token(Pool& pool, bool launches);
  void check_token(Pool& pool);
  void token_found(Pool& pool, const std::string& problem);
  void tell_token(Pool& pool, const std::string& problem);
  void shrink(Pool& pool, int count, const Known& known);
  void ended_one(const std::function<void()>& done);

  asio::io_context& io_;
  Dispatcher& dispatcher_;
  const Setting setting_;
  std::unique_ptr<SlurmQueue> slurm_;
  std::string daemon_id_;
  std::vector<std::unique_ptr<Pool>> pools_;
  asio::steady_timer timer_;
  std::size_t stopping_ = 0;  // launchers that are not done yet
  bool held_ = false, stopped_ = false;
};

WorkerPools::Impl::Impl(asio::io_context& io, Dispatcher& dispatcher, Setting setting)
    : io_(io), dispatcher_(dispatcher), setting_(std::move(setting)), timer_(io) {
  std::vector<std::string> slurm_names, problems;
  for (const PoolOptions& pool : setting_.pools) {
    if (pool.launcher == LauncherKind::slurm) slurm_names.push_back(pool.name);
  }
  if (!slurm_names.empty()) {
    slurm_ = std::make_unique<SlurmQueue>(io, setting_.slurm, slurm_names);
    daemon_id_ = daemon_id(setting_.folder);
  }
  for (const PoolOptions& pool : setting_.pools) {
    try {
      pools_.push_back(std::make_unique<Pool>(pool, make_launcher(pool)));
    } catch (const ConfigError& error) {
      problems.insert(problems.end(), error.problems().begin(), error.problems().end());
    }
  }
  if (!problems.empty()) throw ConfigError(problems);
}

std::unique_ptr<Launcher> WorkerPools::Impl::make_launcher(const PoolOptions& pool) {
  if (pool.launcher == LauncherKind::local) return make_local(pool);
  SlurmLauncher::Setting setting;
  setting.daemon_id = daemon_id_;
  setting.url = pool.url.empty() ? setting_.url : pool.url;
  setting.worker_program = beside_this_program(setting_.worker_program);
  setting.log_level = setting_.log_level;
  setting.folder = setting_.folder;
  if (pool.url.empty()) {
    logger("launch")->info("jobs of the pool find the daemon at the address that it listens on; key url names another pool={} url={}", pool.name, setting.url);
  }
  return std::make_unique<SlurmLauncher>(*slurm_, pool, setting_.slurm, std::move(setting));
}

std::unique_ptr<Launcher> WorkerPools::Impl::make_local(const PoolOptions& pool) const {
  LocalLauncherOptions options;
  options.count = pool.min;
  options.program = pool.worker_program.empty() ? setting_.worker_program : pool.worker_program;
  options.name_prefix = pool.name + "-" + std::to_string(::getpid());
  options.arguments = {"--connect", setting_.url, "--log-level", setting_.log_level};
  options.arguments.insert(options.arguments.end(), pool.worker_args.begin(), pool.worker_args.end());
  options.device = pool.device;
  options.environment = setting_.local_environment;
  for (const auto& [key, value] : pool.environment) options.environment[key] = value;
  return std::make_unique<LocalLauncher>(io_, options);
}

void WorkerPools::Impl::start() {
  for (const auto& pool : pools_) pool->launcher->start();
  tick();
  await_tick();
}

void WorkerPools::Impl::await_tick() {
  timer_.expires_after(kTick);
  timer_.async_wait([this](boost::system::error_code error) {
    if (error || held_) return;
    tick();
    await_tick();
  });
}

void WorkerPools::Impl::tick() {
  const Workload load = dispatcher_.workload();
  Known known;
  std::set<std::string> connected;
  OpenWork work{load.queued};
  for (const Workload::Retraining& waiting : load.retrainings) work.retrainings.push_back({waiting.processes, waiting.epoch_cpu_s, waiting.epoch_gpu_s});
  for (const Workload::Worker& worker : load.workers) {
    for (const std::string& name : {worker.name, worker.job}) {
      if (name.empty()) continue;
      connected.insert(name);
      const Workload::Worker*& entry = known[name];  // of two in one job (its old node may live on) the busy one
      if (entry == nullptr || worker.busy) entry = &worker;
    }
    if (worker.held > static_cast<std::size_t>(worker.pack)) work.trials += worker.held - static_cast<std::size_t>(worker.pack);
  }
  std::vector<PoolState> states;
  for (const auto& pool : pools_) {
    pool->launcher->connected(connected);
    states.push_back(state_of(*pool, known));
  }
  const std::vector<int> sizes = wanted_sizes(work, states);
  for (std::size_t i = 0; i < pools_.size(); ++i) {
    pools_[i]->wanted = sizes[i];
    pools_[i]->lacks = what_it_lacks(states[i], work, states);
    resize(*pools_[i], known);
  }
  if (slurm_) slurm_->tick();
}

PoolState WorkerPools::Impl::state_of(Pool& pool, const Known& known) const {
  PoolState state{pool.options.min, pool.options.max, 1, 0, pool.launcher->stuck() || !pool.token_problem.empty()};
  int pack = 0;
  for (const LaunchedWorker& worker : pool.launcher->workers()) {
    const auto found = known.find(worker.name);
    if (found == known.end()) continue;
    pack = std::max(pack, found->second->pack);
    pool.learn(*found->second);
    if (worker.counts() && found->second->busy) ++state.busy;
  }
  if (pack > 0) pool.pack = pack;
  state.processes = pool.processes;
  if (!state.processes && pool.options.launcher == LauncherKind::slurm && pool.options.gpus_per_worker > 0) state.processes = pool.options.gpus_per_worker;
  state.gpu = pool.options.gpus_per_worker > 0 || pool.options.device.starts_with("cuda");
  state.longest_epoch_s = pool.longest_epoch_s;
  state.first_epoch_s = pool.first_epoch_s;
  state.trials_per_worker = pool.options.trials_per_worker > 0 ? pool.options.trials_per_worker : pool.pack;
  return state;
}

void WorkerPools::Impl::resize(Pool& pool, const Known& known) {
  const std::vector<LaunchedWorker> workers = pool.launcher->workers();
  const auto have = static_cast<int>(std::ranges::count_if(workers, &LaunchedWorker::counts));
  const int step = pool.sizer.step(Steady::now(), pool.wanted, have);
  if (step < 0) shrink(pool, -step, known);
  const int room = pool.launcher->may_launch();
  if (may_show_token(pool, step > 0 && room > 0)) pool.launcher->launch(std::min(step, room));
}

// The file is looked at before every launch, which then waits for the next tick; while its token is bad as seldom as what failed is tried again.
bool WorkerPools::Impl::may_show_token(Pool& pool, bool launches) {
  const std::string& file = pool.options.token_file;
  if (file.empty() || !setting_.token_problem) return launches;
  const bool good = std::exchange(pool.token_good, false);
  if (launches && good) return true;
  if ((launches || !pool.token_problem.empty()) && Steady::now() >= pool.look_at_token) check_token(pool);
  if (pool.looking_since && Steady::now() - *pool.looking_since > kSlowDisk) {
    tell_token(pool, "token_file " + file + ": its disk does not answer; nothing is launched until the file has been read");
  }
  return false;
}

void WorkerPools::Impl::check_token(Pool& pool) {
  if (pool.options.token_file.empty() || !setting_.token_problem || pool.looking_since) return;
  pool.looking_since = Steady::now();
  setting_.token_problem(pool.options.token_file, [this, &pool](const std::string& problem) { token_found(pool, problem); });
}

void WorkerPools::Impl::token_found(Pool& pool, const std::string& problem) {
  pool.looking_since.reset();
  pool.token_good = problem.empty();
  if (!pool.token_good) pool.look_at_token = Steady::now() + milliseconds_of(setting_.slurm.retry_s);
  tell_token(pool, problem);
}

void WorkerPools::Impl::tell_token(Pool& pool, const std::string& problem) {
  if (problem == std::exchange(pool.token_problem, problem)) return;
  if (problem.empty()) logger("launch")->info("workers would be let in again pool={}", pool.options.name);
  else logger("launch")->error("workers would be turned away pool={} reason=\"{}\"", pool.options.name, problem);
}

void WorkerPools::Impl::tokens_changed() {
  for (const auto& pool : pools_) check_token(*pool);
}

// What waits goes first, then who is idle. Nobody is taken away from a trial.
void WorkerPools::Impl::shrink(Pool& pool, int count, const Known& known) {
  count -= pool.launcher->withdraw(count);
  std::set<std::string> leaving;
  for (const LaunchedWorker& worker : pool.launcher->workers()) {
    if (static_cast<int>(leaving.size()) >= count) break;
    const auto found = known.find(worker.name);
    if (!worker.counts() || (worker.state != "running" && found == known.end())) continue;
    if (found != known.end()) {  // perhaps of a job that waits again, whose first worker lives on in a node that Slurm cannot reach
      if (found->second->busy || !dispatcher_.drain_worker(found->second->name, "there is no work for it")) continue;
    } else if (worker.since_s < setting_.slurm.connect_s) {
      continue;  // about to come
    }
    leaving.insert(worker.name);
  }
  if (leaving.empty()) return;
  logger("launch")->info("idle workers leave pool={} workers={}", pool.options.name, leaving.size());
  pool.launcher->retire(leaving);
}

void WorkerPools::Impl::stop(bool drained, std::function<void()> done) {
  held_ = true;
  stopping_ = pools_.size();
  timer_.expires_after(kStopLimit);
  timer_.async_wait([this, done](boost::system::error_code error) {
    if (error) return;
    logger("launch")->warn("a launcher does not end; jobs may be left");
    stopping_ = 1;
    ended_one(done);
  });
  for (const auto& pool : pools_) {
    if (drained && pool->options.launcher == LauncherKind::slurm) pool->launcher->withdraw(INT_MAX);
    pool->launcher->stop([this, done] { ended_one(done); });
  }
}

void WorkerPools::Impl::ended_one(const std::function<void()>& done) {
  if (stopped_ || --stopping_ > 0) return;
  stopped_ = true;
  timer_.cancel();
  if (slurm_) slurm_->stop();
  asio::post(io_, done);
}

json WorkerPools::Impl::to_json() const {
  std::map<std::string, std::string> by_name;
  for (const Workload::Worker& worker : dispatcher_.workload().workers) {
    by_name[worker.name] = worker.name;
    if (!worker.job.empty()) by_name[worker.job] = worker.name;
  }
  json list = json::array();
  for (const auto& pool : pools_) {
    json workers = json::array();
    std::map<std::string, int> count;
    for (const LaunchedWorker& w : pool->launcher->workers()) {
      ++count[w.state];
      const auto found = by_name.find(w.name);
      workers.push_back({{"name", w.name},
                         {"state", w.state},
                         {"detail", w.detail},
                         {"node", w.node},
                         {"process", w.process},
                         {"starts", w.starts},
                         {"last_end", w.last_end},
                         {"since_s", w.since_s},
                         {"worker", found == by_name.end() ? json() : json(found->second)}});
    }
    list.push_back({{"name", pool->options.name},
                    {"launcher", name_of(pool->options.launcher)},
                    {"min", pool->options.min},
                    {"max", pool->options.max},
                    {"wanted", pool->wanted},
                    {"waiting", count["waiting"]},
                    {"running", count["running"] + count["closing"]},
                    {"leaving", count["leaving"]},
                    {"problem", pool->problem()},
                    {"launched", std::move(workers)}});
  }
  return list;
}

WorkerPools::WorkerPools(asio::io_context& io, Dispatcher& dispatcher, Setting setting) : impl_(std::make_unique<Impl>(io, dispatcher, std::move(setting))) {}
WorkerPools::~WorkerPools() = default;
void WorkerPools::start() { impl_->start(); }
void WorkerPools::tokens_changed() { impl_->tokens_changed(); }
void WorkerPools::hold() { impl_->hold(); }
void WorkerPools::stop(bool drained, std::function<void()> done) { impl_->stop(drained, std::move(done)); }
json WorkerPools::to_json() const { return impl_->to_json(); }

}  // namespace fusion
