// Retrainings through the real daemon and fusionctl, with a worker whose training is a state machine; killed at several epochs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include "base/files.h"
#include "tests/end_to_end/found_trial.h"
#include "tests/end_to_end/system.h"

namespace fusion {
namespace {

using nlohmann::json;
using testing::Process;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr int kEpochs = 9;  // of both phases
constexpr int kSum = kEpochs * (kEpochs + 1) / 2;

class RetrainingTest : public testing::FoundTrialTest {
 protected:
  RetrainingTest() { system.start(0, {{"--lease-s", "2"}}); }
  std::unique_ptr<Process> worker(const std::string& name, int processes = 0) {
    return std::make_unique<Process>(std::vector<std::string>{COUNTING_WORKER, system.url(), name, "", std::to_string(processes)}, system.options());
  }
  std::unique_ptr<Process> short_lived_worker(const std::string& name, int seconds) {
    return std::make_unique<Process>(std::vector<std::string>{COUNTING_WORKER, system.url(), name, "", "0", std::to_string(seconds)}, system.options());
  }
  /// One that shares no folder with the daemon; each name is a host of its own.
  std::unique_ptr<Process> far_worker(const std::string& name) {
    return std::make_unique<Process>(std::vector<std::string>{COUNTING_WORKER, system.url(), name, cache_of(name).string()}, system.options());
  }
  std::filesystem::path cache_of(const std::string& name) { return system.folder() / ("cache-" + name); }
  std::filesystem::path folder_of(std::int64_t id) {
    return system.sql("select folder from retrainings where id = " + std::to_string(id))[0][0].get<std::string>();
  }
  /// The epoch whose checkpoint the daemon has.
  void wait_for_checkpoint(std::int64_t id, int epoch) {
    const auto file = folder_of(id) / "checkpoint.json";
    system.wait_until([&] { return std::filesystem::exists(file) && json::parse(read_text(file)).at("epoch") >= epoch; });
  }
  std::int64_t retrain(std::vector<std::string> more = {}) {
    more.insert(more.end(), {"--epochs", std::to_string(kEpochs - 1), "--head", "mmtm"});
    return FoundTrialTest::retrain(more);
  }
  /// Every epoch is there, once per attempt; the result once; the sum says that each epoch was trained once on the way that counts.
  void expect_whole(std::int64_t id) {
    const std::string of = " where retraining_id = " + std::to_string(id);
    EXPECT_EQ(system.sql("select count(distinct epoch), min(epoch), max(epoch) from retraining_epochs" + of)[0],
              json::array({kEpochs, 1, kEpochs}));
    EXPECT_EQ(system.sql("select count(*) from retraining_attempts where outcome = 'completed' and retraining_id = " + std::to_string(id))[0][0], 1);
    EXPECT_EQ(system.sql("select count(*) from retraining_attempts where outcome is null")[0][0], 0);
    EXPECT_EQ(system.sql("select parameters from retrainings where id = " + std::to_string(id))[0][0], kSum);
    EXPECT_EQ(system.sql("select count(*) from artifacts" + of)[0][0], 3);
    const testing::Finished checked =
        testing::run({"/usr/bin/sqlite3", (system.folder() / "fusion.db").string(), "pragma integrity_check"}, system.options());
    EXPECT_EQ(checked.out, "ok\n") << checked.err;
  }
};

TEST_F(RetrainingTest, FromFusionctlToTheExportedModel) {
  const std::int64_t id = retrain({"--width", "64", "--no-color"});
  const auto a = worker("a");
  EXPECT_EQ(system.ctl({"watch", "--retraining", std::to_string(id), "--interval", "0.05"}).status, 0);
  expect_whole(id);
  const json shown = system.ctl_json({"show", "--retraining", std::to_string(id)})["retraining"];
  EXPECT_EQ(shown["options"]["width"], 64);
  EXPECT_EQ(shown["seed"], 4711);
  EXPECT_EQ(shown["lineage"]["trial"]["id"], 1);
  EXPECT_EQ(system.ctl({"export", "--retraining", std::to_string(id), "-o", "model.pt"}).status, 0);
  EXPECT_EQ(read_text(system.folder() / "model.pt"), "sum " + std::to_string(kSum));
  EXPECT_EQ(system.ctl({"export", "--retraining", std::to_string(id), "--format", "safetensors", "-o", "m.safetensors"}).status, 0);
  EXPECT_EQ(read_text(system.folder() / "m.safetensors"), "weights " + std::to_string(kSum));
  EXPECT_TRUE(std::filesystem::exists(system.folder() / "m.json"));
  const testing::Finished evaluated = system.ctl({"evaluate", std::to_string(id), "--html", "page.html"});
  EXPECT_EQ(evaluated.status, 0) << evaluated.err;
  EXPECT_THAT(evaluated.out, HasSubstr("0.7500"));
  EXPECT_THAT(read_text(system.folder() / "page.html"), HasSubstr("Confusion matrix"));
  write_atomically(shown["folder"].get<std::string>() + "/model.pt", "something else");
  EXPECT_EQ(system.ctl({"export", "--retraining", std::to_string(id), "-o", "again.pt"}).status, 2) << "the file was changed since";
  EXPECT_FALSE(std::filesystem::exists(system.folder() / "again.pt"));
  EXPECT_EQ(system.stop(), 0);
}

TEST_F(RetrainingTest, WorkersKilledAtSeveralEpochsCostAtMostTheEpochTheyWereIn) {
  const std::int64_t id = retrain();
  for (const int epoch : {1, 3, 6}) {
    const auto victim = worker("victim" + std::to_string(epoch));
    wait_for_epoch(id, epoch);
    victim->signal(SIGKILL);
    victim->wait(std::chrono::seconds(10));
  }
  const auto heir = worker("heir");
  wait_for_completion(id);
  expect_whole(id);
  EXPECT_EQ(system.sql("select count(*) from retraining_attempts where outcome = 'lost'")[0][0], 3);
  EXPECT_EQ(system.sql("select max(n) from (select count(*) as n from retraining_epochs group by epoch)")[0][0], 2)
      << "what is repeated is the last epoch before a kill";
  EXPECT_EQ(system.stop(), 0);
}

TEST_F(RetrainingTest, WorkersThatShareNoFolderAreKilledAndOthersGoOnFromWhatTheySent) {
  const std::int64_t id = retrain();
  for (const int epoch : {1, 3, 6}) {
    const std::string name = "victim" + std::to_string(epoch);
    const auto victim = far_worker(name);
    wait_for_checkpoint(id, epoch);
    EXPECT_FALSE(std::filesystem::is_empty(cache_of(name) / "retrainings"));
    victim->signal(SIGKILL);
    victim->wait(std::chrono::seconds(10));
  }
  const auto heir = far_worker("heir");
  wait_for_completion(id);
  expect_whole(id);
  EXPECT_EQ(system.sql("select count(*) from retraining_attempts where outcome = 'lost'")[0][0], 3);
  for (const json& row : system.sql("select path from artifacts")) EXPECT_EQ(std::filesystem::path(row[0].get<std::string>()).parent_path(), folder_of(id));
  EXPECT_EQ(system.ctl({"export", "--retraining", std::to_string(id), "-o", "model.pt"}).status, 0);
  EXPECT_EQ(read_text(system.folder() / "model.pt"), "sum " + std::to_string(kSum));
  heir->signal(SIGTERM);
  EXPECT_EQ(heir->wait(std::chrono::seconds(60)), 0) << heir->err();
  EXPECT_FALSE(std::filesystem::exists(cache_of("heir") / "retrainings" / (folder_of(id).filename().string() + ".4")));
  const std::int64_t next = retrain();
  const auto again = far_worker("victim1");
  wait_for_completion(next);
  EXPECT_FALSE(std::filesystem::exists(cache_of("victim1") / "retrainings" / (folder_of(id).filename().string() + ".1"))) << "what a kill left is cleared away";
  EXPECT_EQ(system.stop(), 0);
}

TEST_F(RetrainingTest, AWorkerThatSharesNoFolderAndWokeTooLateChangesNothing) {
  const std::int64_t id = retrain();
  const auto sleeper = far_worker("sleeper");
  wait_for_checkpoint(id, 2);
  sleeper->signal(SIGSTOP);
  const auto heir = far_worker("heir");
  system.wait_until([&] { return system.sql("select count(*) from retraining_attempts")[0][0] == 2; });
  sleeper->signal(SIGCONT);
  wait_for_completion(id);
  expect_whole(id);
  EXPECT_EQ(system.ctl({"export", "--retraining", std::to_string(id), "-o", "model.pt"}).status, 0);
  EXPECT_EQ(read_text(system.folder() / "model.pt"), "sum " + std::to_string(kSum));
  const std::int64_t other = retrain();
  wait_for_completion(other);  // one of them is free for it
  EXPECT_TRUE(sleeper->running());
  EXPECT_EQ(system.stop(), 0);
}

TEST_F(RetrainingTest, TheDaemonKilledWhileAFarWorkerSendsLosesNothing) {
  const std::int64_t id = retrain();
  const std::string address = system.url().substr(7);
  const auto faithful = far_worker("faithful");
  for (const int epoch : {1, 4, 7}) {
    wait_for_checkpoint(id, epoch);
    system.kill_daemon();
    system.start(0, {{"--listen", address}, {"--reconnect-grace-s", "20"}, {"--lease-s", "20"}});
  }
  wait_for_completion(id);
  expect_whole(id);
  EXPECT_EQ(system.ctl({"export", "--retraining", std::to_string(id), "-o", "model.pt"}).status, 0);
  EXPECT_EQ(read_text(system.folder() / "model.pt"), "sum " + std::to_string(kSum));
  EXPECT_EQ(system.stop(), 0);
}

TEST_F(RetrainingTest, AFarWorkerThatMustGoAtOnceSendsWhatItHasFirst) {
  const std::int64_t id = FoundTrialTest::retrain({"--epochs", "1000"});
  const std::string address = system.url().substr(7);
  const auto hurried = far_worker("hurried");
  wait_for_checkpoint(id, 1);
  const auto epoch_in = [](const std::filesystem::path& folder) { return json::parse(read_text(folder / "checkpoint.json")).at("epoch").get<int>(); };
  const std::filesystem::path there = folder_of(id), here = cache_of("hurried") / "retrainings" / (there.filename().string() + ".1");
  system.kill_daemon();
  const int sent = epoch_in(there);
  system.wait_until([&] { return epoch_in(here) > sent; });
  hurried->signal(SIGTERM);
  system.start(0, {{"--listen", address}, {"--reconnect-grace-s", "20"}, {"--lease-s", "20"}});
  EXPECT_EQ(hurried->wait(std::chrono::seconds(60)), 0) << hurried->err();
  system.wait_until([&] { return system.sql("select outcome from retraining_attempts")[0][0] == "preempted"; });
  EXPECT_GT(epoch_in(there), sent);
  EXPECT_EQ(system.sql("select max(epoch) from retraining_epochs")[0][0], epoch_in(there)) << "only the epoch at hand is trained again";
  EXPECT_EQ(system.stop(), 0);
}

TEST_F(RetrainingTest, TheDaemonKilledAtSeveralEpochsLosesNothing) {
  const std::int64_t id = retrain();
  const std::string address = system.url().substr(7);
  const auto faithful = worker("faithful");
  for (const int epoch : {1, 4, 7}) {
    wait_for_epoch(id, epoch);
    system.kill_daemon();
    system.start(0, {{"--listen", address}, {"--reconnect-grace-s", "20"}, {"--lease-s", "20"}});
  }
  wait_for_completion(id);
  expect_whole(id);
  EXPECT_EQ(system.sql("select count(*) from retraining_attempts")[0][0], 1) << "the worker that came back kept its attempt";
  EXPECT_EQ(system.stop(), 0);
}

TEST_F(RetrainingTest, AWorkerWhoseWallTimeEndsHandsItBackBehindAnEpoch) {
  constexpr int kMany = 121;
  const std::int64_t id = FoundTrialTest::retrain({"--epochs", std::to_string(kMany - 1)});
  const auto brief = short_lived_worker("brief", 12);
  EXPECT_EQ(brief->wait(std::chrono::seconds(60)), 0) << brief->err();
  const std::string of = " from retraining_attempts where retraining_id = " + std::to_string(id);
  system.wait_until([&] { return system.sql("select count(*)" + of + " and outcome is not null")[0][0] == 1; });
  const json first = system.sql("select outcome, error" + of)[0];
  EXPECT_EQ(first[0], "preempted");
  EXPECT_THAT(first[1].get<std::string>(), AllOf(HasSubstr("the worker's wall time ends in"), HasSubstr("too short for another epoch")));
  const auto heir = worker("heir");
  wait_for_completion(id);
  EXPECT_EQ(system.sql("select count(*)" + of)[0][0], 2) << "the first worker was not asked again";
  EXPECT_EQ(system.sql("select failures, parameters from retrainings")[0], json::array({0, kMany * (kMany + 1) / 2})) << "no retry, no epoch twice";
  EXPECT_EQ(system.sql("select count(*) - count(distinct epoch) from retraining_epochs")[0][0], 1) << "that of the checkpoint was told again";
  EXPECT_EQ(system.stop(), 0);
}

TEST_F(RetrainingTest, OneThatNoWorkerCanDoSaysWhatItWaitsFor) {
  const auto two = worker("two", 2);
  system.wait_until([&] { return !system.ctl_json({"workers"})["workers"].empty(); });
  const testing::Finished asked = system.ctl({"retrain", "--trial", "1", "--epochs", std::to_string(kEpochs - 1), "--gpus", "4"});
  EXPECT_EQ(asked.status, 0) << asked.err;
  const std::string sentence = "waits for a worker with 4 GPUs; the largest connected has 2";
  EXPECT_THAT(asked.err, HasSubstr("it " + sentence));
  EXPECT_THAT(system.ctl({"workers"}).out, HasSubstr("retraining 1 " + sentence));
  EXPECT_THAT(system.ctl({"show", "--retraining", "1"}).out, HasSubstr(sentence));
  EXPECT_EQ(system.ctl_json({"workers"})["waiting"], json::array({{{"retraining", 1}, {"waits", sentence}}}));
  const auto four = worker("four", 4);
  wait_for_completion(1);
  EXPECT_EQ(system.sql("select name from workers join retraining_attempts on worker_id = id"), json::array({json::array({"four"})}));
  EXPECT_TRUE(system.ctl_json({"show", "--retraining", "1"})["retraining"]["waits"].is_null());
  EXPECT_EQ(system.stop(), 0);
}

TEST_F(RetrainingTest, PausedResumedAndCancelled) {
  const std::int64_t id = retrain();
  const auto a = worker("a");
  wait_for_epoch(id, 2);
  EXPECT_EQ(system.ctl({"pause", "--retraining", std::to_string(id)}).status, 0);
  system.wait_until([&] { return system.sql("select count(*) from retraining_attempts where outcome = 'preempted'")[0][0] == 1; });
  EXPECT_EQ(state(id), "paused");
  EXPECT_EQ(system.ctl({"export", "--retraining", std::to_string(id)}).status, 2) << "it is not completed";
  EXPECT_EQ(system.ctl({"resume", "--retraining", std::to_string(id)}).status, 0);
  wait_for_completion(id);
  expect_whole(id);
  const std::int64_t other = retrain();
  wait_for_epoch(other, 1);
  EXPECT_EQ(system.ctl({"cancel", "--retraining", std::to_string(other), "--yes"}).status, 0);
  EXPECT_EQ(state(other), "cancelled");
  EXPECT_EQ(system.ctl({"resume", "--retraining", std::to_string(other)}).status, 2);
  const std::int64_t third = retrain();
  wait_for_completion(third);  // the worker is free again
  EXPECT_EQ(system.stop(), 0);
}

TEST_F(RetrainingTest, AnExportedFileIsRetrainedInAnotherDatabase) {
  EXPECT_EQ(system.ctl({"export", "1", "-o", "best.json"}).status, 0);
  EXPECT_EQ(system.stop(), 0);
  std::filesystem::remove(system.folder() / "fusion.db");
  system.start(0);
  const json made = system.ctl_json({"retrain", "--from", "best.json", "--epochs", std::to_string(kEpochs - 1)})["retraining"];
  EXPECT_TRUE(made["trial"].is_null());
  EXPECT_EQ(made["lineage"]["source"], "best.json");
  EXPECT_EQ(made["lineage"]["study"]["name"], "found");
  EXPECT_EQ(made["seed"], 4711);
  const auto a = worker("a");
  wait_for_completion(made["id"]);
  EXPECT_EQ(system.stop(), 0);
}

TEST_F(RetrainingTest, BadRequestsEndInSentencesAndStatusTwo) {
  const auto refused = [&](std::vector<std::string> arguments) {
    const testing::Finished finished = system.ctl(arguments);
    EXPECT_EQ(finished.status, 2) << finished.err;
    return finished.err;
  };
  EXPECT_THAT(refused({"retrain", "--trial", "99"}), HasSubstr("there is no trial 99"));
  EXPECT_THAT(refused({"retrain", "--trial", "1", "--head", "bart", "--epochs", "many", "--width", "0"}),
              AllOf(HasSubstr("/options/head"), HasSubstr("/options/epochs"), HasSubstr("/options/width")));
  EXPECT_THAT(refused({"retrain"}), HasSubstr("expected either --trial N"));
  EXPECT_THAT(refused({"retrain", "--from", "absent.json"}), HasSubstr("absent.json"));
  EXPECT_THAT(refused({"watch", "--retraining", "5"}), HasSubstr("there is no retraining 5"));
  EXPECT_THAT(refused({"pause"}), HasSubstr("either ID or --retraining N"));
  EXPECT_EQ(system.ctl({"export", "1", "-o", "best.json"}).status, 0);
  json document = json::parse(read_text(system.folder() / "best.json"));
  document["dataset"]["digest"] = std::string(64, '0');
  document["format"] = "something-2";
  write_atomically(system.folder() / "bad.json", document.dump());
  EXPECT_THAT(refused({"retrain", "--from", "bad.json"}), HasSubstr("/export/format"));
  document["format"] = "fusiond-export-1";
  write_atomically(system.folder() / "bad.json", document.dump());
  EXPECT_THAT(refused({"retrain", "--from", "bad.json"}), HasSubstr("have the digest"));
  EXPECT_THAT(refused({"retrain", "--from", "best.json", "--rank", "7"}), HasSubstr("/rank"));
  EXPECT_THAT(refused({"retrain", "--from", "best.json", "--dataset", "/etc/hosts"}), HasSubstr("data roots"));
  EXPECT_EQ(system.sql("select count(*) from retrainings")[0][0], 0);
  EXPECT_EQ(system.stop(), 0);
}

TEST_F(RetrainingTest, AnArtifactsFolderThatIsAFileEndsTheDaemonWithASentence) {
  EXPECT_EQ(system.stop(), 0);
  write_atomically(system.folder() / "taken", "a file");
  const testing::Finished finished = testing::run(
      {testing::program("fusiond"), "--db", "fusion.db", "--listen", "127.0.0.1:0", "--loopback", "same_user", "--artifacts", "taken"}, system.options(),
      std::chrono::seconds(20));
  EXPECT_EQ(finished.status, 2);
  EXPECT_THAT(finished.err, AllOf(HasSubstr("artifacts"), HasSubstr("taken")));
}

}  // namespace
}  // namespace fusion
