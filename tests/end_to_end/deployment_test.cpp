// The manifests of docs/cluster.md, "Kubernetes", as they stand there: read by a YAML parser, checked in themselves, and the container's command run as
// process 1, with what the manifests mount and set, against a real daemon.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <optional>
#include <thread>

#include "base/files.h"
#include "tests/end_to_end/secrets.h"

namespace fusion {
namespace {

using nlohmann::json;
using testing::Finished;
using testing::Process;
using testing::Secrets;
using testing::System;
using ::testing::HasSubstr;
using ::testing::SizeIs;
namespace fs = std::filesystem;

constexpr const char* kPython = "/usr/bin/python3";
constexpr const char* kReadYaml = "import sys, json, yaml; print(json.dumps(list(yaml.safe_load_all(sys.argv[1]))))";
/// Prints the status of a GET as the kubelet makes it: it looks at no certificate, and shows no token.
constexpr const char* kProbe =
    "import ssl, sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], context=ssl._create_unverified_context()).status)";

class DeploymentTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (testing::run({kPython, "-c", "import yaml"}, system.options()).status != 0) GTEST_SKIP() << "python3-yaml is not there (apt-get install python3-yaml)";
    const std::string manual = read_text(fs::path(std::getenv("FUSION_SOURCE_DIR")) / "docs/cluster.md");
    const std::size_t section = manual.find("\n## Kubernetes\n");
    const std::vector<std::string> blocks = yaml_blocks(manual.substr(section, manual.find("\n## ", section + 1) - section));
    ASSERT_THAT(blocks, SizeIs(2));
    const json manifests = parsed(blocks[0]);
    ASSERT_THAT(manifests, SizeIs(2));
    secret = manifests[0];
    deployment = manifests[1];
    pod = deployment.at("spec").at("template").at("spec");
    ASSERT_THAT(pod.at("containers"), SizeIs(1));
    container = pod.at("containers")[0];
    probes = parsed(blocks[1])[0];
  }
  static std::vector<std::string> yaml_blocks(const std::string& text) {
    std::vector<std::string> blocks;
    constexpr std::string_view kBegin = "\n```yaml\n", kEnd = "\n```\n";
    for (std::size_t at = text.find(kBegin); at != std::string::npos; at = text.find(kBegin, at)) {
      at += kBegin.size();
      blocks.push_back(text.substr(at, text.find(kEnd, at) - at));
    }
    return blocks;
  }
  json parsed(const std::string& yaml) {
    const Finished read = testing::run({kPython, "-c", kReadYaml, yaml}, system.options());
    EXPECT_EQ(read.status, 0) << read.err;
    return json::parse(read.out);
  }
  std::string environment(const std::string& name) const {
    for (const json& one : container.at("env")) {
      if (one.at("name") == name) return one.at("value");
    }
    return "";
  }
  /// Behind this option of the command.
  double number_behind(const std::string& option) const {
    const json& command = container.at("command");
    for (std::size_t i = 0; i + 1 < command.size(); ++i) {
      if (command[i] == option) return std::stod(command[i + 1].get<std::string>());
    }
    return -1;
  }
  double pre_stop_s() const {
    const std::string line = container.at("lifecycle").at("preStop").at("exec").at("command").back();
    return std::stod(line.substr(line.rfind("sleep ") + 6));
  }

  System system;
  json secret, deployment, pod, container, probes;
};

