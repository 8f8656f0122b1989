#include "workers/avmnist/avmnist.h"

#include <gmock/gmock.h>

#include <cmath>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "base/digest.h"
#include "base/json_reader.h"
#include "base/tensor_files.h"
#include "space/feature_manifest.h"
#include "tests/workers/avmnist/sources.h"
#include "tools/data_commands.h"

namespace fusion {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using nlohmann::json;
using testing::message_of;
using testing::TemporaryFolder;

/// Raw data of our own and a place beside it.
class AvmnistTest : public ::testing::Test {
 protected:
  void SetUp() override { testing::make_sources(folder_.path()); }

  AvmnistOptions options(const std::string& out = "out") const {
    AvmnistOptions options;
    options.mnist = folder_ / "mnist";
    options.fsdd = folder_ / "fsdd";
    options.noise = folder_ / "esc10";
    options.out = folder_ / "made" / out;
    options.threads = 1;
    options.quiet = true;
    return options;
  }
  AvmnistOptions reference_options(const std::string& out = "out") const {
    AvmnistOptions changed = options(out);
    changed.preset = AvmnistPreset::reference;
    return changed;
  }
  /// Everything below the folder of results.
  std::set<std::string> left_behind() const {
    std::set<std::string> names;
    if (!std::filesystem::exists(folder_ / "made")) return names;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(folder_ / "made")) {
      if (!entry.is_directory() || entry.path().filename().string().find(".tmp") != std::string::npos) {
        names.insert(std::filesystem::relative(entry.path(), folder_ / "made").string());
      }
    }
    return names;
  }
  std::string building(const AvmnistOptions& options) const {
    return message_of<Error>([&] { build_avmnist(options); });
  }

  TemporaryFolder folder_;
};

json document_of(const AvmnistOptions& options) { return parse_json_file(options.out / "dataset.json"); }

TEST_F(AvmnistTest, WritesTheLayoutAndItsManifest) {
  const AvmnistOutcome outcome = build_avmnist(options());
  EXPECT_FALSE(outcome.up_to_date);
  EXPECT_EQ(outcome.train, 55);
  EXPECT_EQ(outcome.dev, 5);
  EXPECT_EQ(outcome.test, 60);
  EXPECT_THAT(left_behind(), ElementsAre("out/audio/test_data.npy", "out/audio/train_data.npy", "out/dataset.json",
                                         "out/image/test_data.npy", "out/image/train_data.npy", "out/test_labels.npy",
                                         "out/train_labels.npy"));
  for (const std::string half : {"train", "test"}) {
    const TensorView audio = open_npy(options().out / "audio" / (half + "_data.npy"));
    const TensorView image = open_npy(options().out / "image" / (half + "_data.npy"));
    const TensorView labels = open_npy(options().out / (half + "_labels.npy"));
    EXPECT_THAT(audio.shape, ElementsAre(60, 112, 112));
    EXPECT_EQ(audio.dtype, DType::u8);
    EXPECT_THAT(image.shape, ElementsAre(60, 784));
    EXPECT_EQ(image.dtype, DType::f32);
    EXPECT_THAT(labels.shape, ElementsAre(60));
    EXPECT_EQ(labels.dtype, DType::u8);
    const auto* pixels = reinterpret_cast<const std::uint8_t*>(audio.data);
    for (int row = 0; row < 60; ++row) {
      const auto [low, high] = std::minmax_element(pixels + row * 12'544, pixels + (row + 1) * 12'544);
      EXPECT_EQ(*low, 0) << row;
      EXPECT_EQ(*high, 255) << row;
    }
  }
  json document = document_of(options());
  EXPECT_EQ(document["format"], "fusiond-dataset-1");
  EXPECT_EQ(document["splits"]["dev"], (json{{"of", "train"}, {"begin", 55}, {"end", 60}}));
  EXPECT_EQ(document["parameters"]["components"], 5);
  EXPECT_EQ(document["parameters"]["snr_db"], -9.0);
  EXPECT_EQ(document["sha256"].size(), 6u);
  for (const auto& [file, digest] : document["sha256"].items()) EXPECT_EQ(digest, sha256_of_file(options().out / file));
  EXPECT_EQ(outcome.digest, document["digest"]);
  EXPECT_EQ(outcome.digest, manifest_digest(document));
}

