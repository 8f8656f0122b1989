#include "tools/daemon_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "base/files.h"
#include "space/retraining_options.h"
#include "space/study.h"
#include "tests/temporary_folder.h"

namespace fusion {
namespace {

namespace fs = std::filesystem;

fs::path source_folder() {
  const char* folder = std::getenv("FUSION_SOURCE_DIR");
  return folder != nullptr ? folder : ".";
}

TEST(ConfigsTest, EveryFileOfConfigsIsParsed) {
  int studies = 0;
  for (const auto& entry : fs::directory_iterator(source_folder() / "configs" / "studies")) {
    const auto document = parse_json_file(entry.path());
    JsonProblems problems;
    JsonReader reader(document, entry.path().string(), problems);
    StudySpec::read(reader);
    EXPECT_THAT(problems.list(), ::testing::IsEmpty());
    ++studies;
  }
  EXPECT_GE(studies, 3);
  const auto document = parse_json_file(source_folder() / "configs" / "daemon.json");
  JsonProblems problems;
  JsonReader reader(document, "daemon.json", problems);
  DaemonConfig::read(reader, DaemonConfig{});
  EXPECT_THAT(problems.list(), ::testing::IsEmpty());
}

TEST(ConfigsTest, EveryKeyStandsInTheManual) {
  const std::string manual = read_text(source_folder() / "configs" / "README.md");
  for (const nlohmann::json& document : {DaemonConfig{}.to_json(), StudySpec{}.to_json(), TrainingOptions{}.to_json(), RetrainingOptions{}.to_json()}) {
    for (const auto& [key, value] : document.items()) {
      if (key == "log") continue;  // explained member by member
      EXPECT_NE(manual.find("`" + key + "`"), std::string::npos) << key;
    }
  }
  const nlohmann::json log = DaemonConfig{}.to_json().at("log");
  for (const auto& [key, value] : log.items()) EXPECT_NE(manual.find("`log." + key + "`"), std::string::npos) << key;
}

TEST(ConfigsTest, LevelAndFileOfTheLogAreReadAndWrittenAlike) {
  const auto document = nlohmann::json::parse(R"({"log_level": "debug", "log": {"file": "a.log", "max_mb": 5, "files": 2, "json": true}, "drain_s": 0.5})");
  JsonProblems problems;
  JsonReader reader(document, "daemon.json", problems);
  const DaemonConfig config = DaemonConfig::read(reader, DaemonConfig{});
  EXPECT_THAT(problems.list(), ::testing::IsEmpty());
  EXPECT_EQ(config.log.level, "debug");
  const nlohmann::json whole = config.to_json();
  EXPECT_EQ(whole.at("log"), nlohmann::json::parse(R"({"level": "debug", "file": "a.log", "max_mb": 5, "files": 2, "json": true})"));
  EXPECT_EQ(whole.at("drain_s"), 0.5);
  const auto wrong = nlohmann::json::parse(R"({"log": {"level": "info", "max_mb": -1, "files": 0, "fiel": "x"}, "drain_s": -1})");
  JsonReader wrong_reader(wrong, "daemon.json", problems);
  DaemonConfig::read(wrong_reader, DaemonConfig{});
  EXPECT_THAT(problems.list(), ::testing::SizeIs(4)) << "all problems at once";
}

TEST(ConfigsTest, TheServiceWaitsLongerForAStopThanTheDaemonTakes) {
  const std::string unit = read_text(source_folder() / "configs" / "fusiond.service");
  const auto value = [&unit](const std::string& key) {
    const std::size_t at = unit.find("\n" + key + "=");
    return at == std::string::npos ? std::string() : unit.substr(at + key.size() + 2, unit.find('\n', at + 1) - at - key.size() - 2);
  };
  EXPECT_EQ(value("Type"), "notify");
  EXPECT_EQ(value("ExecReload"), "/bin/kill -HUP $MAINPID");
  EXPECT_EQ(value("RestartPreventExitStatus"), "2");
  // Draining, 15 s for local workers, twice 5 s for requests and threads: docs/operations.md.
  const std::string command = value("ExecStart");
  const std::size_t drain = command.find("--drain ");
  ASSERT_NE(drain, std::string::npos);
  EXPECT_GT(std::stod(value("TimeoutStopSec")), std::stod(command.substr(drain + 8)) + 15 + 10);
}

TEST(ArtifactsFolderTest, LiesBesideTheDatabaseUnlessNamedAndIsAFolder) {
  testing::TemporaryFolder folder;
  DaemonConfig config;
  config.db = (folder / "work/fusion.db").string();
  EXPECT_EQ(config.artifacts_folder(), fs::weakly_canonical(folder / "work/artifacts"));
  config.artifacts = (folder / "models").string();
  EXPECT_EQ(config.artifacts_folder(), fs::weakly_canonical(folder / "models"));
  write_atomically(folder / "models", "a file");
  EXPECT_THROW(config.artifacts_folder(), ConfigError);
}

TEST(EndpointTest, OnlyLoopbackIsServedWithoutTlsAndTokens) {
  DaemonConfig config;
  EXPECT_EQ(config.endpoint().second, 7878);
  for (const char* good : {"127.0.0.1:0", "localhost:80", "[::1]:7878"}) {
    config.listen = good;
    EXPECT_NO_THROW(config.endpoint()) << good;
  }
  for (const char* bad : {"0.0.0.0:1", "127.0.0.1", ":80", "127.0.0.1:65536", "127.0.0.1:8x", "example.org:80", "[::]:1"}) {
    config.listen = bad;
    EXPECT_THROW(config.endpoint(), ConfigError) << bad;
  }
}

TEST(ResolveBelowTest, NothingOutsideTheRootsIsReached) {
  testing::TemporaryFolder folder;
  write_atomically(folder / "root/a/data.json", "{}");
  write_atomically(folder / "secret.json", "{}");
  fs::create_symlink(folder / "secret.json", folder / "root/link.json");
  const std::vector<fs::path> roots{folder / "root"};
  EXPECT_EQ(resolve_below(roots, "a/data.json"), fs::canonical(folder / "root/a/data.json"));
  EXPECT_EQ(resolve_below(roots, (folder / "root/a/data.json").string()), fs::canonical(folder / "root/a/data.json"));
  EXPECT_THROW(resolve_below(roots, "../secret.json"), ConfigError);
  EXPECT_THROW(resolve_below(roots, (folder / "secret.json").string()), ConfigError);
  EXPECT_THROW(resolve_below(roots, "link.json"), ConfigError) << "a link out of the root";
  EXPECT_THROW(resolve_below(roots, std::string("a/data.json\0/../../../secret.json", 33)), ConfigError) << "read to its end by us, not by the system";
  EXPECT_THROW(resolve_below(roots, (folder / "rootless").string()), ConfigError) << "a folder whose name begins like the root";
}

}  // namespace
}  // namespace fusion
