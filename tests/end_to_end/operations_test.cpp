// What somebody who keeps a daemon running relies on: signals, probes, metrics. A real fusiond, and a worker of the test.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <future>
#include <regex>
#include <set>
#include <thread>

#include "base/files.h"
#include "tests/end_to_end/system.h"
#include "tests/workers/dispatch/harness.h"

namespace fusion {
namespace {

using nlohmann::json;
using protocol::Pack;
using testing::ScriptedWorker;
using testing::System;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;

struct Answer {
  unsigned status = 0;
  std::string type, body;
};

class OperationsTest : public ::testing::Test {
 protected:
  std::uint16_t port() {
    const std::string& url = system.url();
    return static_cast<std::uint16_t>(std::stoi(url.substr(url.rfind(':') + 1)));
  }
  Answer get(const std::string& target, const std::string& token = "") {
    asio::io_context io;
    tcp::socket socket(io);
    socket.connect(tcp::endpoint(asio::ip::make_address("127.0.0.1"), port()));
    http::request<http::empty_body> request(http::verb::get, target, 11);
    request.set(http::field::host, "127.0.0.1");
    if (!token.empty()) request.set(http::field::authorization, "Bearer " + token);
    request.keep_alive(false);
    http::write(socket, request);
    beast::flat_buffer buffer;
    http::response<http::string_body> response;
    http::read(socket, buffer, response);
    return {response.result_int(), std::string(response[http::field::content_type]), response.body()};
  }
  std::filesystem::path tokens() const { return system.folder() / "tokens.json"; }
  std::string issue_token(const std::string& role) {
    const testing::Finished issued = system.ctl({"tokens", "add", "--file", tokens().string(), "--role", role, "--name", role});
    EXPECT_EQ(issued.status, 0) << issued.err;
    return issued.out.substr(0, issued.out.find('\n'));
  }
  /// A random study, all of whose trials stand in the database.
  void submit(int trials) {
    json study = System::small_study();
    study["strategy"] = {{"name", "random"}, {"trials", trials}};
    system.submit(study);
    wait([&] { return system.sql("select count(*) from trials")[0][0] == trials; });
  }
  template <typename Condition>
  void wait(Condition condition) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(120);
    while (!condition()) {
      ASSERT_LT(std::chrono::steady_clock::now(), end) << system.daemon().err();
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
  }
  void wait_for_log(const std::string& text) {
    wait([&] { return system.daemon().err().find(text) != std::string::npos; });
  }
  /// The exit status of a daemon that was told to end.
  int ended() { return system.daemon().wait(std::chrono::seconds(120)); }
  json state_of(TrialId trial) { return system.sql("select state from trials where id = " + to_string(trial))[0][0]; }

