#include "tools/daemon.h"

#include <signal.h>
#include <sys/resource.h>

#include <algorithm>
#include <cstdlib>
#include <future>
#include <optional>
#include <thread>

#include "base/files.h"
#include "base/log.h"
#include "base/version.h"
#include "security/tls.h"
#include "store/page_cache.h"
#include "tools/api.h"
#include "tools/backup_host.h"
#include "tools/epoch_history.h"
#include "tools/pool_token.h"
#include "tools/reader_pool.h"
#include "tools/retraining_files.h"
#include "tools/retraining_host.h"
#include "tools/service_notice.h"
#include "tools/study_host.h"
#include "tools/termination_signals.h"
#include "tools/worker_pools.h"

namespace fusion {

namespace {

namespace fs = std::filesystem;

constexpr std::chrono::seconds kLookAtTokens{1};
constexpr std::size_t kOwnDescriptors = 128;  // database, logs, workers' pipes, libraries
constexpr std::chrono::milliseconds kLookAgain{20};
constexpr std::chrono::seconds kHandBack{10};  // for workers that leave, to give back what they have not ended
constexpr std::chrono::seconds kLetGo{5};  // for answers under way, then for searches and queries, before the process ends without them

DispatchOptions dispatch_options(const DaemonConfig& config) {
  DispatchOptions options;
  options.lease = std::chrono::milliseconds(static_cast<std::int64_t>(config.lease_s * 1000));
  options.heartbeat = std::chrono::milliseconds(static_cast<std::int64_t>(config.heartbeat_s * 1000));
  options.reconnect_grace = std::chrono::milliseconds(static_cast<std::int64_t>(config.reconnect_grace_s * 1000));
  return options;
}

/// Where processes of this machine reach a server that is bound to `address`.
std::string local_host(const std::string& address) { return address == "0.0.0.0" ? "127.0.0.1" : address == "::" ? "::1" : address; }

/// Local workers check the certificate like all others, so it must name where they connect to.
void check_local_workers(const DaemonConfig& config, const std::string& address) {
  const std::vector<PoolOptions> pools = config.all_pools();
  const bool any = std::ranges::any_of(pools, [](const PoolOptions& pool) { return pool.launcher == LauncherKind::local; });
  if (!any || !config.security.has_tls()) return;
  const std::string host = local_host(address);
  if (certificate_names(config.security.certificate, host)) return;
  throw ConfigError("tls/certificate: " + config.security.certificate + " does not name " + host + ", where local workers connect to; make one that does "
                    "(fusionctl certs always adds 127.0.0.1 and ::1), or start without local workers");
}

/// Jobs of Slurm come from other hosts, and would be turned away there one by one.
void check_pool_tokens(const std::vector<PoolOptions>& pools, bool needed) {
  std::vector<std::string> problems;
  for (const PoolOptions& pool : pools) {
    if (!needed || pool.launcher != LauncherKind::slurm || !pool.token_file.empty()) continue;
    problems.push_back("pool " + pool.name + ": this daemon asks workers for a token; expected token_file, a file of mode 0600 with a token of role worker, "
                       "on a path that the nodes have");
  }
  if (!problems.empty()) throw ConfigError(problems);
}

}  // namespace

struct Daemon::Impl {
  explicit Impl(DaemonConfig given);
  void start_pools();
  void serve(const std::string& address, std::uint16_t port, std::shared_ptr<ssl::context> tls);
  void reload_tokens(bool if_changed);
  void watch_tokens();
  void await_hangup();
  void reload();
  std::optional<std::string> not_ready() const;
  void stop(bool drain_workers, const std::string& reason);
  void await_results();
  bool recall_workers();
  void end_workers();
  void store_broken(const std::exception_ptr& error);
  void finish_answers();
  void end_threads();

