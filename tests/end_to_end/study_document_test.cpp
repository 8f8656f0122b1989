#include "tools/study_document.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/files.h"
#include "search/study_strategy.h"
#include "space/feature_manifest.h"
#include "tests/space/spaces.h"
#include "tests/temporary_folder.h"
#include "tools/fork_document.h"

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
  const auto first = make_study_strategy(record, {}), second = make_study_strategy(record, {});
  const auto a = first->ask(30), b = second->ask(30);
  ASSERT_EQ(a.size(), 30u);
  for (std::size_t i = 0; i < a.size(); ++i) EXPECT_EQ(a[i].architecture, b[i].architecture);
}

// ---- forks

class ForkDocumentTest : public StudyDocumentTest {
 protected:
  ForkDocumentTest() {
    json document = good();
    document["strategy"]["samples"] = 9;
    document["strategy"]["surrogate"] = {{"name", "lstm"}, {"hidden", 10}};
    document["seed"] = 4;
    const ParsedStudy parsed = parse(document);
    parent.id = StudyId{7};
    parent.spec = parsed.spec;
    parent.dataset = parsed.dataset;
    parent.dataset_path = parsed.manifest;
  }
  ParsedFork fork(const json& document, std::int64_t forkable = 40) {
    return parse_fork(ForkRequest::read(document), parent, forkable, {folder_.path()});
  }
  std::vector<std::string> problems(const json& document) {
    try {
      fork(document);
    } catch (const ConfigError& error) {
      return error.problems();
    }
    return {};
  }
  StudyRecord parent;
};

TEST_F(ForkDocumentTest, WithoutChangesItRetracesAllThatWasTold) {
  const ParsedFork forked = fork(json::object());
  EXPECT_EQ(forked.lineage, (Lineage{StudyId{7}, 40, 0}));
  EXPECT_EQ(forked.study.spec.name, "n (fork at 40)");
  json expected = parent.spec.to_json();
  expected["name"] = "n (fork at 40)";
  EXPECT_EQ(forked.study.spec.to_json(), expected);
}

TEST_F(ForkDocumentTest, WhatLeavesTheStrategyAloneRetraces) {
  const ParsedFork forked = fork({{"at", 12}, {"changes", {{"name", "x"}, {"priority", 3}, {"parallel", 1}, {"training", {{"evaluate_test", true}}}}}});
  EXPECT_EQ(forked.lineage, (Lineage{StudyId{7}, 12, 0}));
  EXPECT_EQ(forked.study.spec.name, "x");
  EXPECT_EQ(forked.study.spec.priority, 3);
  EXPECT_TRUE(forked.study.spec.training.evaluate_test);
}

TEST_F(ForkDocumentTest, AnotherStrategySeedOrSpaceBeginsAnewAndKnows) {
  const ParsedFork samples = fork({{"at", 12}, {"changes", {{"strategy", {{"samples", 20}}}}}});
  EXPECT_EQ(samples.lineage.observed, 12);
  EXPECT_EQ(samples.study.spec.strategy, json::parse(R"({"name": "mfas", "samples": 20, "surrogate": {"name": "lstm", "hidden": 10}})"));
  EXPECT_EQ(fork({{"changes", {{"seed", 5}}}}).lineage.observed, 40);
  EXPECT_EQ(fork({{"changes", {{"space", {{"steps", {{"max", 2}}}}}}}}).lineage.observed, 40);
  const ParsedFork ridge = fork({{"changes", {{"strategy", {{"surrogate", {{"name", "ridge"}}}}}}}});
  EXPECT_EQ(ridge.study.spec.strategy["surrogate"], json::parse(R"({"name": "ridge"})")) << "members of another surrogate mean nothing to it";
  const ParsedFork random = fork({{"changes", {{"strategy", {{"name", "random"}, {"trials", 80}}}}}});
  EXPECT_EQ(random.study.spec.strategy, json::parse(R"({"name": "random", "trials": 80})"));
}

TEST_F(ForkDocumentTest, AForkOfAForkGoesOnFromWhatItsParentKnew) {
  parent.fork = Lineage{StudyId{1}, 20, 20};
  EXPECT_EQ(fork({{"at", 30}}).lineage.observed, 20);
  EXPECT_EQ(fork({{"at", 15}}).lineage.observed, 15);
  EXPECT_EQ(fork({{"at", 30}, {"changes", {{"seed", 5}}}}).lineage.observed, 30);
}

TEST_F(ForkDocumentTest, TrainingMayChangeOnlyWhereNothingIsInherited) {
  const json changes{{"training", {{"epochs", 9}, {"batch", 8}}}};
  EXPECT_THAT(problems({{"at", 12}, {"changes", changes}}),
              ::testing::UnorderedElementsAre(HasSubstr("/training/epochs: is 3 in study 7 and would be 9; scores of inherited trials would not compare"),
                                              HasSubstr("/training/batch: is 32 in study 7 and would be 8")));
  EXPECT_EQ(fork({{"at", 0}, {"changes", changes}}).study.spec.training.epochs, 9);
}

TEST_F(ForkDocumentTest, BadRequestsAreRefused) {
  EXPECT_THAT(problems({{"at", 41}}), ::testing::ElementsAre(HasSubstr("/at: expected 0 to 40, the trials of study 7 that were told so far")));
  EXPECT_THAT(problems({{"at", -1}}), SizeIs(1));
  EXPECT_THAT(problems({{"at", "x"}, {"changes", 5}, {"option", 1}}), SizeIs(3));
  EXPECT_THAT(problems({{"changes", {{"dataset", "other.json"}}}}), ::testing::ElementsAre(HasSubstr("/dataset: cannot change in a fork")));
  EXPECT_THAT(problems({{"changes", {{"strategy", {{"smaples", 4}}}}}}), ::testing::ElementsAre(HasSubstr("did you mean \"samples\"")));
  parent.dataset.digest = "another";
  EXPECT_THAT(problems(json::object()), ::testing::ElementsAre(HasSubstr("study 7 was searched on another")));
}

}  // namespace
}  // namespace fusion
