// Whole studies on a real Slurm: its own programs on this machine, real workers as its jobs, with simulated training.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/end_to_end/slurm_pools.h"

namespace fusion {
namespace {

using nlohmann::json;
using testing::Finished;
using testing::kTrials;
using testing::long_form;
using testing::PoolTest;
using testing::SlurmTest;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::Each;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::IsSupersetOf;
using namespace std::chrono_literals;

TEST_F(SlurmTest, AWholeStudyOverTwoNodesGrowsThePoolAndShrinksIt) {
  start({pool(0.4)});
  until([&] { return pool_now().at("problem") == ""; });
  EXPECT_THAT(slurm->jobs(), IsEmpty()) << "nothing is to be done yet";
  const auto study = submit();
  until_connected(4);
  std::set<std::string> nodes;
  const json list = workers().at("workers");
  for (const json& worker : list) nodes.insert(worker.at("node"));
  EXPECT_EQ(nodes, (std::set<std::string>{"node1", "node2"}));
  EXPECT_EQ(system.wait_for(study), "completed");
  expect_each_scored_once();
  until([&] { return slurm->jobs("R,PD,CG").empty(); });
  EXPECT_THAT(slurm->jobs("all", "%T"), Each("COMPLETED")) << "idle workers leave by themselves";
  EXPECT_EQ(pool_now().at("wanted"), 0);
  EXPECT_EQ(slurm->jobs("all", "%F").size(), 4u) << "and none was started beside these";
}

TEST_F(SlurmTest, PreemptedWorkersGiveBackWhatTheyTrain) {
  start({pool(0.5)});
  const auto study = submit();
  until_connected(4);
  slurm->ask({"sbatch", "-p", "high", "--exclusive", "--nodes=2", "--output=/dev/null", "--wrap", "sleep 6"});
  until([&] { return attempts("preempted") > 0; });
  EXPECT_EQ(system.wait_for(study), "completed");
  expect_each_scored_once();
  EXPECT_EQ(attempts("failed"), 0);
}

TEST_F(SlurmTest, ARequeuedJobIsTheSameWorkerAgain) {
  start({pool(1.5)});
  const auto study = submit();
  until_connected(4);
  const std::string job = *jobs_of_workers().begin();
  slurm->ask({"scontrol", "requeue", job});
  until([&] { return slurm->ask({"scontrol", "show", "job", job}).find("Restarts=1") != std::string::npos; });
  until([&] { return !jobs_of_workers().contains(job); });
  until([&] { return jobs_of_workers().contains(job); });
  EXPECT_EQ(system.wait_for(study), "completed");
  expect_each_scored_once();
  EXPECT_EQ(arrays().size(), 4u) << "a job that waits again is replaced by nobody";
}

TEST_F(SlurmTest, ANodeThatDiesAmidTrialsLosesNone) {
  start({pool(0.5)});
  const auto study = submit();
  until_connected(4);
  until([&] { return completed() > 4; });
  slurm->kill_node("node2");
  until([&] { return attempts("lost") > 0; });
  EXPECT_EQ(system.wait_for(study, 240s), "completed");
  expect_each_scored_once();
}

// Slurm calls the node lost and starts the job elsewhere, while its first worker trains on: two of one job, told apart by their names.
TEST_F(SlurmTest, ANodeThatIsOnlySilentHasNoTrialScoredTwice) {
  if (!long_form()) GTEST_SKIP() << "takes over two minutes: set FUSION_LONG_TESTS=1";
  json small = pool(4);  // the study outlasts the time that Slurm takes to start them anew
  small["max"] = 2;
  start({small});
  const auto study = submit();
  until_connected(2);
  const std::string node = workers().at("workers").at(0).at("node");
  slurm->silence_node(node);
  until([&] {
    const json list = workers().at("workers");
    return list.size() > jobs_of_workers().size();
  }, 300s);
  EXPECT_LT(completed(), kTrials) << "while the study goes on";
  slurm->start_node(node);
  EXPECT_EQ(system.wait_for(study, 300s), "completed");
  expect_each_scored_once();
  EXPECT_EQ(arrays().size(), 2u) << "the job that was requeued is the same one";
}

TEST_F(SlurmTest, ADaemonThatIsStartedAgainAdoptsItsJobs) {
  start({pool(0.5)});
  std::string port = read_text(system.folder() / "port");
  port.pop_back();
  const auto study = submit();
  until_connected(4);
  const std::vector<std::string> before = arrays();
  const std::set<std::string> jobs = jobs_of_workers();
  until([&] { return completed() > 2; });
  system.kill_daemon();
  start({pool(0.5)}, {{"--listen", "127.0.0.1:" + port}});
  until_connected(4);
  EXPECT_EQ(jobs_of_workers(), jobs);
  until([&] { return pool_now().at("running") == 4; });
  EXPECT_EQ(arrays(), before) << "adopted, none doubled";
  EXPECT_EQ(system.wait_for(study), "completed");
  expect_each_scored_once();
  EXPECT_EQ(arrays(), before);
  // Told to stop, it keeps them; told to stop with its workers, nothing is left.
  EXPECT_EQ(system.ctl({"shutdown", "--workers"}).status, 0);
  EXPECT_EQ(system.daemon().wait(60s), 0);
  until([&] { return slurm->jobs("R,PD,CG").empty(); });
}

TEST_F(SlurmTest, RefusedPoolsSayWhyInSlurmsWordsAndTheStudyGoesOnElsewhere) {
  json nowhere = pool(0.05), closed = nowhere, huge = nowhere;
  nowhere.update({{"name", "nowhere"}, {"partition", "nowhere"}});
  closed.update({{"name", "closed"}, {"partition", "closed"}});
  huge.update({{"name", "huge"}, {"gpus_per_worker", 3}});
  start({nowhere, closed, huge, local_pool(0.05)});
  const auto study = submit();
  const auto says = [&](std::size_t index, const std::string& words) {
    return pool_now(index).at("problem").get<std::string>().find(words) != std::string::npos;
  };
  until([&] { return says(0, "sbatch: Batch job submission failed: Invalid partition name specified"); });
  until([&] { return says(1, "sbatch: Batch job submission failed: Access/permission denied"); });
  until([&] { return says(2, "sbatch: Batch job submission failed: Requested node configuration is not available"); });
  EXPECT_THAT(system.ctl({"workers"}).out, AllOf(HasSubstr("nowhere"), HasSubstr("Invalid partition name"), HasSubstr("permission denied"),
                                                 HasSubstr("configuration is not available")));
  EXPECT_EQ(system.wait_for(study), "completed");
  expect_each_scored_once();
  EXPECT_THAT(slurm->jobs("all", "%T %N"), Each("FAILED ")) << "Slurm shows what it refused for its resources; nothing ever had a node";
  until([&] { return pool_now(3).at("running") == 0; });
}

TEST_F(PoolTest, WithoutSbatchThePoolSaysSoAndTheStudyGoesOnElsewhere) {
  const std::string path = std::getenv("PATH");
  ::setenv("PATH", system.folder().path().c_str(), 1);
  start({pool(0.05), local_pool(0.05)});
  ::setenv("PATH", path.c_str(), 1);
  const auto study = submit();
  until([&] { return pool_now().at("problem").get<std::string>().starts_with("squeue is not on the daemon's PATH ("); });
  EXPECT_EQ(system.wait_for(study), "completed");
  expect_each_scored_once();
  EXPECT_EQ(system.stop(), 0);
}

TEST_F(SlurmTest, AStudyGoesOnWhileTheControllerIsAway) {
  start({pool(long_form() ? 6 : 0.5)});
  const auto study = submit();
  until_connected(4);
  slurm->stop_controller();
  until([&] { return pool_now().at("problem").get<std::string>().starts_with("squeue"); });
  if (long_form()) std::this_thread::sleep_for(60s);
  EXPECT_EQ(system.wait_for(study), "completed");
  expect_each_scored_once();
  EXPECT_EQ(pool_now().at("launcher"), "slurm");
  slurm->start_controller();
  until([&] { return pool_now().at("problem") == ""; });
  until([&] { return slurm->jobs("R,PD,CG").empty(); });
  EXPECT_EQ(arrays().size(), 4u);
}

TEST_F(PoolTest, ABadPoolIsASentenceAtTheStart) {
  write_atomically(system.folder() / "job.sh", "#!/bin/bash\n{{modules}}\nexec {{run}}\n");
  json bad = pool(1);
  bad["template"] = (system.folder() / "job.sh").string();
  const auto refusal = [&](const json& one) {
    write_atomically(system.folder() / "bad.json", json{{"pools", json::array({one})}}.dump());
    return testing::run({testing::program("fusiond"), "--config", (system.folder() / "bad.json").string(), "--listen", "127.0.0.1:0", "--db",
                         (system.folder() / "bad.db").string(), "--loopback", "same_user"},
                        system.options());
  };
  const Finished missing = refusal(bad);
  EXPECT_EQ(missing.status, 2);
  EXPECT_THAT(missing.err, HasSubstr("job.sh: expected {{run}} or {{prologue}}, got {{modules}}, which has no value"));
  bad["launcher"] = "pbs";
  const Finished unknown = refusal(bad);
  EXPECT_EQ(unknown.status, 2);
  EXPECT_THAT(unknown.err, HasSubstr("/pools/0/launcher: expected one of local, slurm, got \"pbs\""));
}

}  // namespace
}  // namespace fusion