  DaemonConfig config;
  SystemClock clock;
  asio::thread_pool search;  // destroyed after io: handlers left there own strands of it
  asio::io_context io{1};
  ReaderGate gate;
  RightOfWay way;
  std::unique_ptr<GroupCommit> store;
  std::unique_ptr<Dispatcher> dispatcher;
  std::unique_ptr<StudyHost> studies;
  std::unique_ptr<RetrainingHost> retrainings;
  std::unique_ptr<RetrainingFiles> files;
  std::unique_ptr<ReaderPool> readers;
  std::unique_ptr<BackupHost> backups;
  std::unique_ptr<Api> api;
  std::unique_ptr<Access> access;
  std::unique_ptr<Server> server;
  std::unique_ptr<PoolTokens> pool_tokens;
  std::unique_ptr<WorkerPools> pools;
  asio::steady_timer tokens_timer{io};
  std::unique_ptr<TerminationSignals> signals;
  asio::signal_set hangups{io};
  asio::steady_timer drain_timer{io};
  SteadyTime drain_until{};
  std::string stop_reason;
  bool workers_leave = false;
  bool recalled = false;
  bool stopping = false;
  int exit_code = 0;
};

Daemon::Impl::Impl(DaemonConfig given) : config(std::move(given)), search(static_cast<std::size_t>(config.search_threads)) {
  if (config.data_roots.empty()) config.data_roots.push_back(fs::current_path());
  config.security.check_served();
  const auto [address, port] = config.endpoint();
  const fs::path artifacts = config.artifacts_folder();
  access = std::make_unique<Access>(config.security.tokens, config.security.rule());
  std::shared_ptr<ssl::context> tls;
  if (config.security.has_tls()) tls = server_tls(config.security.certificate, config.security.key);
  check_local_workers(config, address);
  logger("fusiond")->info("starting code_version={} config={}", kCodeVersion, config.to_json().dump());

  const std::size_t block = page_block(config.reader_threads + ReaderPool::people_threads(config.reader_threads));
  if (!use_page_cache(block)) logger("fusiond")->warn("SQLite keeps pages its own way, which is slower: no block for them block_mb={}", block >> 20);
  Store opened = Store::open(config.db, clock, config.wal);
  const int requeued = opened.requeue_leased();
  if (requeued > 0) logger("fusiond")->warn("trials that were running when the last daemon ended are queued again trials={}", requeued);
  const int retrained = opened.requeue_leased_retrainings();
  if (retrained > 0) logger("fusiond")->warn("retrainings that were running go on from their checkpoints retrainings={}", retrained);
  const std::vector<RetrainingRecord> open_retrainings = opened.open_retrainings();
  std::vector<StudyRecord> found = opened.studies();
  opened.ask_readers(&gate);
  gate.on_drained([this] { store->tend_log(); });
  const auto broken = [this](std::exception_ptr error) { asio::post(io, [this, error] { store_broken(error); }); };
  store = std::make_unique<GroupCommit>(std::move(opened), broken, &way);
  DispatchOptions options = dispatch_options(config);
  options.on_ended = [this](const Ended& ended) { studies->on_ended(ended); };
  options.on_paused = [this](StudyId study, const std::string& why) { studies->on_paused(study, why); };
  dispatcher = std::make_unique<Dispatcher>(io, *store, clock, std::move(options));
  studies = std::make_unique<StudyHost>(io.get_executor(), search, *store, *dispatcher, config.data_roots, config.db);
  retrainings = std::make_unique<RetrainingHost>(io.get_executor(), search, *store, *dispatcher, config.data_roots, artifacts);
  files = std::make_unique<RetrainingFiles>(io, *dispatcher, config.uploads);
  readers = std::make_unique<ReaderPool>(config.db, config.reader_threads, &gate, &way);
  backups = std::make_unique<BackupHost>(io.get_executor(), config.db);
  api = std::make_unique<Api>(Api::Parts{io.get_executor(), *readers, *studies, *retrainings, *files, *dispatcher, *backups, *store, config.db, clock.steady(),
                                         config.data_roots, [this](bool drain) { stop(drain, "asked for over HTTP"); }, [this] { return not_ready(); },
                                         [this] { return server->counts(); },
                                         [this] { return pools ? pools->to_json() : nlohmann::json::array(); }});
  serve(address, port, std::move(tls));
  retrainings->take_up(open_retrainings, open_retrainings.empty() ? std::map<RetrainingId, EpochTimes>() : epoch_history(config.db));
  for (StudyRecord& study : found) studies->take_up(std::move(study));
}

void Daemon::Impl::serve(const std::string& address, std::uint16_t port, std::shared_ptr<ssl::context> tls) {
  ServerOptions options;
  static_cast<Limits&>(options) = config.limits;
  const std::size_t descriptors = raise_descriptor_limit();
  const std::size_t most = descriptors > 2 * kOwnDescriptors ? descriptors - kOwnDescriptors : descriptors / 2;
  if (options.connections > most) {
    logger("fusiond")->warn("fewer connections than configured, for want of descriptors connections={} configured={} descriptors={}", most,
                            options.connections, descriptors);
    options.connections = most;
  }
  options.address = address;
  options.port = port;
  options.tls = std::move(tls);
  options.access = access.get();
  server = std::make_unique<Server>(io, options, *dispatcher, [this](HttpRequest request, std::function<void(HttpResponse)> respond) {
    api->handle(std::move(request), std::move(respond));
  });
}

/// Takes up what changed in the tokens file; what cannot be read leaves everything as it was.
void Daemon::Impl::reload_tokens(bool if_changed) {
  try {
    if (!if_changed) access->reload();
    else if (!access->reload_if_changed()) return;
    const std::size_t closed = server->close_revoked();
    logger("fusiond")->info("tokens read again tokens={} sessions_closed={}", access->tokens(), closed);
    if (pools) pools->tokens_changed();
  } catch (const Error& error) {
    logger("fusiond")->error("tokens not read again, those known before stay valid error={}", nlohmann::json(error.what()).dump());
  }
}

void Daemon::Impl::watch_tokens() {
  if (!access->has_tokens()) return;
  tokens_timer.expires_after(kLookAtTokens);
  tokens_timer.async_wait([this](const boost::system::error_code& error) {
    if (error || stopping) return;
    reload_tokens(true);
    watch_tokens();
  });
}

void Daemon::Impl::start_pools() {
  WorkerPools::Setting setting;
  setting.pools = config.all_pools();
  if (setting.pools.empty()) return;
  check_pool_tokens(setting.pools, access->has_tokens());
  setting.slurm = config.slurm;
  const std::string host = local_host(config.endpoint().first);
  const std::string shown = host.find(':') == std::string::npos ? host : "[" + host + "]";
  setting.url = (config.security.has_tls() ? "https://" : "http://") + shown + ":" + std::to_string(server->port());
  // By the environment, which only the same user may read; a command line is for everybody.
  if (access->has_tokens()) setting.local_environment["FUSION_TOKEN"] = access->local_worker_token();
  if (config.security.has_tls()) setting.local_environment["FUSION_CA"] = fs::absolute(config.security.certificate).string();
  setting.log_level = config.log.level;
  setting.worker_program = config.worker_program;
  setting.folder = fs::absolute(config.db).string() + ".pools";
  if (access->has_tokens()) {
    pool_tokens = std::make_unique<PoolTokens>(io, *access);
    setting.token_problem = [this](const std::string& file, PoolTokens::Say say) { pool_tokens->check(file, std::move(say)); };
  }
  pools = std::make_unique<WorkerPools>(io, *dispatcher, std::move(setting));
  pools->start();
}

void Daemon::Impl::store_broken(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const std::exception& exception) {
    logger("fusiond")->error("the database cannot be written; stopping, nothing acknowledged is lost error=\"{}\"", exception.what());
  }
  exit_code = 1;
  stop(false, "the database cannot be written");
}

