// A fleet of simulated workers that join, leave and die, and what it costs the daemon (docs/crash-tests.md).
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/clock.h"
#include "base/error.h"
#include "base/progress.h"
#include "base/random.h"
#include "tools/crash/load.h"
#include "tools/crash/scene.h"
#include "tools/crash/verdict.h"
#include "tools/run_main.h"

namespace {

using namespace fusion;  // NOLINT: a main program
using nlohmann::json;
using std::chrono::milliseconds;
using Seconds = std::chrono::duration<double>;

struct FleetOptions {
  int workers = 200, studies = 0;  // studies: 0: one for eight workers
  double minutes = 2, epoch_s = 1, leaves_per_min = 30, deaths_per_min = 30, patience_s = 120, sample_s = 5;
  std::uint64_t seed = 1;
  bool json = false, keep = false;
  std::string folder;
};

/// The daemon at one moment.
struct Sample {
  double at_s = 0, cpu_s = 0, rss_mb = 0;
  std::int64_t ended = 0;  // trials
};

class Fleet {
 public:
  explicit Fleet(const FleetOptions& options)
      : options_(options), scene_(scene_options(options)), rng_(options.seed), load_(scene_, options.seed, options.studies, 0),
        begun_(std::chrono::steady_clock::now()), progress_("fleet", std::llround(60 * options.minutes), "s") {
    scene_.start_daemon();
    scene_.await_port(std::chrono::seconds(60));
  }

  void run() {
    SteadyTime leave = begun_ + pause(options_.leaves_per_min), death = begun_ + pause(options_.deaths_per_min);
    while (elapsed_s() < 60 * options_.minutes) {
      const SteadyTime now = std::chrono::steady_clock::now();
      tend();
      if (now >= leave) send(SIGTERM, left_), leave += pause(options_.leaves_per_min);
      if (now >= death) send(SIGKILL, died_), death += pause(options_.deaths_per_min);
      std::this_thread::sleep_for(milliseconds(5));
    }
    progress_.finish();
  }
  /// Lets everything that was begun end, with the fleet as it is.
  void settle() {
    load_.end();
    std::int64_t before = -1;
    SteadyTime moved = std::chrono::steady_clock::now();
    while (!load_.all_completed() && std::chrono::steady_clock::now() - moved < Seconds(options_.patience_s)) {
      tend();
      const std::int64_t ended = ended_trials();
      if (ended != before) moved = std::chrono::steady_clock::now();
      before = ended;
      std::this_thread::sleep_for(milliseconds(50));
    }
    sample();
  }

  Scene& scene() { return scene_; }
  const std::vector<Sample>& samples() const { return samples_; }
  int joined() const { return joined_; }
  int left() const { return left_; }
  int died() const { return died_; }
  std::size_t most_at_once() const { return most_; }

 private:
  static Scene::Options scene_options(const FleetOptions& options) {
    Scene::Options scene;
    scene.folder = options.folder;
    scene.daemon_options = {"--lease-s", "10"};
    char epoch[32];
    std::snprintf(epoch, sizeof epoch, "%g", options.epoch_s);
    scene.worker_options = {"--pack", "2", "--simulate-epoch-s", epoch, "--simulate-failures", "0.01", "--simulate-preemptions", "0.01",
                            "--log-level", "warn"};
    return scene;
  }
  double elapsed_s() const { return Seconds(std::chrono::steady_clock::now() - begun_).count(); }
  milliseconds pause(double per_min) {
    return per_min > 0 ? milliseconds(static_cast<std::int64_t>(60'000 / per_min * rng_.uniform(0.5, 1.5))) : milliseconds(std::chrono::hours(1'000));
  }
  std::int64_t ended_trials() const { return scene_.number("SELECT count(*) FROM trials WHERE told_index IS NOT NULL").value_or(0); }

  void tend() {
    if (scene_.daemon()->status()) throw DataError("the daemon ended, and nobody had killed it; its log is in " + options_.folder);
    reap();
    // A few at a time: two hundred programs that start at once are a test of the machine, not of the daemon.
    for (int i = 0; i < 4 && static_cast<int>(scene_.workers().size()) < options_.workers; ++i) scene_.start_worker("worker-" + std::to_string(++joined_));
    most_ = std::max(most_, scene_.workers().size());
    load_.keep();
    if (samples_.empty() || elapsed_s() - samples_.back().at_s >= options_.sample_s) sample();
    progress_.set(std::min(std::llround(elapsed_s()), std::llround(60 * options_.minutes)));
  }
  void reap() {
    std::erase_if(scene_.workers(), [this](auto& entry) {
      const std::optional<int> status = entry.second->status();
      // SIGTERM kills a program that has not begun to listen for it: a newcomer.
      if (status && *status != 0 && *status != 128 + SIGKILL && *status != 128 + SIGTERM) {
        throw DataError("worker " + entry.first + " ended with status " + std::to_string(*status) + "; its log is in " + options_.folder);
      }
      return status.has_value();
    });
  }
  void send(int signal, int& count) {
    auto& workers = scene_.workers();
    if (workers.empty()) return;
    auto at = workers.begin();
    std::advance(at, static_cast<std::ptrdiff_t>(rng_.below(workers.size())));
    at->second->signal(signal);
    ++count;
  }
  void sample() {
    const ProcessCost cost = cost_of(scene_.daemon()->pid());
    samples_.push_back({elapsed_s(), cost.cpu_s, cost.rss_mb, ended_trials()});
    char note[120];
    std::snprintf(note, sizeof note, "%zu workers, %lld trials, daemon %.1f s CPU, %.0f MB", scene_.workers().size(),
                  static_cast<long long>(samples_.back().ended), cost.cpu_s, cost.rss_mb);
    progress_.note(note);
  }

