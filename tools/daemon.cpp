#include "tools/daemon.h"

#include <sys/resource.h>

#include <optional>

#include "base/files.h"
#include "base/log.h"
#include "base/version.h"
#include "tools/api.h"
#include "tools/reader_pool.h"
#include "tools/retraining_host.h"
#include "tools/study_host.h"
#include "workers/launch/local_launcher.h"

namespace fusion {

namespace {

namespace fs = std::filesystem;

DispatchOptions dispatch_options(const DaemonConfig& config) {
  DispatchOptions options;
  options.lease = std::chrono::milliseconds(static_cast<std::int64_t>(config.lease_s * 1000));
  options.heartbeat = std::chrono::milliseconds(static_cast<std::int64_t>(config.heartbeat_s * 1000));
  options.reconnect_grace = std::chrono::milliseconds(static_cast<std::int64_t>(config.reconnect_grace_s * 1000));
  return options;
}

}  // namespace

struct Daemon::Impl {
  explicit Impl(DaemonConfig given);
  void take_up_studies(Store& opened);
  void start_local_workers();
  void stop(bool drain_workers, const std::string& reason);
  void store_broken(const std::exception_ptr& error);

  DaemonConfig config;
  SystemClock clock;
  asio::thread_pool search;  // destroyed after io: handlers left there own strands of it
  asio::io_context io{1};
  std::unique_ptr<GroupCommit> store;
  std::unique_ptr<Dispatcher> dispatcher;
  std::unique_ptr<StudyHost> studies;
  std::unique_ptr<RetrainingHost> retrainings;
  std::unique_ptr<ReaderPool> readers;
  std::unique_ptr<Api> api;
  std::unique_ptr<Server> server;
  std::unique_ptr<LocalLauncher> launcher;
  asio::signal_set signals{io};
  bool stopping = false;
  int exit_code = 0;
};

Daemon::Impl::Impl(DaemonConfig given) : config(std::move(given)), search(static_cast<std::size_t>(config.search_threads)) {
  if (config.data_roots.empty()) config.data_roots.push_back(fs::current_path());
  const auto [address, port] = config.endpoint();
  const fs::path artifacts = config.artifacts_folder();
  logger("fusiond")->info("starting code_version={} config={}", kCodeVersion, config.to_json().dump());

  Store opened = Store::open(config.db, clock);
  const int requeued = opened.requeue_leased();
  if (requeued > 0) logger("fusiond")->warn("trials that were running when the last daemon ended are queued again trials={}", requeued);
  const int retrained = opened.requeue_leased_retrainings();
  if (retrained > 0) logger("fusiond")->warn("retrainings that were running go on from their checkpoints retrainings={}", retrained);
  const std::vector<RetrainingRecord> open_retrainings = opened.open_retrainings();
  std::vector<std::pair<StudyRecord, std::vector<Trial>>> found;
  for (StudyRecord& study : opened.studies()) {
    if (study.state != StudyState::running && study.state != StudyState::paused) continue;
    auto trials = opened.trials(study.id);
    found.emplace_back(std::move(study), std::move(trials));
  }
  store = std::make_unique<GroupCommit>(std::move(opened), [this](std::exception_ptr error) {
    asio::post(io, [this, error] { store_broken(error); });
  });
  DispatchOptions options = dispatch_options(config);
  options.on_ended = [this](const Ended& ended) { studies->on_ended(ended); };
  options.on_paused = [this](StudyId study, const std::string& why) { studies->on_paused(study, why); };
  dispatcher = std::make_unique<Dispatcher>(io, *store, clock, std::move(options));
  studies = std::make_unique<StudyHost>(io.get_executor(), search, *store, *dispatcher, config.data_roots);
  retrainings = std::make_unique<RetrainingHost>(io.get_executor(), search, *store, *dispatcher, config.data_roots, artifacts);
  readers = std::make_unique<ReaderPool>(config.db, config.reader_threads);
  api = std::make_unique<Api>(Api::Parts{io.get_executor(), *readers, *studies, *retrainings, *dispatcher, config.db, clock.steady(),
                                         [this](bool drain) { stop(drain, "asked for over HTTP"); }});
  ServerOptions server_options;
  server_options.address = address;
  server_options.port = port;
  server = std::make_unique<Server>(io, server_options, *dispatcher,
                                    [this](const HttpRequest& request, std::function<void(HttpResponse)> respond) {
                                      api->handle(request, std::move(respond));
                                    });
  retrainings->take_up(open_retrainings);
  for (auto& [study, trials] : found) studies->take_up(std::move(study), std::move(trials));
}

void Daemon::Impl::start_local_workers() {
  if (config.local_workers == 0) return;
  LocalLauncherOptions options;
  options.count = config.local_workers;
  options.program = config.worker_program;
  const auto [address, port] = config.endpoint();
  const std::string host = address == "::1" ? "[::1]" : address;
  options.arguments = {"--connect", "http://" + host + ":" + std::to_string(server->port()), "--log-level", config.log_level};
  options.device = config.local_device;
  launcher = std::make_unique<LocalLauncher>(io, options);
  launcher->start();
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

void Daemon::Impl::stop(bool drain_workers, const std::string& reason) {
  if (stopping) return;
  stopping = true;
  logger("fusiond")->info("stopping reason=\"{}\"", reason);
  signals.cancel();
  boost::system::error_code ignored;
  signals.clear(ignored);  // a second signal ends the daemon at once
  studies->stop();
  if (drain_workers) dispatcher->drain_workers(reason);
  const auto stop_serving = [this] {
    server->stop();
    dispatcher->stop();
  };
  if (launcher) {
    launcher->stop(stop_serving);
  } else {
    stop_serving();
  }
}

Daemon::Daemon(DaemonConfig config) : impl_(std::make_unique<Impl>(std::move(config))) {}

Daemon::~Daemon() {
  impl_->search.join();
  impl_->store.reset();  // finishes what was posted
}

std::uint16_t Daemon::port() const { return impl_->server->port(); }

int Daemon::run() {
  Impl& d = *impl_;
  d.signals.add(SIGTERM);
  d.signals.add(SIGINT);
  d.signals.async_wait([&d](const boost::system::error_code& error, int signal) {
    if (!error) d.stop(false, signal == SIGTERM ? "SIGTERM" : "SIGINT");
  });
  d.start_local_workers();
  if (!d.config.port_file.empty()) write_atomically(d.config.port_file, std::to_string(port()) + "\n");
  logger("fusiond")->info("ready listen={} port={} db={}", d.config.listen, port(), d.config.db);
  d.io.run();
  d.search.join();
  d.store.reset();
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  logger("fusiond")->info("stopped max_rss_mb={}", usage.ru_maxrss / 1024);
  return d.exit_code;
}

}  // namespace fusion