void Daemon::Impl::await_hangup() {
  hangups.async_wait([this](const boost::system::error_code& error, int) {
    if (error) return;
    reload();
    await_hangup();
  });
}

std::optional<std::string> Daemon::Impl::not_ready() const {
  if (exit_code != 0) return "the database cannot be written";
  if (stopping) return "the daemon stops";
  return std::nullopt;
}

/// SIGHUP: what is read again while the daemon runs.
void Daemon::Impl::reload() {
  notify_service(reloading_notice());
  reopen_logs();
  if (access->has_tokens()) reload_tokens(false);
  logger("fusiond")->info("reloaded log_file=\"{}\"", config.log.file);
  notify_service("READY=1");
}

// In this order: nothing new is given out and results are awaited; local workers end; the server ends. Each step has its limit.
void Daemon::Impl::stop(bool drain_workers, const std::string& reason) {
  if (stopping) return;
  stopping = true;
  tokens_timer.cancel();
  const double drain_s = exit_code == 0 ? config.drain_s : 0;  // a broken store takes no results
  logger("fusiond")->info("stopping reason=\"{}\" drain_s={}", reason, drain_s);
  notify_service("STOPPING=1\nSTATUS=waiting for results: " + reason);
  if (signals) signals->stop_waiting();
  boost::system::error_code ignored;
  hangups.cancel(ignored);
  studies->stop();
  backups->stop();
  if (pools) pools->hold();
  dispatcher->hold(reason);
  stop_reason = reason;
  workers_leave = drain_workers;
  if (drain_workers) dispatcher->drain_workers(reason);
  drain_until = clock.steady() + std::chrono::milliseconds(static_cast<std::int64_t>(drain_s * 1000));
  await_results();
}