TEST_F(DeploymentTest, NamesVolumesAndTimesFitTogether) {
  EXPECT_EQ(secret.at("kind"), "Secret");
  EXPECT_EQ(deployment.at("kind"), "Deployment");
  EXPECT_EQ(deployment.at("spec").at("selector").at("matchLabels"), deployment.at("spec").at("template").at("metadata").at("labels"));
  std::map<std::string, json> volumes, mounts;
  for (const json& volume : pod.at("volumes")) volumes[volume.at("name")] = volume;
  for (const json& mount : container.at("volumeMounts")) mounts[mount.at("name")] = mount;
  EXPECT_EQ(volumes.size(), mounts.size());
  for (const auto& [name, mount] : mounts) EXPECT_TRUE(volumes.contains(name)) << name;
  EXPECT_EQ(volumes.at("token").at("secret").at("secretName"), secret.at("metadata").at("name"));
  EXPECT_EQ(volumes.at("token").at("secret").at("defaultMode"), 0400) << "the worker refuses a token that others may read";
  for (const char* name : {"FUSION_TOKEN_FILE", "FUSION_CA"}) {
    const fs::path file = environment(name);
    EXPECT_EQ(file.parent_path(), mounts.at("token").at("mountPath").get<std::string>()) << name;
    EXPECT_TRUE(secret.at("stringData").contains(file.filename().string())) << name;
  }
  // Told to leave, the worker has its grace, and up to 10 s for acknowledgements; then Kubernetes' own SIGTERM, then the end.
  EXPECT_LT(number_behind("--grace-s") + 10, pre_stop_s());
  EXPECT_LT(pre_stop_s(), pod.at("terminationGracePeriodSeconds").get<double>());
}

TEST_F(DeploymentTest, TheWorkerKnowsEveryVariable) {
  const Finished help = testing::run({testing::program("fusion-worker"), "--help"}, system.options());
  for (const json& one : container.at("env")) EXPECT_THAT(help.out, HasSubstr(one.at("name").get<std::string>()));
}

/// A pod made of namespaces: the container's command is process 1, its Secret lies where it is mounted.
class PodTest : public DeploymentTest {
 protected:
  void SetUp() override {
    DeploymentTest::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    const Finished allowed = testing::run(in_pod({"/bin/true"}), system.options());
    if (allowed.status != 0) GTEST_SKIP() << "a pod's namespaces are not permitted here: " << allowed.err;
    const std::string url = environment("FUSION_URL");
    host = url.substr(url.find("//") + 2, url.rfind(':') - url.find("//") - 2);
    secrets.emplace(system, std::vector<std::string>{"127.0.0.1", host});
    system.start(0, secrets->daemon_options());
    started = true;
    fill_secret();
  }
  void TearDown() override {
    if (HasFailure() && started) std::fprintf(stderr, "%s\n", system.daemon().err().c_str());
  }
  /// The Secret's files as the kubelet lays them out, links to a folder that it can change at once; and the cluster's names.
  void fill_secret() {
    const std::map<std::string, std::string> values{{"token", read_text(secrets->worker_token_file())}, {"ca.pem", read_text(secrets->ca())}};
    const fs::path folder = system.folder() / "secret";
    for (const auto& [name, ignored] : secret.at("stringData").items()) {
      write_atomically(folder / "..data" / name, values.at(name));
      fs::permissions(folder / "..data" / name, fs::perms::owner_read);
      fs::create_symlink(fs::path("..data") / name, folder / name);
    }
    write_atomically(system.folder() / "hosts", "127.0.0.1 localhost\n127.0.0.1 " + host + "\n");
  }
  std::vector<std::string> in_pod(const std::vector<std::string>& command) const {
    const std::string mount = "/run/secrets/fusion";
    std::vector<std::string> line{"/usr/bin/unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child", "--", "/bin/sh", "-c",
                                  "mount -t tmpfs none /run && mkdir -p " + mount + " && { [ ! -d \"$0/secret\" ] || { mount --bind \"$0/secret\" " + mount +
                                      " && mount --bind \"$0/hosts\" /etc/hosts; }; } && exec \"$@\"",
                                  system.folder().path().string()};
    line.insert(line.end(), command.begin(), command.end());
    return line;
  }
  /// The container, with the device that is here, on a port that is free, simulating.
  std::unique_ptr<Process> run_container(const std::string& epoch_s) {
    std::vector<std::string> command = container.at("command");
    EXPECT_EQ(command.at(0), "fusion-worker");
    command[0] = testing::program("fusion-worker");
    for (std::string& word : command) word = word == "cuda:0" ? "cpu" : word;
    command.insert(command.end(), {"--name", "pod", "--pack", "1", "--slots", "2", "--simulate", "formula", "--simulate-epoch-s", epoch_s});
    Process::Options options{system.folder().path(), {}};
    for (const json& one : container.at("env")) options.environment[one.at("name")] = one.at("value");
    std::string& url = options.environment.at("FUSION_URL");
    url = url.substr(0, url.rfind(':')) + system.url().substr(system.url().rfind(':'));
    return std::make_unique<Process>(in_pod(command), options);
  }
  void submit() {
    json study = System::small_study();
    study["strategy"] = {{"name", "random"}, {"trials", 20}};
    id = system.submit(study);
  }
  template <typename Condition>
  void until(Condition condition) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(180);
    while (!condition()) {
      ASSERT_LT(std::chrono::steady_clock::now(), end) << system.ctl({"workers"}).out;
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  }
  std::int64_t attempts(const std::string& condition) { return system.sql("select count(*) from attempts where " + condition)[0][0]; }
  /// preStop, run in the container as the kubelet does.
  std::unique_ptr<Process> run_pre_stop(const Process& worker) {
    const std::vector<pid_t> children = worker.children();
    EXPECT_THAT(children, SizeIs(1));
    std::vector<std::string> command{"/usr/bin/nsenter", "--target", std::to_string(children.at(0)), "--mount", "--pid", "--"};
    const std::vector<std::string> hook = container.at("lifecycle").at("preStop").at("exec").at("command");
    command.insert(command.end(), hook.begin(), hook.end());
    return std::make_unique<Process>(command, system.options());
  }

