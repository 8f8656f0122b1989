#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <cstdlib>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/digest.h"
#include "base/files.h"
#include "space/manifest_files.h"
#include "store/store_reader.h"
#include "tests/end_to_end/bad_link.h"
#include "tests/end_to_end/small_features.h"
#include "tests/end_to_end/system.h"

namespace fusion {
namespace {

using nlohmann::json;
using testing::Finished;
using testing::Process;
using testing::TwoHosts;
using std::chrono::milliseconds;
using std::chrono::seconds;
namespace fs = std::filesystem;

/// A daemon on host 0, with its data in there/; workers on host 1, with here/ only. They speak TLS, with tokens.
class TwoHostsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const std::string missing = TwoHosts::missing(); !missing.empty()) GTEST_SKIP() << missing;
    for (const char* name : {"there", "here"}) fs::create_directories(folder_ / name);
    manifest_ = testing::write_small_features(folder_ / "there/features");
    hosts_ = std::make_unique<TwoHosts>(options("here"));
    hosts_->hide(1, folder_ / "there");
    make_secrets();
    start_daemon();
  }
  void TearDown() override {
    if (!hosts_) return;
    worker_.reset();
    if (daemon_) {
      daemon_->signal(SIGTERM);
      EXPECT_EQ(daemon_->wait(seconds(60)), 0) << daemon_->err();
    }
    std::printf("carried=%llu lost=%llu\n", static_cast<unsigned long long>(hosts_->carried()), static_cast<unsigned long long>(hosts_->lost()));
  }

  Process::Options options(const std::string& name) const {
    return {folder_ / name, {{"OPENBLAS_NUM_THREADS", "1"}, {"OMP_NUM_THREADS", "1"}}};
  }
  std::string there(const std::string& name) const { return (folder_ / "there" / name).string(); }
  std::string here(const std::string& name) const { return (folder_ / "here" / name).string(); }
  std::string ctl(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), testing::program("fusionctl"));
    const Finished finished = testing::run(hosts_->on(0, arguments), options("there"));
    EXPECT_EQ(finished.status, 0) << finished.err;
    return finished.out;
  }
  void write_secret(const fs::path& file, const std::string& text) {
    write_atomically(file, text);
    fs::permissions(file, fs::perms::owner_read | fs::perms::owner_write);
  }
  void make_secrets() {
    ctl({"certs", "--out", there("tls"), "--host", TwoHosts::kAddress[0]});
    write_secret(there("submit.token"), ctl({"tokens", "add", "--file", there("tokens.json"), "--role", "submit", "--name", "s"}));
    write_secret(here("worker.token"), ctl({"tokens", "add", "--file", there("tokens.json"), "--role", "worker", "--name", "w"}));
    fs::copy_file(there("tls/ca.pem"), here("ca.pem"));
  }
  void start_daemon() {
    const std::string certificate = there("tls/") + TwoHosts::kAddress[0];
    daemon_ = std::make_unique<Process>(
        hosts_->on(0, {testing::program("fusiond"), "--listen", std::string(TwoHosts::kAddress[0]) + ":0", "--port-file", there("port"), "--db",
                       there("fusion.db"), "--data-root", there(""), "--lease-s", "6", "--tls-certificate", certificate + ".pem", "--tls-key",
                       certificate + "-key.pem", "--tokens", there("tokens.json")}),
        options("there"));
    for (const auto end = std::chrono::steady_clock::now() + seconds(60); !fs::exists(there("port"));) {
      ASSERT_TRUE(daemon_->running()) << daemon_->err();
      ASSERT_LT(std::chrono::steady_clock::now(), end) << daemon_->err();
      std::this_thread::sleep_for(milliseconds(20));
    }
    std::string port = read_text(there("port"));
    port.pop_back();
    url_ = "https://" + std::string(TwoHosts::kAddress[0]) + ":" + port;
  }
  void start_worker(const std::string& name, const std::string& cache = "cache", int host = 1) {
    worker_ = std::make_unique<Process>(
        hosts_->on(host, {testing::program("fusion-worker"), "--connect", url_, "--ca", here("ca.pem"), "--token-file", here("worker.token"), "--cache",
                          here(cache), "--name", name, "--pack", "2"}),
        options("here"));
  }
  std::string ask(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"--url", url_, "--ca", there("tls/ca.pem"), "--token-file", there("submit.token")});
    return ctl(std::move(arguments));
  }
  void submit(const json& changes = json::object()) {
    json study = testing::System::small_study();
    study["dataset"] = there("features/features.json");
    study.update(changes);
    write_atomically(there("study.json"), study.dump());
    ask({"submit", there("study.json")});
  }
  /// Of trial 1, some hundred epochs. Returns its folder on the daemon's host.
  fs::path retrain() {
    ask({"retrain", "--trial", "1", "--finetune", "none", "--width", "32", "--epochs", "300"});
    return sql("select folder from retrainings order by id desc limit 1")[0][0].get<std::string>();
  }
  /// The newest checkpoint there; 0: none.
  static int checkpoint_in(const fs::path& folder) {
    int newest = 0;
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(folder, error)) {
      int epoch = 0;
      if (std::sscanf(entry.path().filename().c_str(), "checkpoint-%d.safetensors", &epoch) == 1) newest = std::max(newest, epoch);
    }
    return newest;
  }
  template <typename Condition>
  void wait(Condition condition) {
    for (const auto end = std::chrono::steady_clock::now() + seconds(500); std::chrono::steady_clock::now() < end;) {
      if (condition()) return;
      std::this_thread::sleep_for(milliseconds(20));
    }
    FAIL() << "not in time; the worker said:\n" << worker_->err() << "\nthe daemon said:\n" << daemon_->err();
  }
  json sql(const std::string& statement) { return StoreReader::open(there("fusion.db")).query(statement, 100'000, seconds(10))["rows"]; }
  void wait_for_completed(std::int64_t trials) {
    for (const auto end = std::chrono::steady_clock::now() + seconds(500); std::chrono::steady_clock::now() < end;) {
      if (sql("select count(*) from trials where state = 'completed'")[0][0].get<std::int64_t>() >= trials) return;
      std::this_thread::sleep_for(milliseconds(50));
    }
    FAIL() << "not so many trials in time; the worker said:\n" << worker_->err() << "\nthe daemon said:\n" << daemon_->err();
  }
  void expect_each_of_27_scored_once() {
    wait_for_completed(27);
    EXPECT_EQ(sql("select count(*) from trials"), json::array({json::array({27})}));
    EXPECT_EQ(sql("select count(distinct told_index), min(told_index), max(told_index) from trials")[0], json::array({27, 0, 26}));
    EXPECT_EQ(sql("select count(*) from attempts where outcome = 'completed'")[0][0], 27);
    EXPECT_EQ(sql("select count(*) from trials where failures > 0")[0][0], 0);
  }
  /// Every file of the features, and nothing else.
  void expect_features_in_cache() {
    const json features = parse_json_file(manifest_);
    EXPECT_EQ(read_text(here("cache/blobs/" + features.at("digest").get<std::string>())), read_text(manifest_));
    std::size_t blobs = 0;
    for (const auto& entry : fs::directory_iterator(here("cache/blobs"))) blobs += entry.is_regular_file() ? 1 : 0;
    EXPECT_EQ(blobs, feature_files(features).size() + 1);
    EXPECT_FALSE(testing::run(hosts_->on(1, {"/usr/bin/test", "-e", manifest_.string()}), options("here")).status == 0) << "it is no shared folder";
  }

  testing::TemporaryFolder folder_;
  fs::path manifest_;
  std::unique_ptr<TwoHosts> hosts_;
  std::unique_ptr<Process> daemon_, worker_;
  std::string url_;
};

TEST_F(TwoHostsTest, AStudyIsTrainedOnAHostThatSharesNoFolder) {
  submit();
  start_worker("far");
  expect_each_of_27_scored_once();
  expect_features_in_cache();
}

TEST_F(TwoHostsTest, FivePercentLossAndTwoHundredMillisecondsCostNothingButTime) {
  hosts_->set_weather(milliseconds(200), 0.05);
  submit();
  const auto begun = std::chrono::steady_clock::now();
  start_worker("far");
  expect_each_of_27_scored_once();
  expect_features_in_cache();
  EXPECT_GT(hosts_->lost(), 0u);
  std::printf("study of 27 trials under 5 %% loss and 200 ms each way: %.1f s\n",
              std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count());
}

TEST_F(TwoHostsTest, APartitionAmidTheStudyLosesNothing) {
  const char* wanted = std::getenv("FUSION_PARTITION_S");
  const seconds length(wanted != nullptr ? std::atoi(wanted) : 12);  // longer than the lease
  submit();
  start_worker("far");
  wait_for_completed(5);
  hosts_->set_partition(true);
  std::this_thread::sleep_for(length);
  hosts_->set_partition(false);
  const auto over = std::chrono::steady_clock::now();
  expect_each_of_27_scored_once();
  std::printf("partition of %lld s: the rest took %.1f s, attempts lost: %s\n", static_cast<long long>(length.count()),
              std::chrono::duration<double>(std::chrono::steady_clock::now() - over).count(),
              sql("select count(*) from attempts where outcome = 'lost'")[0][0].dump().c_str());
}

TEST_F(TwoHostsTest, AWorkerKilledAmidItsFetchOnABadNetworkIsFollowedByOneThatGoesOn) {
  hosts_->set_weather(milliseconds(50), 0.02);
  submit();
  start_worker("first");
  const auto anything_there = [this] {
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(here("cache/blobs"), error)) {
      if (entry.path().extension() == ".part" && entry.file_size(error) > 0) return true;
    }
    return false;
  };
  for (int i = 0; i < 30'000 && !anything_there() && sql("select count(*) from epochs")[0][0] == 0; ++i) std::this_thread::sleep_for(milliseconds(2));
  worker_->signal(SIGKILL);
  worker_->wait(seconds(30));
  start_worker("second");
  expect_each_of_27_scored_once();
  expect_features_in_cache();
}

TEST_F(TwoHostsTest, ARetrainingGoesOnOnAnotherHostFromWhatTheKilledOneSent) {
  hosts_->set_weather(milliseconds(10), 0.01);
  submit({{"strategy", {{"name", "random"}, {"trials", 1}}}});
  start_worker("first");
  wait_for_completed(1);
  const fs::path folder = retrain();
  wait([&] { return checkpoint_in(folder) >= 3; });
  worker_->signal(SIGKILL);
  worker_->wait(seconds(30));
  const int sent = checkpoint_in(folder);
  ASSERT_LT(sent, 300) << "it was to be killed amid it";
  start_worker("second", "cache2");
  wait([this] { return sql("select state from retrainings")[0][0] == "completed"; });
  EXPECT_EQ(sql("select attempt, outcome from retraining_attempts order by attempt"), (json::array({{1, "lost"}, {2, "completed"}})));
  const json begun = sql("select min(epoch) from retraining_epochs where attempt = 2")[0][0];
  EXPECT_GE(begun, sent);
  EXPECT_EQ(sql("select count(distinct epoch) from retraining_epochs")[0][0], 301);
  std::size_t checkpoints = 0;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    checkpoints += name.starts_with("checkpoint-") ? 1 : 0;
    EXPECT_TRUE(name == ".mark" || !name.starts_with(".")) << name;
  }
  EXPECT_LE(checkpoints, 2u);
  EXPECT_EQ(testing::run(hosts_->on(1, {"/usr/bin/test", "-e", folder.string()}), options("here")).status, 1) << "it is no shared folder";
  std::printf("killed with checkpoint %d of 301 sent; the next worker told of epoch %s first\n", sent, begun.dump().c_str());
  ask({"export", "--retraining", "1", "--format", "safetensors", "-o", there("far.safetensors")});
  EXPECT_EQ(sql("select sha256 from artifacts where name = 'model.safetensors'")[0][0], sha256_of_file(there("far.safetensors")));

  worker_->signal(SIGTERM);
  EXPECT_EQ(worker_->wait(seconds(60)), 0) << worker_->err();
  hosts_->set_weather(milliseconds(0), 0);
  start_worker("near", "cache3", 0);
  retrain();
  wait([this] { return sql("select state from retrainings where id = 2")[0][0] == "completed"; });
  EXPECT_FALSE(fs::exists(here("cache3"))) << "it shares the folder";
  ask({"export", "--retraining", "2", "--format", "safetensors", "-o", there("near.safetensors")});
  EXPECT_EQ(sha256_of_file(there("near.safetensors")), sha256_of_file(there("far.safetensors"))) << "as if nothing had happened";
}

}  // namespace
}  // namespace fusion