void Daemon::Impl::await_results() {
  const bool busy = dispatcher->busy();
  if (!busy || (clock.steady() >= drain_until && !recall_workers())) {
    if (busy) logger("fusiond")->warn("results are not waited for any longer; their trials are queued again on the next start");
    return end_workers();
  }
  drain_timer.expires_after(kLookAgain);
  drain_timer.async_wait([this](const boost::system::error_code& error) {
    if (!error) await_results();
  });
}

/// Workers that leave for good would train on for nobody: what they did not end in time they give back. False where there is nothing to wait for.
bool Daemon::Impl::recall_workers() {
  if (!workers_leave || recalled || exit_code != 0) return false;
  recalled = true;
  logger("fusiond")->info("workers give back what they did not end in time limit_s={}", kHandBack.count());
  dispatcher->drain_workers(stop_reason);
  drain_until = clock.steady() + kHandBack;
  return true;
}

void Daemon::Impl::end_workers() {
  const auto stop_serving = [this] {
    server->stop();
    files->stop();
    dispatcher->stop();
    io.stop();  // run() gives what is left its time
  };
  if (pools) {
    pools->stop(workers_leave, stop_serving);
  } else {
    asio::post(io, stop_serving);
  }
}

void Daemon::Impl::finish_answers() {
  io.restart();
  io.run_for(kLetGo);
  if (!io.stopped()) logger("fusiond")->warn("requests under way were not answered waited_s={}", kLetGo.count());
}

/// Search and reader threads, and the one of pools' token files, which nobody can interrupt. If they are still busy after a while the process ends
/// here: all that was acknowledged is on disk.
void Daemon::Impl::end_threads() {
  std::promise<void> quiet;
  search.stop();
  std::thread waiting([this, &quiet] {
    search.join();
    readers->join();
    if (pool_tokens) pool_tokens->join();
    quiet.set_value();
  });
  if (quiet.get_future().wait_for(kLetGo) == std::future_status::timeout) {
    logger("fusiond")->warn("stopped amid a search or a query waited_s={}", kLetGo.count());
    std::_Exit(exit_code);
  }
  waiting.join();
}

Daemon::Daemon(DaemonConfig config) : impl_(std::make_unique<Impl>(std::move(config))) {}

Daemon::~Daemon() {
  impl_->search.join();
  impl_->readers.reset();  // the last one of them may still tell the store that it has left
  impl_->store.reset();  // finishes what was posted
}

std::uint16_t Daemon::port() const { return impl_->server->port(); }

int Daemon::run() {
  Impl& d = *impl_;
  d.watch_tokens();
  d.signals = std::make_unique<TerminationSignals>(d.io, [&d](int signal) { d.stop(false, signal == SIGTERM ? "SIGTERM" : "SIGINT"); });
  d.hangups.add(SIGHUP);
  d.await_hangup();
  d.start_pools();
  if (!d.config.port_file.empty()) write_atomically(d.config.port_file, std::to_string(port()) + "\n");
  logger("fusiond")->info("ready listen={} port={} db={}", d.config.listen, port(), d.config.db);
  notify_service("READY=1\nSTATUS=serving on port " + std::to_string(port()));
  d.io.run();
  d.finish_answers();
  d.end_threads();
  d.readers.reset();
  d.store.reset();
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  logger("fusiond")->info("stopped max_rss_mb={}", usage.ru_maxrss / 1024);
  return d.exit_code;
}

}  // namespace fusion