  std::string host;
  std::optional<Secrets> secrets;
  std::int64_t id = 0;
  bool started = false;
};

TEST_F(PodTest, ItsWorkerTrainsAndPreStopHasItEndWhatItTrainsAndGiveBackTheRest) {
  submit();
  const auto worker = run_container("3");
  system.wait_for_completed(id, 1);
  until([&] { return attempts("outcome is null") == 2; });
  const auto completed = attempts("outcome = 'completed'");
  const auto hook = run_pre_stop(*worker);
  EXPECT_EQ(worker->wait(std::chrono::seconds(150)), 0) << worker->err();
  EXPECT_EQ(hook->wait(std::chrono::seconds(60)), 128 + SIGKILL) << "it still slept: with process 1 the container is over";
  EXPECT_EQ(attempts("outcome = 'completed'"), completed + 1) << "its grace was long enough for what it trained";
  EXPECT_EQ(attempts("outcome = 'preempted'"), 1) << "what waited";
  EXPECT_EQ(attempts("outcome is null or outcome not in ('completed', 'preempted')"), 0);
  EXPECT_EQ(system.stop(), 0);
}

TEST_F(PodTest, WithoutGraceLeftItGivesBackAllAtTheSecondSigterm) {
  submit();
  const auto worker = run_container("3600");
  until([&] { return attempts("outcome is null") == 2; });
  const auto hook = run_pre_stop(*worker);
  until([&] { return attempts("outcome = 'preempted'") == 1; });  // the one that waited
  std::this_thread::sleep_for(std::chrono::milliseconds(2'500));  // two of them within two seconds count once
  EXPECT_TRUE(worker->running());
  ::kill(worker->children().at(0), SIGTERM);  // Kubernetes' own
  EXPECT_EQ(worker->wait(std::chrono::seconds(60)), 0) << worker->err();
  EXPECT_EQ(attempts("outcome = 'preempted'"), 2);
  EXPECT_EQ(system.stop(), 0);
}

TEST_F(PodTest, TheDaemonAnswersItsProbes) {
  for (const char* name : {"readinessProbe", "livenessProbe"}) {
    const json& probe = probes.at(name).at("httpGet");
    EXPECT_EQ(probe.at("scheme"), "HTTPS");
    EXPECT_EQ(probe.at("port"), 7878) << "where a daemon listens if nobody says otherwise";
    const Finished asked = testing::run({kPython, "-c", kProbe, system.url() + probe.at("path").get<std::string>()}, system.options());
    EXPECT_EQ(asked.out, "200\n") << name << ": " << asked.err;
  }
  EXPECT_EQ(system.stop(), 0);
}

}  // namespace
}  // namespace fusion
