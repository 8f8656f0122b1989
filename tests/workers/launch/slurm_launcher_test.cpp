#include "workers/launch/slurm_launcher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <functional>
#include <set>

#include "base/asio.h"
#include "base/error.h"
#include "base/files.h"
#include "tests/private_slurm.h"

namespace fusion {
namespace {

using namespace std::chrono_literals;
using testing::PrivateSlurm;
using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAre;

PoolOptions small_pool() {
  PoolOptions pool;
  pool.name = "small";
  pool.launcher = LauncherKind::slurm;
  pool.max = 8;
  pool.gpus_per_worker = 1;
  pool.device.clear();
  return pool;
}

/// In place of a worker, a job's template sleeps.
class LaunchTest : public ::testing::Test {
 protected:
  LaunchTest() {
    times.poll_s = times.steady_poll_s = 0.3;
    times.absent_s = 1;
    times.leave_s = 1;
    times.retry_s = 0.3;
    times.command_s = 10;
    write_atomically(folder / "template", "#!/bin/bash\n{{prologue}}\n: {{run}}\nexec sleep 1000\n");
    pool.script_template = (folder / "template").string();
    pool.prologue = "echo \"url $FUSION_URL gpu $CUDA_VISIBLE_DEVICES hidden ${HIDDEN-none} threads $OMP_NUM_THREADS\"";
  }
  void make(const std::string& daemon = "d1") {
    launcher.reset();
    queue = std::make_unique<SlurmQueue>(io, times, std::vector<std::string>{pool.name});
    launcher = std::make_unique<SlurmLauncher>(*queue, pool, times, SlurmLauncher::Setting{daemon, "http://127.0.0.1:1", "/none", "info", folder / "pools"});
    launcher->start();
  }
  void until(const std::function<bool()>& condition, std::chrono::seconds limit = 120s) {
    const auto end = std::chrono::steady_clock::now() + limit;
    while (!condition()) {
      ASSERT_LT(std::chrono::steady_clock::now(), end) << "it did not happen; the launcher says: " << launcher->problem();
      queue->tick();
      launcher->connected(come);
      io.restart();
      io.run_for(20ms);
    }
  }
  int count(const std::string& state) const {
    int n = 0;
    for (const LaunchedWorker& worker : launcher->workers()) n += worker.state == state ? 1 : 0;
    return n;
  }
  void know() {
    EXPECT_EQ(launcher->may_launch(), 0) << "nothing is known yet";
    until([&] { return launcher->may_launch() > 0; });
  }
  asio::io_context io{1};
  testing::TemporaryFolder folder;
  PoolOptions pool = small_pool();
  SlurmTimes times;
  std::set<std::string> come;  // connected workers
  std::unique_ptr<SlurmQueue> queue;
  std::unique_ptr<SlurmLauncher> launcher;
};

TEST_F(LaunchTest, ATokenFileThatOthersMayReadIsASentence) {
  pool.token_file = (folder / "token").string();
  EXPECT_THAT([&] { make(); }, ::testing::ThrowsMessage<ConfigError>(HasSubstr("cannot be read here")));
  write_atomically(pool.token_file, "secret\n");
  ::chmod(pool.token_file.c_str(), 0644);
  EXPECT_THAT([&] { make(); }, ::testing::ThrowsMessage<ConfigError>(HasSubstr("may be read by others; expected mode 0600")));
  ::chmod(pool.token_file.c_str(), 0600);
  make();
  EXPECT_THAT(launcher->sbatch_arguments(1, "l"), Each(Not(HasSubstr("secret"))));
}

TEST_F(LaunchTest, ATemplateWithAMissingVariableIsASentence) {
  write_atomically(folder / "template", "#!/bin/bash\n{{modules}}\nexec {{run}}\n");
  EXPECT_THAT([&] { make(); }, ::testing::ThrowsMessage<ConfigError>(AllOf(HasSubstr("pool small: template "), HasSubstr("got {{modules}}, which has no value"))));
  pool.script_template = (folder / "none").string();
  EXPECT_THAT([&] { make(); }, ::testing::ThrowsMessage<ConfigError>(HasSubstr("cannot be read")));
}

TEST_F(LaunchTest, SaysWhatSbatchIsToldAndKeepsItForPeople) {
  pool.partition = "gpu";
  pool.time = "4:00:00";
  pool.extra_args = {"--exclusive"};
  make();
  EXPECT_THAT(launcher->sbatch_arguments(4, "77"),
              ::testing::IsSupersetOf({"--parsable", "--job-name=fusion-small", "--comment=fusion:d1:small:77", "--array=0-3", "--gres=gpu:1",
                                       "--signal=B:TERM@60", "--partition=gpu", "--time=4:00:00"}));
  EXPECT_EQ(launcher->sbatch_arguments(1, "77").back(), "--exclusive");
  EXPECT_THAT(read_text(folder / "pools/small.sh"), AllOf(HasSubstr("# sbatch --parsable"), HasSubstr("exec sleep 1000")));
  pool.extra_args = {"--gpus=a100:1"};
  make();
  EXPECT_THAT(launcher->sbatch_arguments(1, "77"), Not(::testing::Contains("--gres=gpu:1")));
}

TEST_F(LaunchTest, WithoutSlurmItSaysSo) {
  const std::string path = std::getenv("PATH");
  ::setenv("PATH", folder.path().c_str(), 1);
  make();
  until([&] { return launcher->problem().starts_with("squeue"); });
  ::setenv("PATH", path.c_str(), 1);
  EXPECT_THAT(launcher->problem(), HasSubstr("is not on the daemon's PATH"));
  EXPECT_TRUE(launcher->stuck());
  EXPECT_EQ(launcher->may_launch(), 0);
}

/// Against Slurm's own programs.
class SlurmLauncherTest : public LaunchTest {
 protected:
  void SetUp() override {
    if (const std::string why = PrivateSlurm::missing(); !why.empty()) GTEST_SKIP() << why;
    slurm = std::make_unique<PrivateSlurm>();
    ::setenv("SLURM_CONF", slurm->environment().at("SLURM_CONF").c_str(), 1);
    ::setenv("HIDDEN", "inherited", 1);
  }
  void TearDown() override {
    launcher.reset();
    queue.reset();
    ::unsetenv("SLURM_CONF");
    ::unsetenv("HIDDEN");
  }
  std::unique_ptr<PrivateSlurm> slurm;
};

TEST_F(SlurmLauncherTest, LaunchesWithdrawsAndRetires) {
  make();
  know();
  launcher->launch(6);
  EXPECT_EQ(launcher->may_launch(), 0) << "not before sbatch has answered";
  until([&] { return count("running") == 4 && count("waiting") == 2; });
  EXPECT_THAT(slurm->jobs("R"), SizeIs(4)) << "two nodes of two GPUs";
  until([&] { return launcher->problem() == "2 x PENDING (Resources)" || launcher->problem() == "1 x PENDING (Priority), 1 x PENDING (Resources)"; });
  EXPECT_FALSE(launcher->stuck());
  const LaunchedWorker first = launcher->workers()[0];
  const std::filesystem::path log = folder / ("pools/logs/" + first.name + ".log");
  until([&] { return std::filesystem::exists(log) && std::filesystem::file_size(log) > 0; });
  EXPECT_EQ(read_text(log), "url http://127.0.0.1:1 gpu 0 hidden none threads 1\n");

  EXPECT_EQ(launcher->withdraw(5), 2);
  until([&] { return launcher->workers().size() == 4; });
  EXPECT_THAT(slurm->jobs("PD"), IsEmpty());
  come = {first.name};
  launcher->connected(come);
  launcher->retire({first.name});
  EXPECT_EQ(count("leaving"), 1);
  until([&] { return launcher->workers().size() == 3; });
  EXPECT_THAT(slurm->jobs("R"), SizeIs(3)) << "it did not leave by itself, and was cancelled";
  EXPECT_EQ(launcher->problem(), "") << "what was told to end is no failure";
}

TEST_F(SlurmLauncherTest, ARefusalIsToldInSlurmsOwnWords) {
  pool.partition = "nowhere";
  make();
  know();
  launcher->launch(2);
  until([&] { return !launcher->problem().empty(); });
  EXPECT_THAT(launcher->problem(), AllOf(HasSubstr("sbatch: "), HasSubstr("nvalid partition")));
  EXPECT_TRUE(launcher->stuck());
  EXPECT_THAT(launcher->workers(), IsEmpty());
  until([&] { return launcher->may_launch() > 0; });
  EXPECT_EQ(launcher->may_launch(), 1) << "after a failure one is enough to see";
}

TEST_F(SlurmLauncherTest, ImpossibleResourcesAreToldLikewise) {
  pool.gpus_per_worker = 3;
  make();
  know();
  launcher->launch(1);
  until([&] { return !launcher->problem().empty(); });
  EXPECT_THAT(launcher->problem(), HasSubstr("Requested node configuration is not available"));
}

TEST_F(SlurmLauncherTest, JobsThatEndBeforeTheirWorkerCameMakePausesAndShowTheLog) {
  write_atomically(folder / "template", "#!/bin/bash\n{{prologue}}\n: {{run}}\necho module not found: cuda >&2\nexit 1\n");
  make();
  know();
  for (int i = 0; i < 3; ++i) {
    until([&] { return launcher->may_launch() > 0; });
    launcher->launch(1);
    until([&] { return !launcher->workers().empty(); });
    until([&] { return launcher->workers().empty(); });
  }
  EXPECT_TRUE(launcher->stuck());
  EXPECT_THAT(launcher->problem(), AllOf(HasSubstr("ended FAILED before its worker had come"), HasSubstr("module not found: cuda")));
}

TEST_F(SlurmLauncherTest, JobsOfOneLaunchThatEndTooEarlyCountOnceAndThenOneIsTriedAtATime) {
  write_atomically(folder / "template", "#!/bin/bash\n{{prologue}}\n: {{run}}\n[ $SLURM_ARRAY_JOB_ID != 1 ] || exit 1\nexec sleep 1000\n");
  make();
  know();
  launcher->launch(4);
  until([&] { return !launcher->workers().empty(); });
  until([&] { return launcher->workers().empty(); });
  EXPECT_FALSE(launcher->stuck()) << "it takes three launches";
  until([&] { return launcher->may_launch() > 0; });
  EXPECT_EQ(launcher->may_launch(), 1);
  launcher->launch(1);
  until([&] { return count("running") == 1; });
  EXPECT_EQ(launcher->may_launch(), 0) << "its worker has not come, and it has not ended";
  come = {launcher->workers()[0].name};
  until([&] { return launcher->may_launch() > 1; });
  EXPECT_EQ(launcher->problem(), "");
}

TEST_F(SlurmLauncherTest, ANewLauncherAdoptsTheJobsOfTheOld) {
  make();
  know();
  launcher->launch(3);
  until([&] { return count("running") == 3; });
  const std::vector<std::string> before = slurm->jobs("R");
  bool stopped = false;
  launcher->stop([&] { stopped = true; });
  until([&] { return stopped; });
  EXPECT_EQ(slurm->jobs("R"), before) << "on_stop is keep";

  make();
  know();
  EXPECT_EQ(count("running"), 3);
  make("d2");
  know();
  EXPECT_THAT(launcher->workers(), IsEmpty()) << "another daemon has no part in them";
  pool.on_stop = OnStop::cancel;
  make();
  know();
  stopped = false;
  launcher->stop([&] { stopped = true; });
  until([&] { return stopped; });
  until([&] { return slurm->jobs("R").empty(); });
}

TEST_F(SlurmLauncherTest, AControllerThatIsAwayIsNotKnown) {
  make();
  know();
  launcher->launch(2);
  until([&] { return count("running") == 2; });
  slurm->stop_controller();
  until([&] { return !launcher->problem().empty(); });
  EXPECT_EQ(count("running"), 2) << "a failed poll says nothing of jobs";
  EXPECT_EQ(launcher->may_launch(), 0);
  slurm->start_controller();
  until([&] { return launcher->problem().empty(); });
  EXPECT_EQ(count("running"), 2);
  EXPECT_GT(launcher->may_launch(), 0);
}

TEST_F(SlurmLauncherTest, AnAnswerThatWasLostDoublesNothing) {
  // Between fusiond and Slurm stands an sbatch that submits, and then says that it does not know.
  const std::string path = std::getenv("PATH");
  write_atomically(folder / "bin/sbatch", "#!/bin/sh\n/usr/bin/sbatch \"$@\" >/dev/null\necho 'sbatch: error: Batch job submission failed: "
                                          "Socket timed out on send/recv operation' >&2\nexit 1\n");
  ::chmod((folder / "bin/sbatch").c_str(), 0755);
  ::setenv("PATH", ((folder / "bin").string() + ":" + path).c_str(), 1);
  make();
  know();
  launcher->launch(2);
  EXPECT_THAT(launcher->workers(), SizeIs(2)) << "it counts";
  until([&] { return count("running") == 2; });
  ::setenv("PATH", path.c_str(), 1);
  EXPECT_THAT(launcher->workers(), SizeIs(2));
  EXPECT_THAT(slurm->jobs(), SizeIs(2));
}

}  // namespace
}  // namespace fusion
