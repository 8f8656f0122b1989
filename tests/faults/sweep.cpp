#include "tests/faults/sweep.h"

#include <nlohmann/json.hpp>
#include <thread>

#include "base/error.h"
#include "tests/end_to_end/small_features.h"
#include "tests/faults/daemon_life.h"
#include "tests/faults/database_check.h"
#include "tests/faults/sweep_worker.h"
#include "tools/ctl/http_client.h"

namespace fusion::testing {

using nlohmann::json;
namespace fs = std::filesystem;

namespace {

constexpr std::chrono::seconds kLimit{30};  // for a study that takes some milliseconds

/// Six architectures of one step, then three of two: nine trials, two surrogate fits.
json study() {
  return {{"name", "sweep"},
          {"dataset", "features.json"},
          {"space", {{"steps", {{"max", 2}}}, {"activations", {"relu"}}}},
          {"strategy", {{"name", "mfas"}, {"iterations", 1}, {"levels", 2}, {"samples", 3}, {"surrogate", {{"name", "ridge"}}}}},
          {"training", {{"epochs", 2}}},
          {"seed", 3}};
}
constexpr std::size_t kTrials = 9;

DaemonConfig config_of(const fs::path& database, const fs::path& features) {
  DaemonConfig config;
  config.db = (database / "fusion.db").string();
  config.listen = "127.0.0.1:0";
  config.data_roots = {features};
  config.security.loopback = LoopbackRule::same_user;
  config.reconnect_grace_s = 0.02;
  config.wal.checkpoint_pages = 40;  // so that the log is moved into the file several times
  return config;
}

/// A person at the daemon's HTTP interface, who tries again what did not work.
class Client {
 public:
  Client(std::uint16_t port, DaemonLife& life, Witness& witness)
      : http_(ctl::Url::parse("http://127.0.0.1:" + std::to_string(port)), kLimit), life_(life), witness_(witness) {}

  /// Sees to it that the study is there. False: the daemon ended.
  bool submit() {
    return insist([this] {
      if (!http_.get("/api/v1/studies").list("studies").empty()) return true;
      const ctl::Answer answer = http_.post("/api/v1/studies", study().dump());
      const StudyId id{answer.object("study").at("id").get<std::int64_t>()};
      witness_.note([id](Acknowledged& seen) { seen.studies.insert(id); });
      return true;
    });
  }
  bool await_completion() {
    return insist([this] { return is_completed(); });
  }
  /// False also if the daemon does not say.
  bool completed() {
    try {
      return is_completed();
    } catch (const ctl::DaemonFailure&) {
      return false;
    } catch (const Error&) {
      return false;
    }
  }
  /// Of one that does not get on; false: nor does it end.
  bool end_daemon() {
    try {
      shut_down();
      life_.wait(kLimit);
    } catch (const Error&) {
      return false;
    }
    return true;
  }
  void shut_down() {
    insist([this] {
      http_.post("/api/v1/shutdown");
      return true;
    });
  }

