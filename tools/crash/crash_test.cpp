// Kills a daemon and its workers at random instants under load, again and again, and judges what is left (docs/crash-tests.md).
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
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

struct CrashOptions {
  int kills = 30, workers = 4, studies = 3;
  std::uint64_t seed = 1;
  double pace_s = 0.25, daemon_share = 0.3, epoch_s = 0.01, patience_s = 120;
  bool one_study = false, json = false, keep = false;
  std::string folder;
};

struct Kill {
  std::string victim;  // empty: the daemon
  UnixMs killed = 0, started = 0;  // started: its successor was
};

constexpr const char* kDaemon = "";
constexpr milliseconds kTick{2};
constexpr std::size_t kMostSurprises = 20;
// A whole iteration of the loop's work for each kill, and then some: the study must outlive all kills.
constexpr std::int64_t kTrialsPerKill = 40;

UnixMs unix_ms() { return SystemClock().unix_ms(); }

Scene::Options scene_options(const CrashOptions& options) {
  Scene::Options scene;
  scene.folder = options.folder;
  scene.daemon_options = {"--lease-s", "6", "--reconnect-grace-s", "0.3"};
  char epoch[32];
  std::snprintf(epoch, sizeof epoch, "%g", options.epoch_s);
  scene.worker_options = {"--pack", "2", "--simulate-epoch-s", epoch, "--simulate-failures", "0.03", "--simulate-oom", "0.01",
                          "--simulate-preemptions", "0.03", "--simulate-seed", std::to_string(options.seed)};
  return scene;
}

/// One run: a scene, its load, and who is killed when.
class CrashRun {
 public:
  explicit CrashRun(const CrashOptions& options)
      : options_(options), scene_(scene_options(options)), rng_(options.seed),
        load_(scene_, options.seed, options.studies, options.one_study ? kTrialsPerKill * options.kills : 0),
        progress_("kill", options.kills, "kills") {
    scene_.start_daemon();
    scene_.await_port(std::chrono::seconds(60));
    for (int i = 0; i < options.workers; ++i) scene_.start_worker(worker_name(i));
  }

  /// Until all kills are done.
  void kill_all() {
    SteadyTime next = std::chrono::steady_clock::now() + pause();
    while (static_cast<int>(kills_.size()) < options_.kills) {
      tend();
      if (std::chrono::steady_clock::now() >= next && kill_one()) next += pause();
      std::this_thread::sleep_for(kTick);
    }
    progress_.finish();
  }
  /// Until everything that was begun has ended, or nothing ended for as long as patience lasts.
  void settle() {
    load_.end();
    std::int64_t ended = -1;
    SteadyTime moved = std::chrono::steady_clock::now();
    while (!load_.all_completed()) {
      tend();
      const std::int64_t now_ended = scene_.number("SELECT count(*) FROM trials WHERE told_index IS NOT NULL").value_or(ended);
      if (now_ended != ended) moved = std::chrono::steady_clock::now();
      ended = now_ended;
      if (std::chrono::steady_clock::now() - moved > std::chrono::duration<double>(options_.patience_s)) {
        stuck_.push_back("after the last kill nothing was completed any more");
        return;
      }
      std::this_thread::sleep_for(milliseconds(100));
    }
  }

  Scene& scene() { return scene_; }
  const std::vector<Kill>& kills() const { return kills_; }
  const std::vector<std::string>& surprises() const { return surprises_; }
  const std::vector<std::string>& stuck() const { return stuck_; }
  /// Milliseconds from a kill of the daemon to the first result that its successor acknowledged; of workers, that the successor saw.
  std::vector<double> recoveries(bool of_daemon) const;

 private:
  static std::string worker_name(int i) { return "worker-" + std::to_string(i); }
  milliseconds pause() { return milliseconds(static_cast<std::int64_t>(-1000 * options_.pace_s * std::log(1 - rng_.uniform()))); }

