#include "tools/bench/control_phases.h"

#include <time.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <thread>

#include "base/error.h"
#include "base/files.h"
#include "store/store_reader.h"
#include "tools/bench/control_daemon.h"
#include "tools/bench/control_fleet.h"
#include "tools/bench/cpu_clock.h"
#include "tools/bench/filled_database.h"

namespace fusion::bench {
namespace {

using nlohmann::json;
using Steady = std::chrono::steady_clock;
using namespace std::chrono_literals;
namespace fs = std::filesystem;

constexpr int kWaiting = 512;          // trials that stand queued, so that nobody waits for a proposal
constexpr int kManyEpochs = 100;
constexpr std::int64_t kOpen = 64;     // trials that wait in the study of phase start
constexpr std::int64_t kWindow = 10'000;      // trials over which a rate is taken
constexpr std::int64_t kEndless = 2'000'000;  // trials of a study that does not end while it is measured

double seconds_between(Steady::time_point from, Steady::time_point to) { return std::chrono::duration<double>(to - from).count(); }

/// To so many digits behind the point, so that its JSON is short.
double rounded(double value, int digits = 3) {
  const double scale = std::pow(10, digits);
  return std::round(value * scale) / scale;
}

double thread_cpu_seconds() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

/// A daemon with one study, and its workers.
struct Rig {
  Rig(const ControlOptions& options, const std::string& name, FleetOptions fleet_options, std::int64_t trials,
      const std::vector<std::string>& more = {})
      : folder(options.folder / name) {
    fs::create_directories(folder);
    if (!fs::exists(folder / "features.json")) write_manifest_head(folder);
    daemon = std::make_unique<ControlDaemon>(options.fusiond, folder, more);
    if (trials > 0) daemon->post("/api/v1/studies", control_study(trials, std::max(kWaiting, 2 * fleet_options.workers * fleet_options.slots)));
    fleet = std::make_unique<Fleet>(daemon->port(), fleet_options);
    fleet->connect();
  }

  /// Ends the daemon as a crash would, then looks for everything that was acknowledged.
  void end() {
    const FleetFigures& figures = fleet->figures();
    if (figures.refused > 0) throw Error(std::to_string(figures.refused) + " reports or results were acknowledged as not accepted");
    daemon->kill();
    const StoreReader reader = StoreReader::open((folder / "fusion.db").string());
    const auto column = [&](const std::string& sql) { return reader.query(sql, 10'000'000, 600s).at("rows"); };
    std::set<std::int64_t> completed;
    for (const json& row : column("SELECT id FROM trials WHERE state = 'completed'")) completed.insert(row[0].get<std::int64_t>());
    const auto missing = std::ranges::count_if(figures.trials, [&](std::int64_t trial) { return !completed.contains(trial); });
    const auto epochs = column("SELECT count(*) FROM epochs")[0][0].get<std::int64_t>();
    if (missing > 0 || epochs < figures.reports) {
      throw Error(std::to_string(missing) + " acknowledged results and " + std::to_string(std::max<std::int64_t>(0, figures.reports - epochs)) +
                  " acknowledged reports are not in the database " + (folder / "fusion.db").string());
    }
    fleet.reset();
    fs::remove_all(folder);
  }

  fs::path folder;
  std::unique_ptr<ControlDaemon> daemon;
  std::unique_ptr<Fleet> fleet;
};

FleetOptions fleet_of(const ControlOptions& options) {
  FleetOptions fleet;
  fleet.workers = options.workers;
  fleet.pack = options.pack;
  fleet.slots = options.slots;
  fleet.epochs = options.epochs;
  return fleet;
}

json latencies(const FleetFigures& figures) {
  return {{"dispatch_p50_ms", rounded(quantile(figures.dispatch_ms, 0.5))}, {"dispatch_p99_ms", rounded(quantile(figures.dispatch_ms, 0.99))},
          {"turnaround_p50_ms", rounded(quantile(figures.turnaround_ms, 0.5))}, {"turnaround_p99_ms", rounded(quantile(figures.turnaround_ms, 0.99))},
          {"ack_p50_ms", rounded(quantile(figures.ack_ms, 0.5))},           {"ack_p99_ms", rounded(quantile(figures.ack_ms, 0.99))},
          {"ack_p999_ms", rounded(quantile(figures.ack_ms, 0.999))}};
}

/// CPU and clock over a stretch of work.
struct Meter {
  explicit Meter(const ControlDaemon& daemon_) : daemon(daemon_), cpu(daemon.cpu_s()), io(daemon.io_cpu_s()) {}
  double wall_s() const { return seconds_between(begin, Steady::now()); }
  double daemon_s() const { return daemon.cpu_s() - cpu; }
  double io_s() const { return daemon.io_cpu_s() - io; }
  double clients_s() const { return cpu_seconds() - own; }

