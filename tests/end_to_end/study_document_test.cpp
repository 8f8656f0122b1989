#include "tools/study_document.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/files.h"
#include "search/study_strategy.h"
#include "space/feature_manifest.h"
#include "tests/space/spaces.h"
#include "tests/temporary_folder.h"

namespace fusion {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::SizeIs;

class StudyDocumentTest : public ::testing::Test {
 protected:
  StudyDocumentTest() {
    json manifest = testing::avmnist_spec().to_json();
    manifest["format"] = "fusiond-features-1";
    manifest["digest"] = manifest_digest(manifest);
    write_atomically(folder_ / "features.json", manifest.dump());
  }
  ParsedStudy parse(const json& document) { return parse_study(document, "study.json", {folder_.path()}); }
  static json good() {
    return {{"name", "n"}, {"dataset", "features.json"}, {"strategy", {{"name", "mfas"}}}};
  }
  testing::TemporaryFolder folder_;
};

TEST_F(StudyDocumentTest, TheReferenceSearchHas195TrialsIn837930Architectures) {
  const ParsedStudy parsed = parse(good());
  EXPECT_EQ(parsed.count, "837930");
  EXPECT_EQ(parsed.total, 195u);
  EXPECT_EQ(parsed.summary()["trials"], 195);
}

TEST_F(StudyDocumentTest, CollectsTheProblemsOfEveryPart) {
  json document = good();
  document["training"] = {{"epochs", 0}};
  document["space"] = {{"taps", {{"audio", {"tap7"}}}}};
  document["nmae"] = "x";
  try {
    parse(document);
    FAIL() << "no error";
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.problems(), SizeIs(3)) << error.what();
    EXPECT_THAT(error.what(), HasSubstr("study.json: /space/taps/audio: there is no tap \"tap7\""));
  }
}

TEST_F(StudyDocumentTest, AStoredStudyMakesTheSameStrategyAgain) {
  const ParsedStudy parsed = parse(good());
  StudyRecord record;
  record.id = StudyId{1};
  record.spec = parsed.spec;
  record.dataset = parsed.dataset;
  const auto first = make_study_strategy(record), second = make_study_strategy(record);
  const auto a = first->ask(30), b = second->ask(30);
  ASSERT_EQ(a.size(), 30u);
  for (std::size_t i = 0; i < a.size(); ++i) EXPECT_EQ(a[i].architecture, b[i].architecture);
}

}  // namespace
}  // namespace fusion
