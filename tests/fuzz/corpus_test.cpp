// The fixed corpus through every target, without libFuzzer: what was found once stays mended, in every build.
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "base/files.h"
#include "tests/fuzz/targets.h"

namespace fusion::fuzz {
namespace {

namespace fs = std::filesystem;

struct Target {
  const char* name;
  void (*run)(std::string_view);
};

class CorpusTest : public ::testing::TestWithParam<Target> {
 protected:
  static std::vector<fs::path> files() {
    std::vector<fs::path> found;
    const fs::path folder = fs::path(std::getenv("FUSION_SOURCE_DIR")) / "tests/fuzz/corpus" / GetParam().name;
    for (const auto& entry : fs::directory_iterator(folder)) found.push_back(entry.path());
    return found;
  }
};

TEST_P(CorpusTest, EveryInputIsReadOrRefused) {
  EXPECT_GE(files().size(), 5u);
  for (const fs::path& file : files()) {
    SCOPED_TRACE(file.string());
    const std::string bytes = read_text(file);
    EXPECT_NO_THROW(GetParam().run(bytes));
  }
}

// Cut anywhere, and with any byte turned: a cheap part of what the fuzzers do, the same in every run.
TEST_P(CorpusTest, CutAndTurnedInputsAreReadOrRefused) {
  for (const fs::path& file : files()) {
    SCOPED_TRACE(file.string());
    const std::string bytes = read_text(file);
    const std::size_t step = std::max<std::size_t>(1, bytes.size() / 200);
    for (std::size_t at = 0; at < bytes.size(); at += step) {
      EXPECT_NO_THROW(GetParam().run(std::string_view(bytes).substr(0, at))) << "cut at " << at;
      std::string turned = bytes;
      turned[at] = static_cast<char>(turned[at] ^ (1 << (at % 8)));
      EXPECT_NO_THROW(GetParam().run(turned)) << "turned at " << at;
    }
  }
}

TEST_P(CorpusTest, NestingWithoutEndIsRefused) {
  for (const char* open : {"[", "{\"a\":"}) {
    std::string deep;
    for (int i = 0; i < 1'000'000; ++i) deep += open;
    EXPECT_NO_THROW(GetParam().run(deep));
    deep += deep[0] == '[' ? std::string(1'000'000, ']') : "1" + std::string(1'000'000, '}');
    EXPECT_NO_THROW(GetParam().run(deep)) << "and closed again";
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, CorpusTest,
                         ::testing::Values(Target{"protocol_frame", protocol_frame}, Target{"http_request", http_request},
                                           Target{"config_json", config_json}, Target{"triplet_text", triplet_text},
                                           Target{"safetensors", safetensors}, Target{"npy", npy}, Target{"idx", idx}, Target{"wav", wav}),
                         [](const auto& target) { return std::string(target.param.name); });

}  // namespace
}  // namespace fusion::fuzz
