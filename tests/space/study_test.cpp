#include "space/study.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/files.h"
#include "space/feature_manifest.h"
#include "tests/space/spaces.h"
#include "tests/temporary_folder.h"

namespace fusion {
namespace {

using ::testing::HasSubstr;

StudySpec read_study(const std::string& text) {
  const auto json = parse_json(text, "study.json");
  JsonProblems problems;
  JsonReader reader(json, "study.json", problems);
  StudySpec spec = StudySpec::read(reader);
  problems.throw_if_any();
  return spec;
}

TEST(StudySpecTest, FillsInTheReferenceProtocolAndRoundTrips) {
  const StudySpec spec = read_study(R"({"name": "n", "dataset": "d.json", "strategy": {"name": "mfas"}, "seed": 18446744073709551615})");
  EXPECT_EQ(spec.training, TrainingOptions{});
  EXPECT_EQ(spec.training.epochs, 3);
  EXPECT_EQ(spec.seed, UINT64_MAX);
  EXPECT_EQ(read_study(spec.to_json().dump()).to_json(), spec.to_json());
}

TEST(StudySpecTest, ReportsEveryProblemAtOnce) {
  try {
    read_study(R"({"name": "", "dataset": 3, "training": {"epochs": 0, "dropot": 0.1, "eta_min": 1, "restart_rule": "x"}, "retries": -1})");
    FAIL() << "no error";
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(), HasSubstr("/name: expected 1 to 200 characters"));
    EXPECT_THAT(error.what(), HasSubstr("/dataset: expected a text, got 3"));
    EXPECT_THAT(error.what(), HasSubstr("/strategy: is missing"));
    EXPECT_THAT(error.what(), HasSubstr("/training/epochs: expected an integer in [1, 10000], got 0"));
    EXPECT_THAT(error.what(), HasSubstr("did you mean \"dropout\""));
    EXPECT_THAT(error.what(), HasSubstr("/training/eta_min: is larger than eta_max"));
    EXPECT_THAT(error.what(), HasSubstr("/training/restart_rule: expected one of repaired, reference, got \"x\""));
    EXPECT_THAT(error.what(), HasSubstr("/retries"));
  }
}

TEST(StudySpecTest, RetriesAreANumberForAllOrOneForEachClass) {
  const auto with = [](const std::string& members) { return read_study(R"({"name": "n", "dataset": "d", "strategy": {"name": "mfas"}, )" + members + "}"); };
  EXPECT_EQ(with(R"("seed": 1)").retries, RetryBudget{});
  EXPECT_EQ(with(R"("retries": 3)").retries, (RetryBudget{3, 3, 3, 8}));
  EXPECT_EQ(with(R"("retries": {"failures": 3, "lost": 1})").retries, (RetryBudget{3, 3, 3, 1}));
  EXPECT_EQ(with(R"("retries": {"failed": 1, "oom": 4, "lost": 0})").retries, (RetryBudget{5, 1, 4, 0}));
  EXPECT_EQ(with(R"("retries": {"oom": 0})").retries, (RetryBudget{2, 2, 0, 8}));
  for (const char* given : {R"("retries": 0)", R"("retries": {"failed": 0, "oom": 0})", R"("retries": {"failed": 1, "oom": 4})"}) {
    const StudySpec spec = with(given);
    EXPECT_EQ(read_study(spec.to_json().dump()).retries, spec.retries) << given;
  }
  EXPECT_EQ(with(R"("pause_on": {"failures": 0})").pause_on, (PauseOptions{0, 600}));
  try {
    with(R"("retries": {"failures": 1, "failed": 1, "preempted": 2}, "pause_on": {"failures": -1, "within_s": 0})");
    FAIL() << "no error";
  } catch (const ConfigError& error) {
    for (const char* text : {"/retries/failures: expected either this", "/retries", "preempted", "/pause_on/failures", "/pause_on/within_s"}) {
      EXPECT_THAT(error.what(), HasSubstr(text));
    }
  }
}

TEST(StudySpecTest, EarlyStoppingIsOffUnlessItIsAskedFor) {
  const std::string head = R"({"name": "n", "dataset": "d", "strategy": {"name": "mfas"}, "training": {"epochs": 9}, "early_stopping": )";
  EXPECT_EQ(read_study(R"({"name": "n", "dataset": "d", "strategy": {"name": "mfas"}})").early_stopping, EarlyStoppingOptions{});
  EXPECT_EQ(EarlyStoppingOptions{}.policy, EarlyStoppingPolicy::none);
  const StudySpec spec = read_study(head + R"({"policy": "asha", "reduction": 2}})");
  EXPECT_EQ(spec.early_stopping, (EarlyStoppingOptions{EarlyStoppingPolicy::asha, 2, 1}));
  EXPECT_EQ(read_study(spec.to_json().dump()).early_stopping, spec.early_stopping);
  EXPECT_NO_THROW(read_study(head + R"({"policy": "none", "min_epochs": 9}})"));
  try {
    read_study(head + R"({"policy": "asha", "min_epochs": 9, "reduction": 1, "rungs": 3}})");
    FAIL() << "no error";
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(), HasSubstr("/early_stopping/min_epochs: expected less than /training/epochs, which is 9, got 9"));
    EXPECT_THAT(error.what(), HasSubstr("/early_stopping/reduction: expected an integer in [2, 1000], got 1"));
    EXPECT_THAT(error.what(), HasSubstr("/early_stopping/rungs"));
  }
}

nlohmann::json manifest() {
  nlohmann::json json = testing::avmnist_spec().to_json();
  json["format"] = "fusiond-features-1";
  json["files"] = nlohmann::json::object();
  json["digest"] = manifest_digest(json);
  return json;
}

TEST(FeatureManifestTest, ReadsTheHeadAndChecksTheDigest) {
  testing::TemporaryFolder folder;
  write_atomically(folder / "dataset.json", "{\"format\": \"fusiond-dataset-1\"}");
  EXPECT_THROW(feature_manifest_path(folder / "dataset.json"), ConfigError);
  write_atomically(folder / "features/features.json", manifest().dump(2));
  EXPECT_EQ(feature_manifest_path(folder / "dataset.json"), folder / "features/features.json");
  EXPECT_EQ(feature_manifest_path(folder / "features/features.json"), folder / "features/features.json");
  const DatasetSpec spec = read_feature_manifest(folder / "features/features.json");
  EXPECT_EQ(spec.modalities, testing::avmnist_spec().modalities);
  EXPECT_EQ(spec.digest, manifest()["digest"]);
}

TEST(FeatureManifestTest, RefusesAManifestThatWasChanged) {
  testing::TemporaryFolder folder;
  nlohmann::json changed = manifest();
  changed["classes"] = 11;
  changed["class_names"] = nlohmann::json::array();
  write_atomically(folder / "features.json", changed.dump());
  try {
    read_feature_manifest(folder / "features.json");
    FAIL() << "no error";
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(), HasSubstr("changed by hand"));
  }
}

}  // namespace
}  // namespace fusion
