// fusion-worker --simulate through the real daemon: real processes, real protocol, made-up or recorded scores.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <set>
#include <thread>

#include "space/trial.h"
#include "tests/end_to_end/system.h"
#include "workers/client/journal.h"
#include "workers/simulate/planted_formula.h"

namespace fusion {
namespace {

using nlohmann::json;
using testing::Process;
using testing::System;
using ::testing::AllOf;
using ::testing::HasSubstr;

class SimulatedWorkerTest : public ::testing::Test {
 protected:
  std::unique_ptr<Process> worker(const std::string& name, const std::string& objective, std::vector<std::string> more = {}) {
    more.insert(more.end(), {"--pack", "2", "--journal", journal(name).string()});
    return system.simulated_worker(name, more, objective);
  }
  std::filesystem::path journal(const std::string& name) { return system.folder() / (name + ".jsonl"); }
  /// Trials whose completed result this worker saw acknowledged as accepted.
  std::set<std::int64_t> acknowledged(const std::string& name) {
    std::set<std::int64_t> completed, trials;
    for (const JournalLine& line : read_journal(journal(name)).lines) {
      if (const auto* result = std::get_if<protocol::Result>(&line.message)) {
        if (line.sent && result->outcome.score) completed.insert(result->outcome.trial.value);
      }
      const auto* ack = std::get_if<protocol::Ack>(&line.message);
      if (ack != nullptr && !line.sent && ack->what == "result" && ack->accepted && completed.contains(ack->trial.value)) {
        trials.insert(ack->trial.value);
      }
    }
    return trials;
  }
  static json study(const std::string& strategy, const std::string& name = "dry") {
    json study = System::small_study();
    study["name"] = name;
    study["strategy"] = {{"name", strategy}};
    if (strategy == "exhaustive") study["strategy"]["max_steps"] = 1;
    if (strategy == "mfas") study["strategy"].update({{"iterations", 2}, {"levels", 2}, {"samples", 5}});
    study["retries"] = 20;
    return study;
  }

  System system;
};

TEST_F(SimulatedWorkerTest, AStudyRunsOnAFormulaAlthoughMuchGoesWrong) {
  system.start(0);
  const std::vector<std::string> trouble{"--simulate-failures", "0.15", "--simulate-oom", "0.1", "--simulate-preemptions", "0.15",
                                         "--simulate-epoch-s", "0.005"};
  const auto a = worker("a", "formula:4", trouble), b = worker("b", "formula:4", trouble);
  const auto id = system.submit(study("mfas"));
  EXPECT_EQ(system.wait_for(id), "completed");

  const PlantedFormula formula(4);
  const json trials = system.sql("select architecture, seed, dev_score, test_score, id from trials where state = 'completed'");
  ASSERT_EQ(trials.size(), 27u);
  std::set<std::int64_t> known = acknowledged("a");
  known.merge(acknowledged("b"));
  for (const json& trial : trials) {
    const Architecture architecture = architecture_from_text(trial[0].get<std::string>());
    const auto seed = static_cast<std::uint64_t>(trial[1].get<std::int64_t>());
    EXPECT_EQ(trial[2].get<double>(), *formula.score(architecture, seed)) << "the database holds the very bits";
    EXPECT_EQ(trial[3].get<double>(), *formula.test_score(architecture, seed));
    EXPECT_TRUE(known.contains(trial[4].get<std::int64_t>())) << trial[4];
  }
  EXPECT_EQ(system.sql("select distinct engine, torch_version from attempts where outcome = 'completed'"), json::array({json::array({"simulated", "none"})}));
  EXPECT_GT(system.sql("select count(*) from attempts where outcome in ('failed', 'oom')")[0][0], 0);
  EXPECT_EQ(system.sql("select count(*) from epochs as e join trials as t on t.id = e.trial_id and t.scored_attempt = e.attempt")[0][0], 54);
  EXPECT_EQ(system.stop(), 0);
}

TEST_F(SimulatedWorkerTest, ATableGivesTheScoresOfAnEarlierStudy) {
  system.start(0);
  {
    const auto a = worker("a", "formula:9");
    EXPECT_EQ(system.wait_for(system.submit(study("exhaustive", "table"))), "completed");
  }
  // Beside the daemon, on its own database.
  const auto b = worker("b", (system.folder() / "fusion.db").string());
  json second = study("random", "again");
  second["space"] = {{"steps", {{"max", 1}}}};
  second["strategy"]["trials"] = 8;
  EXPECT_EQ(system.wait_for(system.submit(second)), "completed");
  EXPECT_EQ(system.sql("select count(*) from trials as t join trials as s on s.architecture = t.architecture"
                       " where t.study_id = 2 and s.study_id = 1 and t.dev_score = s.dev_score and t.test_score = s.test_score")[0][0], 8);
  EXPECT_EQ(system.stop(), 0);
}

TEST_F(SimulatedWorkerTest, LeavesAsARealOneDoes) {
  system.start(0);
  const auto a = worker("a", "formula", {"--simulate-epoch-s", "100", "--leave-status", "75"});
  const auto id = system.submit(study("mfas"));
  system.wait_until([&] { return system.sql("select count(*) from trials where state = 'leased'")[0][0] > 0; });
  a->signal(SIGUSR1);
  EXPECT_EQ(a->wait(std::chrono::seconds(30)), 75) << a->err();
  // Nobody acknowledges what is given back: the daemon may still be writing it.
  system.wait_until([&] { return system.sql("select count(*) from attempts where outcome is null")[0][0] == 0; });
  EXPECT_GT(system.sql("select count(*) from attempts where outcome = 'preempted'")[0][0], 0);
  EXPECT_EQ(system.sql("select count(*) from attempts where outcome = 'lost'")[0][0], 0);
  const auto b = worker("b", "formula");
  EXPECT_EQ(system.wait_for(id), "completed");
  EXPECT_EQ(system.stop(), 0);
}

TEST_F(SimulatedWorkerTest, ACrashLosesItsTrialsAndNothingElse) {
  system.start(0);
  const auto id = system.submit(study("exhaustive"));
  int crashes = 0;
  for (int i = 0; i < 100; ++i) {
    const auto a = worker("a", "formula", {"--simulate-crashes", "0.3", "--simulate-epoch-s", "0.005"});
    while (a->running() && system.sql("select state from studies")[0][0] == "running") {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    if (system.sql("select state from studies")[0][0] != "running") break;
    EXPECT_EQ(a->wait(std::chrono::seconds(30)), 128 + SIGKILL);
    ++crashes;
  }
  EXPECT_GT(crashes, 0);
  EXPECT_EQ(system.wait_for(id), "completed");
  EXPECT_GE(system.sql("select count(*) from attempts where outcome = 'lost'")[0][0], crashes);
  EXPECT_EQ(system.sql("select count(*) from trials where state = 'completed' and failures = 0")[0][0], 12);
  EXPECT_EQ(system.stop(), 0);
}

TEST_F(SimulatedWorkerTest, BadInputIsNamed) {
  const auto refused = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), testing::program("fusion-worker"));
    arguments.insert(arguments.end(), {"--connect", "http://127.0.0.1:1"});
    const testing::Finished finished = testing::run(arguments, system.options());
    EXPECT_EQ(finished.status, 2) << finished.err;
    return finished.err + finished.out;
  };
  EXPECT_THAT(refused({"--simulate-epoch-s", "1"}), HasSubstr("--simulate"));
  EXPECT_THAT(refused({"--simulate", "formula", "--simulate-oom", "2", "--simulate-spread", "3"}),
              AllOf(HasSubstr("--simulate-oom: expected a number in [0, 1], got 2"), HasSubstr("--simulate-spread")));
  EXPECT_THAT(refused({"--simulate", "nothing.db"}), HasSubstr("nothing.db"));
  EXPECT_THAT(refused({"--simulate", "formula", "--simulate-study", "1"}), HasSubstr("a formula has none"));
  EXPECT_THAT(refused({"--simulate", "formula", "--journal", "/nowhere/j"}), HasSubstr("/nowhere/j: the journal cannot be opened"));
  const testing::Finished version = testing::run({testing::program("fusion-worker"), "--version"}, system.options());
  EXPECT_EQ(version.status, 0);
  EXPECT_THAT(version.out, AllOf(HasSubstr("fusion-worker "), HasSubstr(", LibTorch ")));
}

