// Proposals are a function of options, seed and the order in which trials ended, whatever the number of workers and however often the
// daemon died: a real daemon, and workers of the real protocol that score by a formula.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "base/log.h"
#include "tests/end_to_end/system.h"
#include "workers/client/worker_client.h"

namespace fusion {
namespace {

using nlohmann::json;
using testing::System;
using ::testing::HasSubstr;

void score(PackSession& session) {
  for (std::vector<SessionTrial> trials = session.trials(); !trials.empty(); trials = session.more(trials.size())) {
    for (const SessionTrial& trial : trials) {
      std::this_thread::sleep_for(std::chrono::microseconds(trial.job.seed % 20'000));  // they overtake one another
      session.on_epoch(trial.job, {1, 1.0, 0.5, 0.001, 0.01});
      TrialOutcome outcome;
      outcome.trial = trial.job.trial;
      outcome.attempt = trial.job.attempt;
      outcome.score.emplace();
      outcome.score->dev_score = static_cast<double>(trial.job.seed % 1000) / 1000;
      outcome.score->best_epoch = 1;
      session.on_end(std::move(outcome));
    }
  }
}

/// Workers in this process, each with a connection of its own.
class Fleet {
 public:
  Fleet(const std::string& url, int count) {
    configure_logs("warn");
    for (int i = 0; i < count; ++i) {
      WorkerClientOptions options;
      options.url = parse_daemon_url(url);
      options.name = "w" + std::to_string(i);
      options.pack = 1;
      options.slots = 2;
      options.handle_signals = false;
      options.backoff_min = std::chrono::milliseconds(20);
      options.backoff_max = std::chrono::milliseconds(100);
      options.leave_wait = std::chrono::milliseconds(2'000);
      clients_.push_back(std::make_unique<WorkerClient>(options, score));
      threads_.emplace_back([client = clients_.back().get()] { client->run(); });
    }
  }
  ~Fleet() {
    for (const auto& client : clients_) client->leave("the test is over");
    for (std::thread& thread : threads_) thread.join();
  }

 private:
  std::vector<std::unique_ptr<WorkerClient>> clients_;
  std::vector<std::thread> threads_;
};

class ReplayEndToEndTest : public ::testing::Test {
 protected:
  json study() {
    json document = System::small_study();
    document["strategy"] = {{"name", "mfas"}, {"iterations", 3}, {"levels", 2}, {"samples", 40}};
    document["training"]["evaluate_test"] = false;
    document["training"]["epochs"] = 1;
    return document;
  }
  void expect_identical(std::int64_t workers) {
    const json replayed = system.ctl_json({"replay", (system.folder() / "fusion.db").string()});
    EXPECT_EQ(replayed["identical"], true) << replayed.dump(1);
    EXPECT_GE(replayed["studies"][0]["told"].get<std::int64_t>(), 100);
    EXPECT_GE(replayed["studies"][0]["fits"].get<std::int64_t>(), 5);
    EXPECT_EQ(system.sql("select count(distinct w.name) from attempts a join workers w on w.id = a.worker_id")[0][0], workers);
  }
  System system;
};

TEST_F(ReplayEndToEndTest, AStudyOfSixtyFourWorkersIsMadeAgainByteForByte) {
  system.start(0);
  const auto id = system.submit(study());
  {
    const Fleet fleet(system.url(), 64);
    EXPECT_EQ(system.wait_for(id), "completed");
  }
  EXPECT_GT(system.sql("select count(*) from trials where told_index <> ask_index")[0][0], 0) << "they did overtake one another";
  expect_identical(64);
  EXPECT_EQ(system.stop(), 0);
}

TEST_F(ReplayEndToEndTest, SoIsOneWhoseDaemonWasKilledAgainAndAgain) {
  const std::string port = "17" + std::to_string(100 + ::getpid() % 800);  // the same for every daemon, so that workers come back
  system.start(0, {{"--listen", "127.0.0.1:" + port}});
  const auto id = system.submit(study());
  {
    const Fleet fleet(system.url(), 16);
    for (const int completed : {5, 30, 60, 90}) {
      system.wait_for_completed(id, completed);
      system.kill_daemon();
      system.start(0, {{"--listen", "127.0.0.1:" + port}});
    }
    EXPECT_EQ(system.wait_for(id), "completed");
  }
  expect_identical(16);
  EXPECT_EQ(system.stop(), 0);
}

}  // namespace
}  // namespace fusion
