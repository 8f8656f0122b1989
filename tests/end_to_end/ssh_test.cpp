// The commands of docs/cluster.md, "ssh", as they stand there, against a private sshd. Only host names, ports and the device are replaced, and the worker simulates.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>

#include <optional>
#include <thread>

#include "base/files.h"
#include "tests/end_to_end/private_sshd.h"
#include "tests/end_to_end/secrets.h"

namespace fusion {
namespace {

using nlohmann::json;
using testing::Finished;
using testing::PrivateSshd;
using testing::Process;
using testing::Secrets;
using testing::System;
using ::testing::HasSubstr;
namespace fs = std::filesystem;

constexpr int kTrials = 20;

std::string replaced(std::string text, const std::string& what, const std::string& by) {
  const std::size_t at = text.find(what);
  EXPECT_NE(at, std::string::npos) << what << " is not in: " << text;
  return at == std::string::npos ? text : text.replace(at, what.size(), by);
}

class SshTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const std::string why = PrivateSshd::missing(); !why.empty()) GTEST_SKIP() << why;
    fs::create_directories(system.folder() / "ssh");
    sshd.emplace(system.folder() / "ssh");
    manual = read_text(fs::path(std::getenv("FUSION_SOURCE_DIR")) / "docs/cluster.md");
    // What is fusion-worker on gpu7: the real one, that simulates. It hands on signals, and keeps the exit status.
    const fs::path worker = sshd->home() / "bin/fusion-worker";
    write_atomically(worker, "#!/bin/bash\nfor s in HUP TERM PIPE; do trap \"kill -$s \\$w\" $s; done\n" + fs::absolute(testing::program("fusion-worker")).string() +
                                 " --name far --pack 1 --slots 1 --simulate formula --simulate-epoch-s $(cat \"$HOME/epoch_s\") \"$@\" &\nw=$!\necho $w >\"$HOME/pid\"\n"
                                 "while kill -0 $w 2>/dev/null; do wait $w; done\nwait $w\necho $? >\"$HOME/status\"\n");
    ::chmod(worker.c_str(), 0755);
  }
  void TearDown() override {
    if (sshd && fs::exists(sshd->home() / "pid") && !fs::exists(sshd->home() / "status")) ::kill(std::stoi(read_text(sshd->home() / "pid")), SIGKILL);
    if (HasFailure() && started) std::fprintf(stderr, "%s\n", system.daemon().err().c_str());
  }
  void start_secure() {
    secrets.emplace(system, std::vector<std::string>{"127.0.0.1"});
    system.start(0, secrets->daemon_options());
    started = true;
    fs::copy_file(secrets->ca(), sshd->home() / "ca.pem");
    fs::copy_file(secrets->worker_token_file(), sshd->home() / "worker.token");
    fs::permissions(sshd->home() / "worker.token", fs::perms::owner_read | fs::perms::owner_write);
  }
  /// Of 2 epochs each.
  void submit(const std::string& epoch_s) {
    write_atomically(sshd->home() / "epoch_s", epoch_s);
    json study = System::small_study();
    study["strategy"] = {{"name", "random"}, {"trials", kTrials}};
    id = system.submit(study);
  }
  /// What the manual has behind `ssh OPTIONS gpu7 ` in quotes, on a line that begins so.
  std::string command_of(const std::string& begin) {
    const std::size_t line = manual.find("\n" + begin + "'");
    EXPECT_NE(line, std::string::npos) << begin;
    const std::size_t first = line + 1 + begin.size() + 1;
    std::string text = manual.substr(first, manual.find('\n', first) - first);
    EXPECT_EQ(text.back(), '\'');
    text.pop_back();
    return replaced(replaced(text, "https://login1:7878", system.url()), "--device cuda:0", "--device cpu");
  }
  std::unique_ptr<Process> ssh(const std::vector<std::string>& options, const std::string& command) {
    return std::make_unique<Process>(sshd->ssh(options, command), system.options());
  }
  template <typename Condition>
  void until(Condition condition) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(180);
    while (!condition()) {
      ASSERT_LT(std::chrono::steady_clock::now(), end) << system.ctl({"workers"}).out;
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
  }
  std::int64_t attempts(const std::string& condition) { return system.sql("select count(*) from attempts where " + condition)[0][0]; }
  /// Of the worker, once it has ended.
  std::string exit_status() {
    until([&] { return fs::exists(sshd->home() / "status") && fs::file_size(sshd->home() / "status") > 0; });
    return read_text(sshd->home() / "status");
  }
  /// So many are done, and the next one is in training.
  void until_trained(int trials) {
    system.wait_for_completed(id, trials);
    until([&] { return attempts("outcome is null") == 1; });
  }
  /// The worker gave back what it trained, and said why it left.
  void expect_it_left(const std::string& signal) {
    EXPECT_EQ(exit_status(), "0\n");
    until([&] { return attempts("outcome is null") == 0; });
    EXPECT_EQ(attempts("outcome not in ('completed', 'preempted')"), 0);
    EXPECT_THAT(system.daemon().err(), ::testing::ContainsRegex("worker leaving worker=far reason=\"?" + signal));
  }

  System system;
  std::optional<PrivateSshd> sshd;
  std::optional<Secrets> secrets;
  std::string manual;
  std::int64_t id = 0;
  bool started = false;
};