TEST_F(SimulatedWorkerTest, ShutdownWithWorkersHandsBackTrialsThatOutlastTheDrainTime) {
  system.start(0, {{"--drain", "0.5"}});
  const auto id = system.submit(study("mfas"));
  {
    const auto first = worker("first", "formula:4", {"--simulate-epoch-s", "1"});
    system.wait_for_completed(id, 2);
    first->signal(SIGTERM);
    EXPECT_EQ(first->wait(std::chrono::seconds(60)), 0);
  }
  const auto a = worker("a", "formula:4", {"--simulate-epoch-s", "3600"}), b = worker("b", "formula:4", {"--simulate-epoch-s", "3600"});
  system.wait_until([&] { return system.sql("select count(distinct worker_id) from attempts where outcome is null")[0][0] == 2; });
  const auto asked = system.sql("select count(*) from trials")[0][0];
  EXPECT_EQ(system.ctl({"shutdown", "--workers"}).status, 0);
  EXPECT_EQ(a->wait(std::chrono::seconds(120)), 0) << a->err();
  EXPECT_EQ(b->wait(std::chrono::seconds(120)), 0) << b->err();
  EXPECT_EQ(system.daemon().wait(std::chrono::seconds(120)), 0) << system.daemon().err();
  // Of the first worker one may be lost: a pack that crossed its word that it leaves.
  const std::string theirs = "select count(*), count(distinct name) from attempts join workers on workers.id = worker_id where name in ('a', 'b') and ";
  EXPECT_EQ(system.sql(theirs + "outcome = 'preempted'")[0][1], 2);
  EXPECT_EQ(system.sql(theirs + "(outcome is null or outcome <> 'preempted')")[0][0], 0);
  EXPECT_EQ(system.sql("select sum(failures), count(*) from trials"), json::array({json::array({0, asked})})) << "no retry is used";
  EXPECT_EQ(system.sql("select count(*) from trials where state = 'leased'")[0][0], 0);

  system.start(0);
  const auto last = worker("last", "formula:4", {"--simulate-epoch-s", "0.005"});
  EXPECT_EQ(system.wait_for(id), "completed");
  EXPECT_EQ(system.sql("select count(*), count(distinct told_index) from trials where state = 'completed'")[0], json::array({27, 27}));
  EXPECT_EQ(system.ctl_json({"replay", (system.folder() / "fusion.db").string()})["identical"], true);
  EXPECT_EQ(system.stop(), 0);
}

}  // namespace
}  // namespace fusion