  FleetOptions options_;
  Scene scene_;
  Rng rng_;
  StudyLoad load_;
  SteadyTime begun_;
  Progress progress_;
  std::vector<Sample> samples_;
  int joined_ = 0, left_ = 0, died_ = 0;
  std::size_t most_ = 0;
};

int report(const FleetOptions& options, Fleet& fleet) {
  const std::vector<Sample> samples = fleet.samples();
  const std::vector<std::string> ends = fleet.scene().stop(std::chrono::seconds(120));
  HistoryFindings findings = check_history(fleet.scene().database(), fleet.scene().witness());
  findings.stuck.insert(findings.stuck.end(), ends.begin(), ends.end());
  const Sample& last = samples.back();
  double rss = 0;
  json rows = json::array();
  for (const Sample& sample : samples) {
    rss = std::max(rss, sample.rss_mb);
    rows.push_back({{"at_s", sample.at_s}, {"cpu_s", sample.cpu_s}, {"rss_mb", sample.rss_mb}, {"trials", sample.ended}});
  }
  json verdict = verdict_json(findings);
  verdict.update({{"workers", options.workers}, {"most_at_once", fleet.most_at_once()}, {"joined", fleet.joined()}, {"left", fleet.left()},
                  {"died", fleet.died()}, {"seconds", last.at_s}, {"daemon_cpu_s", last.cpu_s}, {"daemon_cpu_share", last.cpu_s / last.at_s},
                  {"daemon_rss_mb", rss}, {"trials_per_s", static_cast<double>(last.ended) / last.at_s}, {"samples", rows}, {"seed", options.seed}});
  std::FILE* people = options.json ? stderr : stdout;
  std::fprintf(people, "   time   CPU s   RSS MB   trials\n");
  for (const Sample& sample : samples) {
    std::fprintf(people, "%5.0f s  %6.2f  %7.1f  %7lld\n", sample.at_s, sample.cpu_s, sample.rss_mb, static_cast<long long>(sample.ended));
  }
  std::fprintf(people, "%d workers at once, %d joined, %d left, %d died; daemon %.1f s CPU in %.0f s (%.1f %% of a core), at most %.0f MB; %.1f trials a second\n%s",
               static_cast<int>(fleet.most_at_once()), fleet.joined(), fleet.left(), fleet.died(), last.cpu_s, last.at_s, 100 * last.cpu_s / last.at_s, rss,
               static_cast<double>(last.ended) / last.at_s, verdict_text(findings).c_str());
  if (options.json) std::printf("%s\n", verdict.dump().c_str());
  return findings.good() ? 0 : 1;
}

int fleet_test(FleetOptions options) {
  const RunFolder folder(options.folder, "fusion-fleet");
  options.folder = folder.path().string();
  if (options.studies == 0) options.studies = std::max(3, options.workers / 8);
  int status = 1;
  {
    Fleet fleet(options);
    fleet.run();
    fleet.settle();
    status = report(options, fleet);
  }
  folder.finish(status == 0 && !options.keep);
  return status;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"fleet_test: a real fusiond and many simulated workers that join, leave (SIGTERM) and die (kill -9) while studies run. Prints what the "
               "daemon costs, and judges the database and the workers' journals. Exit status 0 if nothing is lost, doubled or stuck, 1 if not."};
  FleetOptions options;
  app.add_option("--workers", options.workers, "Worker processes at once")->check(CLI::Range(1, 10'000))->capture_default_str();
  app.add_option("--minutes", options.minutes, "How long")->check(CLI::Range(0.01, 100'000.0))->capture_default_str();
  app.add_option("--leaves-per-min", options.leaves_per_min, "Workers told to leave")->check(CLI::Range(0.0, 60'000.0))->capture_default_str();
  app.add_option("--deaths-per-min", options.deaths_per_min, "Workers killed")->check(CLI::Range(0.0, 60'000.0))->capture_default_str();
  app.add_option("--studies", options.studies, "Studies that run at once [one for eight workers]")->check(CLI::Range(1, 1'000));
  app.add_option("--epoch-s", options.epoch_s, "Seconds of a simulated epoch; a trial has three")->check(CLI::Range(0.0, 3'600.0))->capture_default_str();
  app.add_option("--sample-s", options.sample_s, "Between two looks at the daemon's cost")->check(CLI::Range(0.1, 3'600.0))->capture_default_str();
  app.add_option("--patience-s", options.patience_s, "At the end: stuck is what does not move for so long")->check(CLI::Range(1.0, 86'400.0))->capture_default_str();
  app.add_option("--seed", options.seed, "Of who leaves and dies, and of the studies")->capture_default_str();
  app.add_option("--folder", options.folder, "An empty folder for everything [a new one, removed if all is well]");
  app.add_flag("--keep", options.keep, "Keep the folder");
  app.add_flag("--json", options.json, "End with one JSON object");
  return run_main("fleet_test", app, argc, argv, [&] { return fleet_test(options); });
}