  const ControlDaemon& daemon;
  Steady::time_point begin = Steady::now();
  double cpu, io, own = cpu_seconds();
};

json cpu_figures(const Meter& meter, double count, const std::string& of) {
  const double daemon = meter.daemon_s(), clients = meter.clients_s(), wall = meter.wall_s();
  return {{"daemon_us_per_" + of, rounded(daemon / count * 1e6, 1)}, {"daemon_io_us_per_" + of, rounded(meter.io_s() / count * 1e6, 1)},
          {"client_us_per_" + of, rounded(clients / count * 1e6, 1)},     {"daemon_cores", rounded(daemon / wall)},
          {"client_cores", rounded(clients / wall)},                        {"client_share", rounded(clients / (clients + daemon))}};
}

/// Trials a second until so many results were acknowledged.
double timed(Rig& rig, std::int64_t results) {
  const auto begin = Steady::now();
  const std::size_t before = rig.fleet->figures().results.size();
  rig.fleet->run_until_results(static_cast<std::size_t>(results));
  return static_cast<double>(rig.fleet->figures().results.size() - before) / seconds_between(begin, Steady::now());
}

json saturated(Rig& rig, std::int64_t trials) {
  const std::int64_t window = std::min(kWindow, std::max<std::int64_t>(1, trials / 4));
  json rates = json::array();
  const Meter whole(*rig.daemon);
  for (std::int64_t done = 0; done < trials;) {
    done = std::min(done + window, trials);
    rates.push_back(rounded(timed(rig, done), 1));
  }
  const double wall = whole.wall_s();
  const FleetFigures& figures = rig.fleet->figures();
  json result = latencies(figures);
  const json cpu = cpu_figures(whole, static_cast<double>(trials), "trial");
  result.update(cpu);
  result["trials"] = trials;
  result["trials_per_s"] = rounded(static_cast<double>(trials) / wall, 1);
  result["reports_per_s"] = rounded(static_cast<double>(figures.reports) / wall, 1);
  result["rates"] = rates;
  return result;
}

/// A study that has `done` trials against young ones: daemons that take turns, so that whatever else the machine does meets both.
json flatness(const ControlOptions& options, Rig& large, std::int64_t done) {
  const std::int64_t window = std::max<std::int64_t>(1, 2 * options.small);
  std::vector<double> by_clock, by_cpu;
  for (int round = 0; round < options.rounds; ++round) {
    Rig young(options, "young", fleet_of(options), kEndless);
    young.fleet->run_until_results(static_cast<std::size_t>(options.small));
    const Meter young_meter(*young.daemon);
    const double young_rate = timed(young, options.small + window), young_s = young_meter.daemon_s();
    const Meter large_meter(*large.daemon);
    done += window;
    by_clock.push_back(timed(large, done) / young_rate);
    by_cpu.push_back(young_s / large_meter.daemon_s());
    young.end();
  }
  return {{"flatness", rounded(quantile(by_clock, 0.5))}, {"flatness_cpu", rounded(quantile(by_cpu, 0.5))}};
}

FleetOptions paced(const ControlOptions& options) {
  FleetOptions fleet = fleet_of(options);
  fleet.slots = fleet.pack;  // so that each waits for its next pack
  fleet.training = std::chrono::microseconds(static_cast<std::int64_t>(1e6 * options.workers * options.pack / options.load_per_s));
  return fleet;
}

void measure(Rig& rig, double seconds) {
  rig.fleet->forget_figures();
  rig.fleet->run_for(std::chrono::milliseconds(static_cast<std::int64_t>(seconds * 1000)));
}

json paced_figures(const Rig& rig, const Meter& meter) {
  const FleetFigures& figures = rig.fleet->figures();
  json result = latencies(figures);
  const json cpu = cpu_figures(meter, std::max<double>(1, static_cast<double>(figures.results.size())), "trial");
  result.update(cpu);
  result["trials_per_s"] = rounded(static_cast<double>(figures.results.size()) / meter.wall_s(), 1);
  return result;
}

/// What was measured in several stretches, all together.
class Stretches {
 public:
  explicit Stretches(Rig& rig) : rig_(rig) {}
  /// One more, after half of its time during which crowds disperse: nobody sent anything while scanning clients came or went. Returns the p99 of
  /// its acknowledgements, milliseconds.
  double measure(double seconds) {
    bench::measure(rig_, seconds / 2);
    const Meter meter(*rig_.daemon);
    bench::measure(rig_, seconds);
    const FleetFigures& figures = rig_.fleet->figures();
    for (const auto member : {&FleetFigures::dispatch_ms, &FleetFigures::turnaround_ms, &FleetFigures::ack_ms}) {
      (all_.*member).insert((all_.*member).end(), (figures.*member).begin(), (figures.*member).end());
    }
    all_.results.insert(all_.results.end(), figures.results.begin(), figures.results.end());
    wall_s_ += meter.wall_s();
    return quantile(figures.ack_ms, 0.99);
  }
  json figures() const {
    json result = latencies(all_);
    result["trials_per_s"] = rounded(static_cast<double>(all_.results.size()) / wall_s_, 1);
    return result;
  }

