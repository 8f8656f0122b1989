#include "workers/client/dataset_source.h"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "base/digest.h"
#include "base/files.h"
#include "base/json_reader.h"
#include "space/feature_manifest.h"
#include "tests/end_to_end/small_features.h"
#include "tests/temporary_folder.h"
#include "tests/workers/client/blob_daemon.h"
#include "workers/client/worker_condition.h"

namespace fusion {
namespace {

using nlohmann::json;
using testing::BlobDaemon;
using testing::TemporaryFolder;
using ::testing::HasSubstr;
namespace fs = std::filesystem;
using Depth = DatasetSource::Depth;

/// The daemon's host has features in there/; here is nothing.
class DatasetSourceTest : public ::testing::Test {
 protected:
  DatasetSourceTest() {
    manifest_ = testing::write_small_features(folder_ / "there/features");
    publish();
  }
  /// Everything that the manifest names, and itself.
  void publish() {
    const json features = parse_json_file(manifest_);
    digest_ = features.at("digest");
    daemon_.blobs[digest_] = read_text(manifest_);
    std::vector<ManifestFile> files = feature_files(features);
    for (const ManifestFile& file : input_files(features)) files.push_back(file);
    for (const ManifestFile& file : files) daemon_.blobs[file.digest] = read_text(manifest_.parent_path() / file.path);
  }
  /// A dataset with one array and one backbone behind the features, beside and above their folder.
  void write_inputs() {
    write_atomically(folder_ / "there/audio/a.npy", "numbers");
    write_atomically(folder_ / "backbones/b.pt", "a network");
    json dataset = {{"format", "fusiond-dataset-1"}, {"sha256", {{"audio/a.npy", sha256_of("numbers")}}}};
    dataset["digest"] = manifest_digest(dataset);
    write_atomically(folder_ / "there/dataset.json", dataset.dump());
    json features = parse_json_file(manifest_);
    features["source"] = "../dataset.json";
    features["dataset_digest"] = dataset["digest"];
    for (json& modality : features["modalities"]) modality["backbone"] = {{"file", "../../backbones/b.pt"}, {"digest", sha256_of("a network")}};
    features["digest"] = manifest_digest(features);
    write_atomically(manifest_, features.dump());
    publish();
    daemon_.blobs[sha256_of("numbers")] = "numbers";
  }
  DatasetSource source(BlobUse use) {
    DatasetSourceOptions options;
    options.use = use;
    options.cache = folder_ / "cache";
    options.fetcher.url = daemon_.url();
    options.fetcher.backoff_min = std::chrono::milliseconds(10);
    return DatasetSource(options);
  }
  fs::path nowhere() const { return folder_ / "nowhere/features/features.json"; }

  TemporaryFolder folder_;
  BlobDaemon daemon_;
  fs::path manifest_;
  std::string digest_;
};

TEST_F(DatasetSourceTest, ASharedPathIsReadWhereItLies) {
  DatasetSource here = source(BlobUse::automatic);
  const auto located = here.locate(manifest_.string(), digest_, Depth::features, {});
  EXPECT_EQ(located.manifest, manifest_);
  EXPECT_FALSE(located.fetched);
  EXPECT_TRUE(daemon_.requests().empty());
  EXPECT_FALSE(fs::exists(folder_ / "cache"));
}

TEST_F(DatasetSourceTest, WhatCannotBeReadHereIsFetchedAndLooksTheSame) {
  DatasetSource here = source(BlobUse::automatic);
  const auto located = here.locate(nowhere().string(), digest_, Depth::features, {});
  EXPECT_TRUE(located.fetched);
  EXPECT_EQ(read_feature_manifest(located.manifest).digest, digest_);
  for (const ManifestFile& file : feature_files(parse_json_file(manifest_))) {
    EXPECT_EQ(read_text(located.manifest.parent_path() / file.path), read_text(manifest_.parent_path() / file.path)) << file.path;
  }
  const std::size_t requests = daemon_.requests().size();
  EXPECT_EQ(requests, located.files.size());
  DatasetSource again = source(BlobUse::always);
  EXPECT_EQ(again.locate(manifest_.string(), digest_, Depth::features, {}).manifest, located.manifest);
  EXPECT_EQ(daemon_.requests().size(), requests) << "all of it was there";
}

TEST_F(DatasetSourceTest, InputsLieWhereTheManifestExpectsThem) {
  write_inputs();
  DatasetSource here = source(BlobUse::automatic);
  const auto located = here.locate(nowhere().string(), digest_, Depth::inputs, {});
  const fs::path folder = located.manifest.parent_path();
  EXPECT_EQ(read_text((folder / "../dataset.json").lexically_normal()), read_text(folder_ / "there/dataset.json"));
  EXPECT_EQ(read_text((folder / "../audio/a.npy").lexically_normal()), "numbers");
  EXPECT_EQ(read_text((folder / "../../backbones/b.pt").lexically_normal()), "a network");
  EXPECT_EQ(fs::relative(folder, folder_ / "cache").begin()->string(), "datasets") << "all of it below the cache";
}

TEST_F(DatasetSourceTest, OtherFeaturesAtThePathAreNotTaken) {
  const fs::path other = testing::write_small_features(folder_ / "here", {.seed = 5});
  DatasetSource here = source(BlobUse::automatic);
  EXPECT_TRUE(here.locate(other.string(), digest_, Depth::features, {}).fetched);
  try {
    here.locate(other.string(), std::string(64, '0'), Depth::features, {});
    FAIL() << "nobody has these";
  } catch (const DataError& error) {
    EXPECT_THAT(error.what(), HasSubstr("expected " + std::string(64, '0')));
  }
}

TEST_F(DatasetSourceTest, WhoFetchesNothingSaysWhatIsMissing) {
  DatasetSource here = source(BlobUse::never);
  try {
    here.locate(nowhere().string(), digest_, Depth::features, {});
    FAIL() << "it is not there";
  } catch (const UnreadableData& error) {
    EXPECT_THAT(error.what(), HasSubstr(nowhere().string()));
    EXPECT_THAT(error.what(), HasSubstr("--blobs never"));
  }
}

TEST_F(DatasetSourceTest, DamageInTheCacheIsMendedByLocatingAgain) {
  DatasetSource here = source(BlobUse::always);
  {
    const auto located = here.locate("", digest_, Depth::features, {});
    EXPECT_FALSE(here.drop_damaged(located));
    fs::resize_file(located.blobs.back().file, 10);
    EXPECT_TRUE(here.drop_damaged(located));
  }
  const auto again = here.locate("", digest_, Depth::features, {});
  EXPECT_EQ(sha256_of_file(again.blobs.back().file), again.files.back().digest);
}

}  // namespace
}  // namespace fusion
