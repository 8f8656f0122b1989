#include "tools/blob_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "base/digest.h"
#include "base/files.h"
#include "base/json_reader.h"
#include "space/feature_manifest.h"
#include "space/manifest_files.h"
#include "store/store.h"
#include "tests/end_to_end/small_features.h"
#include "tests/temporary_folder.h"
#include "tools/study_document.h"

namespace fusion {
namespace {

using nlohmann::json;
using testing::TemporaryFolder;
using ::testing::HasSubstr;
namespace fs = std::filesystem;

/// A database with one study on features below root/.
class BlobTableTest : public ::testing::Test {
 protected:
  BlobTableTest() : manifest_(testing::write_small_features(folder_ / "root/features")) {}

  void store_study() {
    Store store = Store::open((folder_ / "fusion.db").string(), clock_);
    const json document = {{"name", "s"}, {"dataset", manifest_.string()}, {"strategy", {{"name", "random"}, {"trials", 1}}}};
    const ParsedStudy parsed = parse_study(document, "study", {folder_.path()});
    store.create_study(parsed.spec, parsed.dataset, parsed.manifest);
  }
  std::shared_ptr<const BlobTable> look(const std::shared_ptr<const BlobTable>& known = nullptr) {
    return find_blobs(StoreReader::open((folder_ / "fusion.db").string()), {folder_ / "root"}, known);
  }
  BlobTable table() { return *look(); }
  void change(const std::function<void(json&)>& how) {
    json features = parse_json_file(manifest_);
    how(features);
    features["digest"] = manifest_digest(features);
    write_atomically(manifest_, features.dump());
  }

  SystemClock clock_;
  TemporaryFolder folder_;
  fs::path manifest_;
};

TEST_F(BlobTableTest, FilesOfAStudyAreFoundByDigest) {
  write_atomically(folder_ / "root/beside.txt", "nobody names this");
  store_study();
  const BlobTable found = table();
  const json features = parse_json_file(manifest_);
  const auto files = feature_files(features);
  EXPECT_EQ(found.files.size(), files.size() + 1);
  EXPECT_EQ(found.files.at(features.at("digest")), fs::canonical(manifest_));
  for (const ManifestFile& file : files) EXPECT_EQ(sha256_of_file(found.files.at(file.digest)), file.digest);
  EXPECT_FALSE(found.files.contains(sha256_of("nobody names this")));
  EXPECT_TRUE(found.problems.empty());
}

TEST_F(BlobTableTest, DatasetAndBackbonesBehindTheFeaturesAreFound) {
  write_atomically(folder_ / "root/a.npy", "numbers");
  write_atomically(folder_ / "root/b.pt", "a network");
  json dataset = {{"sha256", {{"a.npy", sha256_of("numbers")}}}};
  dataset["digest"] = manifest_digest(dataset);
  write_atomically(folder_ / "root/dataset.json", dataset.dump());
  change([&](json& features) {
    features["source"] = "../dataset.json";
    features["dataset_digest"] = dataset["digest"];
    for (json& modality : features["modalities"]) modality["backbone"] = {{"kind", "script"}, {"file", "../b.pt"}, {"digest", sha256_of("a network")}};
  });
  store_study();
  const BlobTable found = table();
  EXPECT_TRUE(found.files.contains(dataset["digest"].get<std::string>()));
  EXPECT_TRUE(found.files.contains(sha256_of("numbers")));
  EXPECT_TRUE(found.files.contains(sha256_of("a network")));
}

TEST_F(BlobTableTest, WhatLeadsOutOfTheRootsIsNotThere) {
  write_atomically(folder_ / "secret", "a secret");
  fs::create_symlink(folder_ / "secret", folder_ / "root/features/link");
  change([&](json& features) {
    features["files"]["train"]["labels"] = {{"file", "link"}, {"sha256", sha256_of("a secret")}};
    features["files"]["dev"]["labels"] = {{"file", "../../secret"}, {"sha256", std::string(64, '1')}};
  });
  store_study();
  const BlobTable found = table();
  EXPECT_FALSE(found.files.contains(sha256_of("a secret")));
  EXPECT_FALSE(found.files.contains(std::string(64, '1')));
  for (const auto& [digest, file] : found.files) EXPECT_EQ(fs::path(file).lexically_relative(fs::canonical(folder_ / "root")).begin()->string(), "features");
}

TEST_F(BlobTableTest, NothingIsReadAgainBeforeSomethingChanged) {
  store_study();
  const json features = parse_json_file(manifest_);
  const ManifestFile labels = feature_files(features).at(0);
  const fs::path file = manifest_.parent_path() / labels.path;
  const auto first = look();
  EXPECT_EQ(look(first), first);
  fs::rename(file, file.string() + ".away");
  EXPECT_EQ(look(first), first) << "whoever fetches it will find out";
  const auto without = look();
  EXPECT_FALSE(without->files.contains(labels.digest));
  EXPECT_EQ(look(without), without);
  fs::rename(file.string() + ".away", file);
  const auto again = look(without);
  EXPECT_TRUE(again->files.contains(labels.digest)) << "what was missed is looked for again once it is there";
  testing::write_small_features(folder_ / "root/other", {.seed = 5});
  manifest_ = folder_ / "root/other/features.json";
  store_study();
  const auto more = look(again);
  EXPECT_GT(more->files.size(), again->files.size()) << "a study was submitted";
  write_atomically(manifest_, "{}");
  const auto broken = look(more);
  EXPECT_EQ(broken->problems.size(), 1u) << "a manifest was changed";
  EXPECT_EQ(look(broken), broken) << "also what cannot be read is not read again";
}

TEST_F(BlobTableTest, FeaturesMadeAnewSinceAreAProblemWithASentence) {
  store_study();
  const std::string registered = parse_json_file(manifest_).at("digest");
  testing::write_small_features(folder_ / "root/features", {.seed = 9});
  const BlobTable found = table();
  EXPECT_TRUE(found.files.empty());
  EXPECT_THAT(found.problems.at(registered), HasSubstr("made anew since"));
  fs::remove(manifest_);
  EXPECT_THAT(table().problems.at(registered), HasSubstr("is not there"));
}

}  // namespace
}  // namespace fusion
