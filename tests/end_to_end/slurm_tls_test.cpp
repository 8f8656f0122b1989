// Workers as jobs of a real Slurm, for which the daemon lies beyond a network: it listens on an address that is not loopback, so they need its
// authority and a token.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <regex>

#include "tests/end_to_end/secrets.h"
#include "tests/end_to_end/slurm_pools.h"

namespace fusion {
namespace {

using nlohmann::json;
using testing::Secrets;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::Ge;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;
using ::testing::StartsWith;
using namespace std::chrono_literals;

class SlurmTlsTest : public testing::SlurmTest {
 protected:
  void SetUp() override {
    SlurmTest::SetUp();
    if (IsSkipped()) return;
    address = testing::outer_address();
    if (address.empty()) GTEST_SKIP() << "this machine has no address but loopback";
    secrets.emplace(system, std::vector<std::string>{address});
  }
  json secure_pool(double epoch_s) const {
    json one = pool(epoch_s);
    one["token_file"] = secrets->worker_token_file().string();
    one["environment"] = {{"FUSION_CA", secrets->ca().string()}};
    return one;
  }
  void start_secure(const json& one) { start({one}, secrets->daemon_options()); }
  std::string problem() { return pool_now().at("problem"); }
  std::string shown(const std::string& job) const { return slurm->ask({"scontrol", "show", "job", job}); }
  /// When the daemon said so, in seconds of the day.
  std::vector<double> times_of(const std::string& event) {
    std::vector<double> times;
    const std::string log = system.daemon().err();
    const std::regex line("(\\d\\d):(\\d\\d):(\\d\\d\\.\\d+)[^\\n]*" + event);
    for (std::sregex_iterator at(log.begin(), log.end(), line), end; at != end; ++at) {
      times.push_back(std::stod((*at)[1]) * 3600 + std::stod((*at)[2]) * 60 + std::stod((*at)[3]));
    }
    return times;
  }

  std::string address;
  std::optional<Secrets> secrets;
};

TEST_F(SlurmTlsTest, AStudyIsTrainedOverTlsWithATokenThatNobodySees) {
  start_secure(secure_pool(0.4));
  ASSERT_THAT(system.url(), StartsWith("https://" + address + ":"));
  const auto study = submit();
  until_connected(4);
  const std::string secret = secrets->worker_secret();
  const std::set<std::string> jobs = jobs_of_workers();
  ASSERT_THAT(jobs, SizeIs(4));
  for (const std::string& job : jobs) {
    EXPECT_THAT(shown(job), AllOf(HasSubstr("Comment=fusion:"), Not(HasSubstr(secret))));
    EXPECT_THAT(slurm->ask({"scontrol", "write", "batch_script", job, "-"}), AllOf(HasSubstr("fusion-worker"), Not(HasSubstr(secret))));
  }
  EXPECT_THAT(testing::command_lines_with(secret), IsEmpty());
  EXPECT_EQ(system.wait_for(study), "completed");
  expect_each_scored_once();
  until([&] { return slurm->jobs("R,PD,CG").empty(); });
  EXPECT_EQ(system.stop(), 0);
  EXPECT_THAT(testing::files_with(system.folder().path(), secret), ElementsAre(StartsWith("fusionctl-"), "worker.token"))
      << "what fusionctl tokens add printed, and the file; logs of jobs and the database lie there too";
  EXPECT_THAT(testing::files_with(slurm->folder(), secret), IsEmpty()) << "what Slurm keeps of each job: script, environment, log";
}

TEST_F(SlurmTlsTest, ARevokedTokenEndsTheWorkersAndNoneIsLaunchedUntilThereIsANewOne) {
  start_secure(secure_pool(0.5));
  const auto study = submit();
  until_connected(4);
  const std::set<std::string> jobs = jobs_of_workers();
  until([&] { return completed() > 2; });
  secrets->revoke_worker_token();
  const std::string sentence = "token_file " + secrets->worker_token_file().string() + ": its token is not known to this daemon, or was revoked; "
                               "nothing is launched until it holds a valid one of role worker (fusionctl tokens add)";
  until([&] { return problem() == sentence; });
  for (const std::string& job : jobs) {
    until([&] { return shown(job).find("JobState=FAILED") != std::string::npos; });
    EXPECT_THAT(shown(job), HasSubstr("ExitCode=2:0")) << "it is of no use to start it again";
    EXPECT_THAT(read_text(system.folder() / ("fusion.db.pools/logs/" + job + ".log")), HasSubstr("the token of this worker was revoked"));
  }
  until([&] { return pool_now().at("launched").empty(); });
  std::this_thread::sleep_for(3s);  // six looks at the pool
  EXPECT_THAT(arrays(), SizeIs(4)) << "no job that would be turned away";
  EXPECT_EQ(pool_now().at("wanted"), 4);
  EXPECT_THAT(system.ctl({"workers"}).out, HasSubstr("was revoked"));

  secrets->renew_worker_token();
  EXPECT_EQ(system.wait_for(study), "completed");
  expect_each_scored_once();
  EXPECT_EQ(attempts("failed"), 0);
  until([&] { return problem() == ""; });
}

TEST_F(SlurmTlsTest, JobsThatEndAtOnceAreLaunchedOneByOneAfterEverLongerPauses) {
  json broken = secure_pool(0.05);
  broken["environment"]["FUSION_CA"] = "/nowhere/ca.pem";
  start_secure(broken);
  submit();
  until([&] { return arrays().size() >= 4 + 4; });  // all that are wanted, then one each time
  const std::vector<double> asked = times_of("workers asked of slurm");
  ASSERT_THAT(asked, SizeIs(Ge(5u)));
  for (std::size_t i = 1; i < 5; ++i) {
    double pause = asked[i] - asked[i - 1];
    if (pause < 0) pause += 86'400;
    EXPECT_GE(pause, 0.5 * static_cast<double>(1 << (i - 1))) << i;
  }
  EXPECT_THAT(problem(), AllOf(HasSubstr("ended FAILED before its worker had come: "), HasSubstr("/nowhere/ca.pem")));
  EXPECT_THAT(slurm->jobs("R,PD", "%F"), SizeIs(::testing::Le(1u)));
}

TEST_F(SlurmTlsTest, WhyAWorkerDoesNotComeIsToldInTheWordsOfItsLog) {
  ASSERT_EQ(system.ctl({"certs", "--out", (system.folder() / "other").string(), "--host", "elsewhere"}).status, 0);
  json distrustful = secure_pool(0.05), lost = secure_pool(0.05);
  distrustful["environment"]["FUSION_CA"] = (system.folder() / "other/ca.pem").string();
  distrustful["max"] = lost["max"] = 1;
  lost["name"] = "lost";
  lost["url"] = "https://" + address + ":1";
  slurm_times["connect_s"] = 1;
  start({distrustful, lost}, secrets->daemon_options());
  submit();
  const auto says = [&](std::size_t index, const std::string& words) { return pool_now(index).at("problem").get<std::string>().find(words) != std::string::npos; };
  until([&] { return says(0, "ended FAILED before its worker had come: fusion-worker: the daemon at " + system.url() + " cannot be trusted: its certificate is not from"); });
  until([&] { return says(1, "can that node reach https://" + address + ":1?; the log of job "); });
  until([&] { return says(1, "no connection, trying again and again"); });
}

}  // namespace
}  // namespace fusion