  void tend() {
    load_.keep();
    const SteadyTime now = std::chrono::steady_clock::now();
    for (auto at = restarts_.begin(); at != restarts_.end();) {
      if (now < at->second) {
        ++at;
        continue;
      }
      kills_[at->first].started = unix_ms();
      const std::string& victim = kills_[at->first].victim;
      victim == kDaemon ? scene_.start_daemon() : scene_.start_worker(victim);
      at = restarts_.erase(at);
    }
    check_alive();
  }
  // What ends without having been killed is a finding of its own. It is started again all the same.
  void check_alive() {
    const auto expect = [&](const std::string& who, Program* program) {
      if (program == nullptr || !program->status() || is_down(who)) return;
      surprises_.push_back((who == kDaemon ? "the daemon" : who) + " ended with status " + std::to_string(*program->status()) +
                           ", and nobody had killed it");
      if (surprises_.size() > kMostSurprises) throw DataError(surprises_.back() + "; again and again; its log is in " + options_.folder);
      who == kDaemon ? scene_.start_daemon() : scene_.start_worker(who);
    };
    expect(kDaemon, scene_.daemon());
    for (auto& [name, worker] : scene_.workers()) expect(name, worker.get());  // a worker that is started again keeps its place in the map
  }
  bool is_down(const std::string& who) const {
    return std::any_of(restarts_.begin(), restarts_.end(), [&](const auto& restart) { return kills_[restart.first].victim == who; });
  }
  /// False if the one chosen is down already.
  bool kill_one() {
    const bool daemon = rng_.uniform() < options_.daemon_share;
    const std::string victim = daemon ? kDaemon : worker_name(static_cast<int>(rng_.below(static_cast<std::uint64_t>(options_.workers))));
    if (is_down(victim)) return false;
    Program& program = victim == kDaemon ? *scene_.daemon() : *scene_.workers().at(victim);
    kills_.push_back({victim, unix_ms(), 0});
    program.signal(SIGKILL);
    program.wait(std::chrono::seconds(30));
    restarts_.emplace_back(kills_.size() - 1, std::chrono::steady_clock::now() + milliseconds(rng_.below(100)));
    progress_.set(static_cast<std::int64_t>(kills_.size()));
    return true;
  }

  CrashOptions options_;
  Scene scene_;
  Rng rng_;
  StudyLoad load_;
  Progress progress_;
  std::vector<Kill> kills_;
  std::vector<std::string> surprises_, stuck_;
  std::vector<std::pair<std::size_t, SteadyTime>> restarts_;  // by kill
};

std::vector<double> CrashRun::recoveries(bool of_daemon) const {
  const auto of_each = acknowledgements(scene_.witness());
  std::vector<UnixMs> all;
  for (const auto& [name, times] : of_each) all.insert(all.end(), times.begin(), times.end());
  std::sort(all.begin(), all.end());
  std::vector<double> took;
  for (const Kill& kill : kills_) {
    if ((kill.victim == kDaemon) != of_daemon || kill.started == 0) continue;
    const auto found = of_each.find(kill.victim);
    if (!of_daemon && found == of_each.end()) continue;
    const std::vector<UnixMs>& times = of_daemon ? all : found->second;
    const auto first = std::lower_bound(times.begin(), times.end(), kill.started);
    if (first != times.end()) took.push_back(static_cast<double>(*first - kill.killed));
  }
  return took;
}