TEST_F(AvmnistTest, GivesTheSameBytesForEveryNumberOfThreads) {
  for (const bool careful : {true, false}) {
    AvmnistOptions one = careful ? options("one") : reference_options("one-r");
    AvmnistOptions two = careful ? options("two") : reference_options("two-r");
    two.threads = 3;
    EXPECT_EQ(build_avmnist(one).digest, build_avmnist(two).digest);
  }
  AvmnistOptions other = options("other");
  other.seed = 1;
  build_avmnist(other);
  EXPECT_NE(document_of(other)["sha256"]["audio/train_data.npy"], document_of(options("one"))["sha256"]["audio/train_data.npy"]);
  EXPECT_EQ(document_of(other)["sha256"]["image/train_data.npy"], document_of(options("one"))["sha256"]["image/train_data.npy"]);
}

TEST_F(AvmnistTest, LimitKeepsTheFirstRows) {
  AvmnistOptions limited = options("limited");
  limited.limit = 36;
  const AvmnistOutcome outcome = build_avmnist(limited);
  EXPECT_EQ(outcome.train + outcome.dev, 36);
  EXPECT_EQ(outcome.dev, 3);
  build_avmnist(options());
  const TensorView part = open_npy(limited.out / "audio/test_data.npy"), whole = open_npy(options().out / "audio/test_data.npy");
  EXPECT_EQ(std::memcmp(part.data, whole.data, part.bytes), 0);
}

TEST_F(AvmnistTest, LeavesAFinishedDatasetAlone) {
  const std::string digest = build_avmnist(options()).digest;
  const auto written = std::filesystem::last_write_time(options().out / "dataset.json");
  const AvmnistOutcome again = build_avmnist(options());
  EXPECT_TRUE(again.up_to_date);
  EXPECT_EQ(again.digest, digest);
  EXPECT_EQ(again.train, 55);
  EXPECT_EQ(std::filesystem::last_write_time(options().out / "dataset.json"), written);
}

TEST_F(AvmnistTest, RepairsADamagedDatasetAndTouchesNothingElse) {
  const std::string digest = build_avmnist(options()).digest;
  testing::write_bytes(options().out / "features" / "features.json", "{}");
  std::filesystem::resize_file(options().out / "audio/test_data.npy", 1000);
  EXPECT_FALSE(build_avmnist(options()).up_to_date);
  std::filesystem::remove(options().out / "train_labels.npy");
  const AvmnistOutcome outcome = build_avmnist(options());
  EXPECT_EQ(outcome.digest, digest);
  EXPECT_TRUE(build_avmnist(options()).up_to_date);
  EXPECT_TRUE(std::filesystem::exists(options().out / "features/features.json"));
  EXPECT_EQ(left_behind().size(), 8u);
}

TEST_F(AvmnistTest, RefusesAFolderThatHoldsAnotherDataset) {
  build_avmnist(options());
  const json before = document_of(options());
  AvmnistOptions other = options();
  other.seed = 7;
  other.snr_db = 3;
  EXPECT_THAT(building(other), AllOf(HasSubstr("seed 0, asked for is 7"), HasSubstr("snr_db -9.0, asked for is 3.0")));
  EXPECT_EQ(document_of(options()), before);
  EXPECT_TRUE(build_avmnist(options()).up_to_date);
  testing::write_bytes(options().out / "dataset.json", "{\"format\": 1}");
  EXPECT_THAT(building(options()), HasSubstr("is not an AV-MNIST dataset"));
}