 private:
  Rig& rig_;
  FleetFigures all_;
  double wall_s_ = 0;
};

json paced_run(const ControlOptions& options, const std::string& name, int idle) {
  FleetOptions fleet = paced(options);
  fleet.idle = idle;
  Rig rig(options, name, fleet, kEndless);
  measure(rig, std::min(1.0, options.latency_s));  // warm
  const Meter meter(*rig.daemon);
  measure(rig, options.latency_s);
  json result = paced_figures(rig, meter);
  result["connections"] = rig.fleet->connected();
  rig.end();
  return result;
}

/// Threads that ask without a pause until told to stop.
class Askers {
 public:
  Askers(std::uint16_t port, int count, std::string method, std::string target, std::string body) {
    for (int i = 0; i < count; ++i) {
      threads_.emplace_back([this, port, method, target, body] {
        const double begin = thread_cpu_seconds();
        HttpClient client(port);
        while (!stop_) {
          client.request(method, target, body);
          ++answers_;
        }
        cpu_us_ += static_cast<std::int64_t>((thread_cpu_seconds() - begin) * 1e6);
      });
    }
  }
  std::int64_t stop() {
    stop_ = true;
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
    return answers_;
  }
  ~Askers() { stop(); }

 private:
  std::atomic<bool> stop_{false};
  std::atomic<std::int64_t> answers_{0}, cpu_us_{0};
  std::vector<std::thread> threads_;
};

/// Median and highest time of an answer, milliseconds.
json asked(HttpClient& client, const std::string& target, int times) {
  std::vector<double> ms;
  std::size_t bytes = 0;
  for (int i = 0; i < times; ++i) {
    const auto begin = Steady::now();
    bytes = client.request("GET", target).size();
    ms.push_back(1000 * seconds_between(begin, Steady::now()));
  }
  return {{"median_ms", rounded(quantile(ms, 0.5))}, {"highest_ms", rounded(*std::ranges::max_element(ms))}, {"bytes", bytes}};
}

/// Three starts on what lies in `folder`; at the last one workers come too, if its study runs.
json starts(const ControlOptions& options, const fs::path& folder, bool runs) {
  json result;
  std::vector<double> ready;
  for (int round = 0; round < 3; ++round) {
    ControlDaemon daemon(options.fusiond, folder);
    ready.push_back(daemon.ready_ms());
    if (round < 2) continue;
    const auto begin = Steady::now();
    daemon.get("/api/v1/studies");
    result["first_answer_ms"] = rounded(1000 * seconds_between(begin, Steady::now()));
    if (runs) {
      FleetOptions fleet_options = fleet_of(options);
      fleet_options.workers = 4;
      Fleet fleet(daemon.port(), fleet_options);
      fleet.connect();
      fleet.run_until_results(1);
      result["first_result_s"] = rounded(seconds_between(begin, Steady::now()));
    }
    std::this_thread::sleep_for(500ms);
    result["resident_mb"] = rounded(daemon.resident_mb(), 1);
  }
  result["ready_ms"] = rounded(quantile(ready, 0.5), 1);
  return result;
}

}  // namespace

json phase_trials(const ControlOptions& options) {
  Rig rig(options, "trials", fleet_of(options), kEndless);
  json result = saturated(rig, options.trials);
  const json flat = flatness(options, rig, options.trials);
  result.update(flat);
  rig.end();
  return result;
}

json phase_reports(const ControlOptions& options) {
  FleetOptions fleet = fleet_of(options);
  fleet.epochs = kManyEpochs;
  Rig rig(options, "reports", fleet, kEndless);
  json result = saturated(rig, std::max<std::int64_t>(1, options.reports / kManyEpochs));
  rig.end();
  return result;
}

json phase_dispatch(const ControlOptions& options) { return paced_run(options, "dispatch", 0); }
json phase_idle(const ControlOptions& options) { return paced_run(options, "idle", options.idle); }

json phase_readers(const ControlOptions& options) {
  Rig rig(options, "readers", paced(options), kEndless);
  measure(rig, options.latency_s);
  const json scan{{"sql", "SELECT count(*), avg(dev_score), max(train_loss), sum(length(facts)) FROM trials NOT INDEXED"}};
  Stretches quiet(rig), scanned(rig);
  std::vector<double> ratios;
  std::int64_t scans = 0;
  for (int turn = 0; turn < options.turns; ++turn) {
    const double without = quiet.measure(options.latency_s / 4);
    Askers askers(rig.daemon->port(), options.scans, "POST", "/api/v1/query", scan.dump());
    ratios.push_back(scanned.measure(options.latency_s / 4) / std::max(0.001, without));
    scans += askers.stop();
  }
  const auto ack_p99 = [](const json& figures) { return figures["ack_p99_ms"].get<double>(); };
  json result{{"quiet", quiet.figures()}, {"scanned", scanned.figures()}, {"scans", scans}, {"ratio", rounded(quantile(ratios, 0.5))}};
  result["ratio_of_all"] = rounded(ack_p99(result["scanned"]) / std::max(0.001, ack_p99(result["quiet"])));
  rig.end();
  return result;
}

json phase_api(const ControlOptions& options) {
  fs::create_directories(options.folder / "api");
  fill_database(options.folder / "api", options.trials, 0);
  Rig rig(options, "api", paced(options), kEndless);
  const std::vector<std::pair<std::string, std::string>> targets{{"studies", "/api/v1/studies"},
                                                                 {"study", "/api/v1/studies/1"},
                                                                 {"running_study", "/api/v1/studies/2"},
                                                                 {"best", "/api/v1/studies/1/best?top=20"},
                                                                 {"trials", "/api/v1/studies/1/trials?order=ended&limit=100"},
                                                                 {"last_trials", "/api/v1/studies/1/trials?order=asked&limit=100&offset=" +
                                                                                     std::to_string(std::max<std::int64_t>(0, options.trials - 100))},
                                                                 {"trial", "/api/v1/trials/" + std::to_string(options.trials)},
                                                                 {"fits", "/api/v1/studies/1/fits"},
                                                                 {"workers", "/api/v1/workers"},
                                                                 {"events", "/api/v1/events?limit=100"}};
  json answers;
  std::atomic<bool> done{false};
  std::exception_ptr failed;
  std::thread asker([&] {
    try {
      HttpClient client(rig.daemon->port());
      for (const auto& [name, target] : targets) answers[name] = asked(client, target, 15);
    } catch (...) {
      failed = std::current_exception();
    }
    done = true;
  });
  while (!done) rig.fleet->run_for(100ms);
  asker.join();
  if (failed) std::rethrow_exception(failed);
  double worst = 0;
  for (const json& answer : answers) worst = std::max(worst, answer["median_ms"].get<double>());
  json result{{"answers", answers}, {"worst_median_ms", worst}};
  rig.end();
  return result;
}

json phase_start(const ControlOptions& options) {
  const fs::path folder = options.folder / "start";
  fs::create_directories(folder);
  std::fprintf(stderr, "bench_control_plane: filling a database with %lld trials\n", static_cast<long long>(options.rows));
  fill_database(folder, options.rows, kOpen);
  json result{{"rows", options.rows}, {"database_mb", rounded(static_cast<double>(fs::file_size(folder / "fusion.db")) / (1 << 20), 1)}};
  result["running"] = starts(options, folder, true);
  ControlDaemon(options.fusiond, folder).post("/api/v1/studies/1/cancel", json::object());
  result["ended"] = starts(options, folder, false);
  fs::remove_all(folder);
  return result;
}

json phase_optuna(const ControlOptions& options) {
  const std::string command = "'" + options.python + "' '" + options.optuna_script + "' '" + options.folder.string() + "' " +
                              std::to_string(options.optuna_trials) + " 2>/dev/null";
  std::FILE* pipe = ::popen(command.c_str(), "r");
  std::string text;
  if (pipe != nullptr) {
    for (int c = std::fgetc(pipe); c != EOF; c = std::fgetc(pipe)) text.push_back(static_cast<char>(c));
    ::pclose(pipe);
  }
  json answer = json::parse(text, nullptr, false);
  if (!answer.is_discarded()) return answer;
  std::fprintf(stderr, "bench_control_plane: %s has no Optuna (Debian: apt-get install --no-install-recommends python3-optuna): nothing is compared with it\n",
               options.python.c_str());
  return nullptr;
}

}  // namespace fusion::bench