 private:
  bool is_completed() { return http_.get("/api/v1/studies").list("studies").at(0).at("state") == "completed"; }
  template <typename Try>
  bool insist(Try once) {
    const auto end = std::chrono::steady_clock::now() + kLimit;
    std::string last = "it is not so";
    while (!life_.ended()) {
      try {
        if (once()) return true;
      } catch (const ctl::DaemonFailure& failure) {
        last = failure.what();
      } catch (const ctl::Refused& refused) {
        last = refused.what();
      }
      if (std::chrono::steady_clock::now() > end) throw Error("the daemon neither does what it is asked for nor ends: " + last);
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    return false;
  }
  ctl::HttpClient http_;
  DaemonLife& life_;
  Witness& witness_;
};

void work_through(DaemonLife& life, Client& client, SweepWorker& worker, std::uint16_t port) {
  if (client.submit()) {
    const auto end = std::chrono::steady_clock::now() + kLimit;
    while (!worker.work(port, kTrials, [&] { return client.completed(); }) && !life.ended()) {
      if (std::chrono::steady_clock::now() > end) throw Error("the daemon neither works with its worker nor ends");
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    client.await_completion();
    client.shut_down();
    worker.stay_to_the_end();
  }
}

/// Through the whole study, or to the daemon's end. Returns its exit status. A daemon that does not get on is asked to end before that is told;
/// `hangs` is set if it does not even do that.
int live_through(DaemonLife& life, SweepWorker& worker, Witness& witness, bool& hangs) {
  const auto port = life.port();
  if (!port) return life.wait();
  Client client(*port, life, witness);
  try {
    work_through(life, client, worker, *port);
    return life.wait();
  } catch (const Error&) {
    hangs = !client.end_daemon();
    throw;
  }
}

}  // namespace

Sweep::Sweep() {
  DaemonLife::keep_errors_of_logs();
  write_small_features(folder_ / "features", {40, 20, 20, 1, false});
  kill_one();
}

/// Copies what lies on the disk while a daemon is amid the study: what a kill -9 at that moment would leave.
void Sweep::kill_one() {
  begin(Scene::new_database);
  DaemonLife life(config_of(database_, folder_ / "features"));
  Client client(life.port().value(), life, *witness_);
  client.submit();
  worker_->work(life.port().value(), 4, [] { return false; });
  const Acknowledged acknowledged = witness_->seen();
  crashed_ = {"", disk_.after_power_loss(1, 0), acknowledged};
  client.shut_down();
  worker_->stay_to_the_end();
  life.wait();
}

void Sweep::begin(Scene scene) {
  std::error_code ignored;
  fs::remove_all(database_, ignored);
  database_ = folder_ / ("run" + std::to_string(++runs_));
  fs::create_directories(database_);
  witness_ = std::make_unique<Witness>();
  worker_ = std::make_unique<SweepWorker>(*witness_);
  images_.clear();
  if (scene == Scene::after_a_crash) {
    crashed_.disk.write_to(database_);
    witness_->note([this](Acknowledged& seen) { seen = crashed_.acknowledged; });
  }
  disk_.watch(database_);
}

SweepRun Sweep::run(Scene scene, FaultKind kind, std::int64_t nth) { return run(scene, std::optional(kind), nth); }

void SweepTotals::add(const SweepRun& run) {
  violations += static_cast<std::int64_t>(run.violations.size());
  if (!run.happened) return;
  ++points;
  ++(run.coped == Coped::stopped ? stopped : carried_on);
  if (run.coped == Coped::stopped) ++sentences[run.sentence];
}

// How many operations there are differs a little from run to run, with what arrives in one group; so one run without a fault is not the end.
SweepTotals Sweep::run_all(Scene scene, FaultKind kind, std::int64_t stride, const std::function<void(std::int64_t, const SweepRun&)>& each) {
  SweepTotals totals;
  int beyond = 0;
  for (std::int64_t nth = 1; beyond < 3; nth += stride) {
    const SweepRun one = run(scene, kind, nth);
    beyond = one.happened ? 0 : beyond + 1;
    totals.add(one);
    if (each) each(nth, one);
  }
  return totals;
}

SweepRun Sweep::run_on_a_liar() { return run(Scene::new_database, std::nullopt, 0); }

SweepRun Sweep::run_with_lost_write(std::int64_t nth) { return run(Scene::new_database, std::nullopt, nth); }

/// Without a kind: a disk that lies.
SweepRun Sweep::run(Scene scene, std::optional<FaultKind> kind, std::int64_t nth) {
  if (stuck_) throw Error("a daemon that neither works nor ends is still in this process; sweep the rest in another");
  SweepRun run;
  begin(scene);
  const auto seed = static_cast<std::uint64_t>(nth);
  if (kind) disk_.arm(*kind, nth, [this, seed] { keep_images("when it happened", seed); });
  else if (nth > 0) disk_.lose_write(nth);
  else disk_.lie_about_syncs(true);
  try {
    live(run);
    run.happened = disk_.happened();
    disk_.disarm();
    keep_images("at the end", seed + 1);
    check(run);
    if (run.coped == Coped::stopped) recover(run);
  } catch (const Error& error) {
    run.happened = disk_.happened();
    run.violations.push_back(std::string("stuck: ") + error.what());
  }
  return run;
}

void Sweep::live(SweepRun& run) {
  DaemonLife life(config_of(database_, folder_ / "features"));
  const int status = live_through(life, *worker_, *witness_, stuck_);
  if (status == 0) return;
  run.coped = Coped::stopped;
  run.sentence = life.sentence();
  if (status > 2) run.violations.push_back("ended by an internal error: " + run.sentence);
  if (run.sentence.empty()) run.violations.push_back("stopped without a sentence");
}

/// What was acknowledged is written down before it is asked what is on disk.
void Sweep::keep_images(const std::string& when, std::uint64_t seed) {
  const Acknowledged acknowledged = witness_->seen();
  for (const auto& [keep, how] : {std::pair(0.0, ", nothing of what was not synced"), {0.5, ", some of what was not synced"}}) {
    DiskImage disk = disk_.after_power_loss(keep, seed);
    if (images_.empty() || !(images_.back().disk == disk)) images_.push_back({"power lost " + when + how, std::move(disk), acknowledged});
  }
}

void Sweep::check(SweepRun& run) {
  const fs::path copy = folder_ / "copy";
  const auto look = [&](const std::string& when, const Acknowledged& acknowledged) {
    for (const std::string& problem : check_database(copy, acknowledged)) run.violations.push_back(when + ": " + problem);
    fs::remove_all(copy);
  };
  for (const Image& image : images_) {
    image.disk.write_to(copy);
    look(image.when, image.acknowledged);
  }
  fs::create_directories(copy);
  for (const char* name : {"fusion.db", "fusion.db-wal", "fusion.db-journal"}) {
    if (fs::exists(database_ / name)) fs::copy_file(database_ / name, copy / name);
  }
  look("as the files lie", witness_->seen());
}

/// The same folder on a disk that works.
void Sweep::recover(SweepRun& run) {
  DaemonLife life(config_of(database_, folder_ / "features"));
  const int status = live_through(life, *worker_, *witness_, stuck_);
  if (status != 0) run.violations.push_back("started again, it stopped: " + life.sentence());
  for (const std::string& problem : check_database(database_, witness_->seen())) run.violations.push_back("after a new start: " + problem);
}

}  // namespace fusion::testing