TEST_F(AvmnistTest, NoticesOtherSources) {
  build_avmnist(options());
  testing::write_sound(folder_ / "esc10" / "001-dog-bark" / "1-100-A.ogg", testing::some_sound(30'000, 77), 16'000);
  EXPECT_THAT(building(options()), HasSubstr("made from other files of noise"));
}

TEST_F(AvmnistTest, ReferenceKeepsItsQuirks) {
  const AvmnistOutcome outcome = build_avmnist(reference_options());
  const json document = document_of(reference_options());
  EXPECT_EQ(open_npy(reference_options().out / "image/train_data.npy").dtype, DType::f64);
  EXPECT_TRUE(document["parameters"]["sources"]["noise"].is_null());
  EXPECT_TRUE(document["parameters"]["measured"].contains("test"));
  EXPECT_EQ(outcome.train, 55);
  // Jackson, theo and yweweler at indices 0, 6 and 12 (sorted): the clips of a digit come round after nine.
  const TensorView audio = open_npy(reference_options().out / "audio/train_data.npy");
  const std::vector<std::int64_t> labels = open_npy(reference_options().out / "train_labels.npy").to<std::int64_t>();
  std::set<std::string> pictures;
  std::map<std::int64_t, std::vector<std::string>> by_digit;
  for (std::size_t row = 0; row < labels.size(); ++row) {
    const std::string picture(reinterpret_cast<const char*>(audio.data) + row * 12'544, 12'544);
    auto& seen = by_digit[labels[row]];
    if (seen.size() >= 9) {
      EXPECT_EQ(picture, seen[seen.size() - 9]);
    } else {
      EXPECT_TRUE(pictures.insert(picture).second) << row;
    }
    seen.push_back(picture);
  }
}

TEST_F(AvmnistTest, SplitsAndRatiosAreHeeded) {
  AvmnistOptions speaker = options("speaker"), clean = options("clean");
  speaker.split = SpeechSplit::speaker;
  clean.snr_db = INFINITY;
  clean.noise.clear();
  build_avmnist(options());
  build_avmnist(speaker);
  build_avmnist(clean);
  EXPECT_TRUE(document_of(clean)["parameters"]["snr_db"].is_null());
  const auto digest = [&](const AvmnistOptions& of) { return document_of(of)["sha256"]["audio/test_data.npy"]; };
  EXPECT_NE(digest(speaker), digest(options()));
  EXPECT_NE(digest(clean), digest(options()));
}

TEST_F(AvmnistTest, BadInputLeavesNothingBehind) {
  const auto with_damage = [&](const std::string& file, const std::string& bytes) {
    const std::filesystem::path path = folder_ / file;
    const std::string good = read_text(path);
    testing::write_bytes(path, bytes.empty() ? good.substr(0, good.size() - 9) : bytes);
    const std::string message = building(options());
    testing::write_bytes(path, good);
    EXPECT_THAT(left_behind(), ElementsAre()) << file;
    return message;
  };
  EXPECT_THAT(with_damage("mnist/t10k-images-idx3-ubyte", ""), HasSubstr("t10k-images-idx3-ubyte: is truncated"));
  EXPECT_THAT(with_damage("mnist/train-labels-idx1-ubyte", "nonsense"), HasSubstr("magic number"));
  EXPECT_THAT(with_damage("fsdd/recordings/3_theo_12.wav", ""), HasSubstr("3_theo_12.wav: is truncated"));
  EXPECT_THAT(with_damage("esc10/001-dog-bark/5-100-A.ogg", ""), HasSubstr("5-100-A.ogg: is truncated"));
  testing::write_sound(folder_ / "fsdd/recordings/3_theo_13.wav", testing::some_sound(3000, 1), 16'000);
  EXPECT_THAT(building(options()), HasSubstr("3_theo_13.wav: has 16000 samples per second"));
  std::filesystem::remove(folder_ / "fsdd/recordings/3_theo_13.wav");
  std::filesystem::remove(folder_ / "esc10/001-dog-bark/4-100-A.ogg");
  EXPECT_THAT(building(options()), HasSubstr("no noise clip for the dev part"));
  for (const char* folder : {"mnist", "fsdd", "esc10"}) {
    std::filesystem::rename(folder_ / folder, folder_ / "away");
    EXPECT_THAT(building(options()), HasSubstr(std::string(folder) + ": is not a folder"));
    std::filesystem::rename(folder_ / "away", folder_ / folder);
  }
  EXPECT_THAT(left_behind(), ElementsAre());
}

TEST_F(AvmnistTest, FailureWhileWritingLeavesAnOldFolderAsItWas) {
  testing::write_bytes(options().out / "notes.txt", "mine");
  std::filesystem::remove(folder_ / "esc10/001-dog-bark/4-100-A.ogg");
  building(options());
  EXPECT_THAT(left_behind(), ElementsAre("out/notes.txt"));
  testing::write_bytes(folder_ / "made/file", "");
  EXPECT_THAT(building(options("file")), HasSubstr("is not a folder"));
}

TEST_F(AvmnistTest, ReportsEveryWrongOptionAtOnce) {
  AvmnistOptions wrong = reference_options();
  wrong.components = 785;
  wrong.snr_db = 100;
  wrong.split = SpeechSplit::speaker;
  wrong.limit = 3;
  wrong.threads = -1;
  const std::string message = building(wrong);
  for (const char* part : {"--components: expected an integer in [1, 784], got 785", "--snr: the preset reference",
                           "--split: the preset reference", "--limit: expected at least 24 rows, got 3",
                           "--threads: expected an integer in [0, 1024], got -1", "[-60, 60], or inf for no noise, got 100"}) {
    EXPECT_THAT(message, HasSubstr(part));
  }
  AvmnistOptions silent = options();
  silent.noise.clear();
  EXPECT_THAT(building(silent), HasSubstr("--noise: the preset careful needs"));
}

TEST_F(AvmnistTest, IsACommandOfFusionData) {
  const auto run = [&](std::vector<std::string> more) {
    CLI::App app;
    add_avmnist_command(app);
    std::vector<std::string> words{"avmnist", "--mnist", options().mnist, "--fsdd", options().fsdd, "--noise", options().noise,
                                   "--out", options().out, "--quiet"};
    words.insert(words.end(), more.begin(), more.end());
    std::reverse(words.begin(), words.end());
    app.parse(words);
  };
  EXPECT_THROW(run({"--preset", "carefree"}), CLI::ParseError);
  EXPECT_THROW(run({"--split", "digit"}), CLI::ParseError);
  EXPECT_THROW(run({"--seed", "-1"}), CLI::ParseError);
  EXPECT_THROW(run({"--limit", "2"}), ConfigError);
  run({"--preset", "careful", "--split", "speaker", "--snr", "inf", "--components", "4", "--seed", "9", "--threads", "2"});
  const json parameters = document_of(options())["parameters"];
  EXPECT_EQ(parameters["split"], "speaker");
  EXPECT_EQ(parameters["components"], 4);
  EXPECT_EQ(parameters["seed"], 9);
  EXPECT_TRUE(parameters["snr_db"].is_null());
}

TEST_F(AvmnistTest, BuildsFromTheRealData) {
  REQUIRE_REAL_DATA(data);
  AvmnistOptions real = reference_options("real");
  real.mnist = *data / "mnist";
  real.fsdd = *data / "fsdd";
  real.limit = 3000;
  real.threads = 2;
  build_avmnist(real);
  const json measured = document_of(real)["parameters"]["measured"];
  EXPECT_EQ(measured["train"]["components"], 3);
  EXPECT_EQ(measured["test"]["components"], 3);
  const TensorView audio = open_npy(real.out / "audio/train_data.npy");
  std::set<std::string> distinct;
  for (std::int64_t row = 0; row < 3000; ++row) distinct.emplace(reinterpret_cast<const char*>(audio.data) + row * 12'544, 12'544);
  EXPECT_EQ(distinct.size(), 1600u);  // 160 clips of each digit, and every digit occurs that often
}

}  // namespace
}  // namespace fusion
