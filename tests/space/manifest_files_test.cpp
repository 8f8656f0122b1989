#include "space/manifest_files.h"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "base/digest.h"
#include "base/error.h"
#include "space/feature_manifest.h"

namespace fusion {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const std::string kA(64, 'a'), kB(64, 'b'), kC(64, 'c');

json features() {
  return {{"source", "../dataset.json"},
          {"dataset_digest", kC},
          {"modalities", {{{"name", "audio"}, {"backbone", {{"file", "../backbones/audio.pt"}, {"digest", kB}}}}}},
          {"files",
           {{"train", {{"labels", {{"file", "l.safetensors"}, {"sha256", kA}}}, {"modalities", {{{"file", "./m/a.safetensors"}, {"sha256", kB}}}}}}}}};
}

std::string problem_of(const std::function<void()>& work) {
  try {
    work();
  } catch (const DataError& error) {
    return error.what();
  }
  return "";
}

TEST(ManifestFilesTest, EveryFileIsNamedWithItsDigest) {
  EXPECT_THAT(feature_files(features()), ElementsAre(ManifestFile{"l.safetensors", kA, false}, ManifestFile{"m/a.safetensors", kB, false}));
  EXPECT_THAT(input_files(features()), ElementsAre(ManifestFile{"../dataset.json", kC, true}, ManifestFile{"../backbones/audio.pt", kB, false}));
  EXPECT_THAT(dataset_files({{"sha256", {{"audio/a.npy", kA}}}}), ElementsAre(ManifestFile{"audio/a.npy", kA, false}));
  EXPECT_EQ(path_beside("../dataset.json", "audio/a.npy"), "../audio/a.npy");
}

TEST(ManifestFilesTest, ImportedFeaturesHaveNothingBehindThem) {
  json imported = features();
  imported["modalities"][0]["backbone"].erase("file");
  EXPECT_THAT(input_files(imported), IsEmpty());
  imported = features();
  imported.erase("source");
  EXPECT_THAT(input_files(imported), IsEmpty());
}

TEST(ManifestFilesTest, WhatMustNotBecomeAFilesNameIsRefused) {
  json bad = features();
  bad["files"]["train"]["labels"]["sha256"] = "../../etc/passwd";
  EXPECT_THAT(problem_of([&] { feature_files(bad); }), HasSubstr("64 hexadecimal digits"));
  bad = features();
  bad["files"]["train"]["labels"]["file"] = "/etc/passwd";
  EXPECT_THAT(problem_of([&] { feature_files(bad); }), HasSubstr("relative"));
  EXPECT_THAT(problem_of([] { feature_files(json::array()); }), HasSubstr("/files"));
  EXPECT_THAT(problem_of([] { dataset_files({{"sha256", {{"a.npy", 5}}}}); }), HasSubstr("a.npy"));
  EXPECT_FALSE(is_digest(std::string(64, 'A')));
  EXPECT_FALSE(is_digest(std::string(63, 'a')));
}

TEST(ManifestFilesTest, ContentIsToldByDigest) {
  EXPECT_TRUE(is_content_of({"f", sha256_of("hello"), false}, "hello"));
  EXPECT_FALSE(is_content_of({"f", sha256_of("hello"), false}, "hullo"));
  json manifest = {{"name", "x"}};
  const std::string digest = manifest_digest(manifest);
  manifest["digest"] = digest;
  EXPECT_TRUE(is_content_of({"f", digest, true}, manifest.dump(2)));
  manifest["name"] = "y";
  EXPECT_FALSE(is_content_of({"f", digest, true}, manifest.dump(2)));
  EXPECT_FALSE(is_content_of({"f", digest, true}, "no json"));
}

}  // namespace
}  // namespace fusion