int report(const CrashOptions& options, CrashRun& run, double seconds) {
  std::vector<std::string> ends = run.scene().stop(std::chrono::seconds(60));
  HistoryFindings findings = check_history(run.scene().database(), run.scene().witness());
  for (std::string& end : ends) findings.stuck.push_back(std::move(end));
  findings.stuck.insert(findings.stuck.end(), run.stuck().begin(), run.stuck().end());
  for (const std::string& surprise : run.surprises()) findings.illegal.push_back(surprise);
  const std::string replayed = run.scene().replay(std::chrono::seconds(600));
  const std::vector<double> daemon = run.recoveries(true), workers = run.recoveries(false);
  const auto daemon_kills = std::count_if(run.kills().begin(), run.kills().end(), [](const Kill& kill) { return kill.victim == kDaemon; });

  json verdict = verdict_json(findings);
  verdict.update({{"kills", run.kills().size()}, {"daemon_kills", daemon_kills}, {"seed", options.seed}, {"seconds", seconds},
                  {"replay", replayed.empty() ? "identical" : "different"}, {"recover_p50_ms", percentile(daemon, 0.5)},
                  {"recover_p99_ms", percentile(daemon, 0.99)}, {"worker_recover_p50_ms", percentile(workers, 0.5)},
                  {"worker_recover_p99_ms", percentile(workers, 0.99)}});
  const std::string text = verdict_text(findings);
  std::fprintf(options.json ? stderr : stdout, "kills %zu (daemon %lld), %s", run.kills().size(), static_cast<long long>(daemon_kills), text.c_str());
  std::fprintf(options.json ? stderr : stdout, "replay %s%s%s\ntime to recover: daemon p50 %.0f ms, p99 %.0f ms; worker p50 %.0f ms, p99 %.0f ms; all in %.0f s\n",
               replayed.empty() ? "identical" : "DIFFERENT: ", replayed.c_str(), "", percentile(daemon, 0.5), percentile(daemon, 0.99),
               percentile(workers, 0.5), percentile(workers, 0.99), seconds);
  if (options.json) std::printf("%s\n", verdict.dump().c_str());
  return findings.good() && replayed.empty() ? 0 : 1;
}

int crash_test(CrashOptions options) {
  const RunFolder folder(options.folder, "fusion-crash");
  options.folder = folder.path().string();
  const SteadyTime begun = std::chrono::steady_clock::now();
  int status = 1;
  {
    CrashRun run(options);
    run.kill_all();
    run.settle();
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begun;
    status = report(options, run, took.count());
  }
  folder.finish(status == 0 && !options.keep);
  return status;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"crash_test: kills a real fusiond and its simulated workers (kill -9) at random instants under load, restarts them, and judges "
               "the database and the workers' journals: nothing acknowledged lost, nothing doubled, nothing stuck, replay identical. Exit status "
               "0 if so, 1 if not."};
  CrashOptions options;
  app.add_option("--kills", options.kills, "How many")->check(CLI::Range(0, 1'000'000))->capture_default_str();
  app.add_option("--seed", options.seed, "Of who is killed when, and of the studies")->capture_default_str();
  app.add_option("--workers", options.workers, "Worker processes")->check(CLI::Range(1, 1'000))->capture_default_str();
  app.add_option("--studies", options.studies, "Studies that run at once")->check(CLI::Range(1, 1'000))->capture_default_str();
  app.add_flag("--one-study", options.one_study, "One study that outlives all kills, in place of many");
  app.add_option("--pace-s", options.pace_s, "Mean time between two kills")->check(CLI::Range(0.0, 3'600.0))->capture_default_str();
  app.add_option("--daemon-share", options.daemon_share, "How many of the kills hit the daemon")->check(CLI::Range(0.0, 1.0))->capture_default_str();
  app.add_option("--epoch-s", options.epoch_s, "Seconds of a simulated epoch")->check(CLI::Range(0.0, 3'600.0))->capture_default_str();
  app.add_option("--patience-s", options.patience_s, "After the kills: stuck is what does not move for so long")->check(CLI::Range(1.0, 86'400.0))->capture_default_str();
  app.add_option("--folder", options.folder, "An empty folder for everything [a new one, removed if all is well]");
  app.add_flag("--keep", options.keep, "Keep the folder");
  app.add_flag("--json", options.json, "End with one JSON object");
  return run_main("crash_test", app, argc, argv, [&] { return crash_test(options); });
}