TEST_F(SshTest, AWorkerInTheBackgroundOutlivesItsSshAndLeavesWhenItIsKilled) {
  start_secure();
  submit("3");
  const Finished started_it = testing::run(sshd->ssh({}, command_of("ssh gpu7 ")), system.options());
  EXPECT_EQ(started_it.status, 0) << started_it.err;
  until_trained(1);
  const std::size_t kill = manual.find("`ssh gpu7 'kill $(cat worker.pid)'`");
  ASSERT_NE(kill, std::string::npos);
  EXPECT_EQ(testing::run(sshd->ssh({}, "kill $(cat worker.pid)"), system.options()).status, 0);
  expect_it_left("received SIGTERM");
  EXPECT_EQ(attempts("outcome = 'preempted'"), 1);
  EXPECT_THAT(read_text(sshd->home() / "worker.log"), HasSubstr("connected url=" + system.url()));
}

TEST_F(SshTest, AWorkerOfATerminalEndsWithItsSsh) {
  start_secure();
  submit("2");
  const auto session = ssh({"-tt"}, command_of("ssh -tt gpu7 "));
  until_trained(1);
  session->signal(SIGKILL);
  expect_it_left("received SIGHUP");
  EXPECT_EQ(attempts("outcome = 'preempted'"), 1);
}

TEST_F(SshTest, AWorkerWithoutATerminalLeavesWhenItsLogCannotBeWritten) {
  start_secure();
  submit("0.5");
  const auto session = ssh({}, command_of("ssh -tt gpu7 "));
  until_trained(2);
  session->signal(SIGKILL);
  expect_it_left("received SIGPIPE");
}

TEST_F(SshTest, AWorkerThroughATunnelNeedsNoTokenAndOutlivesTheTunnel) {
  system.start(0);
  started = true;
  submit("0.2");
  const std::string port = system.url().substr(system.url().rfind(':') + 1), far = std::to_string(testing::free_port());
  ASSERT_NE(manual.find("\nssh -N -R 7878:127.0.0.1:7878 gpu7\n"), std::string::npos);
  const std::string forward = far + ":127.0.0.1:" + port;
  auto tunnel = ssh({"-o", "ExitOnForwardFailure=yes", "-N", "-R", forward}, "");
  const auto worker = ssh({"-tt"}, "FUSION_URL=http://127.0.0.1:" + far + " exec fusion-worker --device cpu");
  system.wait_for_completed(id, 3);
  tunnel->signal(SIGKILL);
  tunnel->wait(std::chrono::seconds(30));
  until([&] { return system.ctl_json({"workers"}).at("workers").empty(); });
  // The port there is free once sshd knows that the connection is gone.
  until([&] {
    if (tunnel->running()) return !system.ctl_json({"workers"}).at("workers").empty();
    tunnel = ssh({"-o", "ExitOnForwardFailure=yes", "-N", "-R", forward}, "");
    return false;
  });
  EXPECT_EQ(system.wait_for(id), "completed");
  EXPECT_EQ(system.sql("select count(*), count(distinct told_index) from trials where state = 'completed'")[0], json::array({kTrials, kTrials}));
  EXPECT_EQ(system.ctl({"shutdown", "--workers"}).status, 0);
  EXPECT_EQ(exit_status(), "0\n");
  EXPECT_EQ(system.daemon().wait(std::chrono::seconds(60)), 0);
}

}  // namespace
}  // namespace fusion
