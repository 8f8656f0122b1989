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
    for (const auto& [key, value] : document.items()) EXPECT_NE(manual.find("`" + key + "`"), std::string::npos) << key;
  }
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