  System system;
};

// ---- SIGTERM

TEST_F(OperationsTest, SigtermTakesInResultsAndGivesOutNothingMore) {
  system.start(0, {{"--drain", "600"}});
  submit(3);
  ScriptedWorker worker(port());
  worker.join("w", 1);
  const Pack pack = worker.expect<Pack>();
  EXPECT_EQ(get("/readyz").status, 200u);
  system.daemon().signal(SIGTERM);
  wait_for_log("stopping reason=\"SIGTERM\"");
  const Answer ready = get("/readyz");
  EXPECT_EQ(ready.status, 503u) << "whoever sends it work sends it elsewhere";
  EXPECT_THAT(ready.body, HasSubstr("the daemon stops"));
  EXPECT_EQ(get("/healthz").status, 200u);
  EXPECT_THAT(get("/metrics").body, HasSubstr("\nfusion_ready 0\n"));

  EXPECT_TRUE(worker.report(testing::held(pack.trials[0]), 0.75).accepted) << "acknowledged, and no pack follows";
  EXPECT_FALSE(worker.hear().has_value()) << "the connection ends";
  EXPECT_EQ(ended(), 0) << system.daemon().err();
  EXPECT_EQ(state_of(pack.trials[0].trial), "completed");
  EXPECT_EQ(system.sql("select count(*) from trials where state = 'queued'")[0][0], 2);
}

TEST_F(OperationsTest, ResultsAreAwaitedForASetTimeOnly) {
  system.start(0, {{"--drain", "0.2"}});
  submit(1);
  ScriptedWorker worker(port());
  worker.join("w", 1);
  const Pack pack = worker.expect<Pack>();
  system.daemon().signal(SIGTERM);
  EXPECT_EQ(ended(), 0);
  EXPECT_THAT(system.daemon().err(), HasSubstr("results are not waited for any longer"));
  system.start(0);
  ScriptedWorker next(port());
  next.join("next", 1);
  const Pack again = next.expect<Pack>();
  EXPECT_EQ(again.trials[0].trial, pack.trials[0].trial) << "queued again on the next start";
  EXPECT_EQ(again.trials[0].attempt, 2);
  EXPECT_TRUE(next.report(testing::held(again.trials[0]), 0.5).accepted);
}

TEST_F(OperationsTest, ASecondSigtermEndsItAtOnceAndNothingAcknowledgedIsLost) {
  system.start(0, {{"--drain", "600"}});
  submit(2);
  ScriptedWorker worker(port());
  worker.join("w", 1);
  const Pack pack = worker.expect<Pack>();
  EXPECT_TRUE(worker.report(testing::held(pack.trials[0]), 0.75).accepted);
  worker.expect<Pack>();
  system.daemon().signal(SIGTERM);
  wait_for_log("stopping");
  std::this_thread::sleep_for(std::chrono::milliseconds(300));  // what comes sooner counts as the first
  EXPECT_TRUE(system.daemon().running()) << "it waits for the second result";
  system.daemon().signal(SIGTERM);
  EXPECT_EQ(ended(), 128 + SIGTERM);
  EXPECT_EQ(state_of(pack.trials[0].trial), "completed");
}

TEST_F(OperationsTest, ItStopsAtOnceWhereNothingIsHeld) {
  system.start(0, {{"--drain", "600"}});
  submit(2);
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(system.stop(), 0);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(100)) << "there was nothing to wait for";
}

// ---- SIGHUP, the service manager

TEST_F(OperationsTest, SighupOpensTheLogAnew) {
  const auto log = system.folder() / "daemon.log", moved = system.folder() / "daemon.log.1";
  system.start(0, {{"--log-file", log.string()}});
  std::filesystem::rename(log, moved);
  system.daemon().signal(SIGHUP);
  wait([&] { return std::filesystem::exists(log) && read_text(log).find("reloaded") != std::string::npos; });
  EXPECT_THAT(read_text(moved), HasSubstr("ready listen="));
  EXPECT_EQ(system.stop(), 0);
  EXPECT_THAT(read_text(log), HasSubstr("stopped max_rss_mb="));
  EXPECT_THAT(read_text(moved), Not(HasSubstr("stopped max_rss_mb=")));
}

TEST_F(OperationsTest, SighupReadsTheTokensAnew) {
  issue_token("read");
  system.start(0, {{"--loopback", "token"}, {"--tokens", tokens().string()}});
  system.daemon().signal(SIGHUP);
  wait_for_log("tokens read again tokens=1");
  write_atomically(tokens(), "{");
  std::filesystem::permissions(tokens(), std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
  system.daemon().signal(SIGHUP);
  wait_for_log("tokens not read again, those known before stay valid");
  EXPECT_EQ(get("/healthz").status, 200u) << "it goes on";
  EXPECT_EQ(system.stop(), 0);
}

/// Where a service manager hears what its services say.
class NotifySocket {
 public:
  explicit NotifySocket(const std::string& path) : socket_(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, path.c_str(), sizeof(address.sun_path) - 1);
    EXPECT_EQ(::bind(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0) << path;
    const timeval limit{60, 0};
    ::setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    ::setenv("NOTIFY_SOCKET", path.c_str(), 1);
  }
  ~NotifySocket() {
    ::unsetenv("NOTIFY_SOCKET");
    ::close(socket_);
  }
  std::string hear() {
    char text[1000];
    const ssize_t got = ::recv(socket_, text, sizeof(text), 0);
    return got < 0 ? "nothing for a minute" : std::string(text, static_cast<std::size_t>(got));
  }

 private:
  int socket_;
};

TEST_F(OperationsTest, ItTellsTheServiceManagerHowItStands) {
  NotifySocket manager((system.folder() / "notify").string());
  system.start(0);
  EXPECT_THAT(manager.hear(), HasSubstr("READY=1"));
  system.daemon().signal(SIGHUP);
  EXPECT_THAT(manager.hear(), HasSubstr("RELOADING=1\nMONOTONIC_USEC="));
  EXPECT_EQ(manager.hear(), "READY=1");
  system.daemon().signal(SIGTERM);
  EXPECT_THAT(manager.hear(), HasSubstr("STOPPING=1"));
  EXPECT_EQ(ended(), 0);
}

// ---- probes and metrics

TEST_F(OperationsTest, ProbesAnswer) {
  system.start(0);
  const Answer healthy = get("/healthz"), ready = get("/readyz");
  EXPECT_EQ(healthy.status, 200u);
  EXPECT_EQ(json::parse(healthy.body), json({{"status", "ok"}}));
  EXPECT_EQ(ready.status, 200u);
  EXPECT_EQ(json::parse(ready.body), json({{"status", "ready"}}));
  EXPECT_EQ(get("/healthz/deeper").status, 404u);
  EXPECT_EQ(get("/readyz?verbose").status, 422u);
  system.stop();
}

TEST_F(OperationsTest, ProbesNeedNoTokenAndMetricsOneThatMayRead) {
  const std::string reader = issue_token("read"), worker = issue_token("worker");
  system.start(0, {{"--loopback", "token"}, {"--tokens", tokens().string()}});
  EXPECT_EQ(get("/healthz").status, 200u);
  EXPECT_EQ(get("/readyz").status, 200u);
  EXPECT_EQ(get("/metrics").status, 401u);
  EXPECT_EQ(get("/metrics", worker).status, 403u);
  const Answer metrics = get("/metrics", reader);
  EXPECT_EQ(metrics.status, 200u);
  EXPECT_THAT(metrics.body, HasSubstr("\nfusion_requests_refused_total{reason=\"unauthorized\"} 1\n"));
  EXPECT_THAT(metrics.body, HasSubstr("\nfusion_requests_refused_total{reason=\"forbidden\"} 1\n"));
  EXPECT_EQ(system.stop(), 0);
}

TEST_F(OperationsTest, ManyWhoAskAtOnceWhetherItIsReadyAreAllAnswered) {
  system.start(0);
  std::vector<std::future<Answer>> asked;
  for (int i = 0; i < 20; ++i) asked.push_back(std::async(std::launch::async, [this] { return get("/readyz"); }));
  for (std::future<Answer>& each : asked) EXPECT_EQ(each.get().status, 200u);
  EXPECT_EQ(system.stop(), 0);
}

std::set<std::string> matches(const std::string& text, const std::regex& pattern) {
  std::set<std::string> found;
  for (std::sregex_iterator at(text.begin(), text.end(), pattern), end; at != end; ++at) found.insert((*at)[1]);
  return found;
}

TEST_F(OperationsTest, EveryMetricIsDocumentedAndEveryDocumentedOneIsThere) {
  system.start(0);
  const std::string manual = read_text(std::filesystem::path(std::getenv("FUSION_SOURCE_DIR")) / "docs/operations.md");
  const Answer metrics = get("/metrics");
  EXPECT_EQ(metrics.type, "text/plain; version=0.0.4; charset=utf-8");
  const std::set<std::string> told = matches(metrics.body, std::regex("# TYPE ([a-z_]+ [a-z]+)\n"));
  std::set<std::string> documented;
  for (const std::string& row : matches(manual, std::regex("\n\\| `([a-z_]+` \\| (?:counter|gauge|histogram)) \\|"))) {
    documented.insert(std::regex_replace(row, std::regex("` \\|"), ""));
  }
  EXPECT_EQ(told, documented);
  EXPECT_GT(told.size(), 20u);
  system.stop();
}

/// The value of a sample, -1 where there is none.
double value(const std::string& metrics, const std::string& sample) {
  const std::size_t at = metrics.find("\n" + sample + " ");
  return at == std::string::npos ? -1 : std::stod(metrics.substr(at + sample.size() + 2));
}

TEST_F(OperationsTest, MetricsCountWhatHappened) {
  system.start(0);
  submit(4);
  ScriptedWorker worker(port());
  worker.join("w", 1);
  const Pack pack = worker.expect<Pack>();
  ASSERT_THAT(pack.trials, SizeIs(1));
  worker.say(protocol::Epoch{pack.trials[0].trial, 1, {1, 0.5, 0.25, 1e-3, 0.1}});
  EXPECT_TRUE(worker.expect<protocol::Ack>().accepted);
  EXPECT_TRUE(worker.report(testing::held(pack.trials[0]), 0.5).accepted);
  worker.expect<Pack>();
  EXPECT_FALSE(worker.report({TrialId{999}, 1}, 0.5).accepted);
  get("/api/v1/studies/1/trials");
  get("/api/v1/studies/999");
  get("/no/such/address");
  const std::string metrics = get("/metrics").body;
  for (const auto& [sample, expected] : std::map<std::string, double>{
           {"fusion_studies", 1},
           {"fusion_attempts_ended_total{outcome=\"completed\"}", 1},
           {"fusion_attempts_ended_total{outcome=\"lost\"}", 0},
           {"fusion_trials_ended_total{state=\"completed\"}", 1},
           {"fusion_epochs_total", 1},
           {"fusion_results_dropped_total", 1},
           {"fusion_workers", 1},
           {"fusion_worker_slots", 1},
           {"fusion_worker_sessions", 1},
           {"fusion_requests_refused_total{reason=\"unauthorized\"}", 0},
           {"fusion_store_failures_total", 0},
           {"fusion_reader_queue_length", 0},
           {"fusion_http_requests_total{route=\"POST /api/v1/studies\",code=\"201\"}", 1},
           {"fusion_http_requests_total{route=\"GET /api/v1/studies/:id/trials\",code=\"200\"}", 1},
           {"fusion_http_requests_total{route=\"GET /api/v1/studies/:id\",code=\"404\"}", 1},
           {"fusion_http_requests_total{route=\"GET /api/v1/worker\",code=\"101\"}", 1},
           {"fusion_http_requests_total{route=\"other\",code=\"404\"}", 1},
           {"fusion_ready", 1}}) {
    EXPECT_EQ(value(metrics, sample), expected) << sample << "\n" << metrics;
  }
  EXPECT_EQ(value(metrics, "fusion_trials{state=\"queued\"}") + value(metrics, "fusion_trials{state=\"leased\"}"), 3);
  EXPECT_EQ(value(metrics, "fusion_study_queue_length{study=\"1\"}"), value(metrics, "fusion_trials{state=\"queued\"}"));
  EXPECT_GE(value(metrics, "fusion_dispatch_seconds_count"), 1);
  EXPECT_GE(value(metrics, "fusion_store_commit_seconds_count"), 3);
  EXPECT_GE(value(metrics, "fusion_store_wait_seconds_sum"), value(metrics, "fusion_store_commit_seconds_sum") / 2);
  EXPECT_GE(value(metrics, "fusion_reader_seconds_count"), 2);
  EXPECT_GT(value(metrics, "process_resident_memory_bytes"), 1e6);
  EXPECT_GT(value(metrics, "process_cpu_seconds_total"), 0);
  EXPECT_GT(value(metrics, "process_open_fds"), 3);
  EXPECT_GT(value(metrics, "process_start_time_seconds"), 1.6e9);
  EXPECT_GT(value(metrics, "fusion_database_bytes{file=\"database\"}") + value(metrics, "fusion_database_bytes{file=\"wal\"}"), 4096);
  system.stop();
}

// ---- exit status

TEST_F(OperationsTest, EveryProgramSaysWhatItsExitStatusMeans) {
  for (const char* name : {"fusiond", "fusionctl", "fusion-worker", "fusion-data"}) {
    if (!std::filesystem::exists(testing::program(name))) continue;  // a build without LibTorch has only the first two
    const testing::Finished help = testing::run({testing::program(name), "--help"}, system.options());
    EXPECT_EQ(help.status, 0) << name;
    EXPECT_THAT(help.out, HasSubstr("Exit status: 0 ")) << name;
    EXPECT_EQ(testing::run({testing::program(name), "--no-such-option"}, system.options()).status, 2) << name;
  }
  const testing::Finished wrong = testing::run({testing::program("fusiond"), "--log-file", (system.folder() / "absent/").string()}, system.options());
  EXPECT_EQ(wrong.status, 2);
  EXPECT_THAT(wrong.err, HasSubstr("it cannot be opened for writing"));
}

}  // namespace
}  // namespace fusion
