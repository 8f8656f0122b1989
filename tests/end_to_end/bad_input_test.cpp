#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "base/files.h"
#include "space/feature_manifest.h"
#include "tests/end_to_end/small_features.h"
#include "tests/end_to_end/system.h"

namespace fusion {
namespace {

using nlohmann::json;
using testing::Finished;
using testing::System;
using ::testing::AllOf;
using ::testing::HasSubstr;

Finished submit_raw(System& system, const std::string& text) {
  write_atomically(system.folder() / "bad.json", text);
  return system.ctl({"submit", (system.folder() / "bad.json").string()});
}

TEST(BadStudyTest, EveryProblemAtOnceExitTwoNothingStored) {
  System system;
  system.start(0);
  json study = System::small_study();
  study["trainign"] = 1;
  study["training"]["epochs"] = "three";
  study["training"]["dropout"] = 1.5;
  study["space"]["taps"] = {{"audio", {"tap9"}}, {"smell", {0}}};
  study["strategy"]["samples"] = 0;
  const Finished finished = submit_raw(system, study.dump());
  EXPECT_EQ(finished.status, 2);
  EXPECT_THAT(finished.err, AllOf(HasSubstr("did you mean \"training\""), HasSubstr("/training/epochs: expected an integer"),
                                  HasSubstr("/training/dropout"), HasSubstr("there is no tap \"tap9\""), HasSubstr("/space/taps/smell")));
  EXPECT_EQ(system.sql("select count(*) from studies")[0][0], 0);

  study = System::small_study();
  study["strategy"]["samples"] = 0;
  study["strategy"]["itertaions"] = 3;
  EXPECT_THAT(submit_raw(system, study.dump()).err, AllOf(HasSubstr("/strategy/samples"), HasSubstr("did you mean \"iterations\"")));
  study["strategy"] = {{"name", "mfsa"}};
  EXPECT_THAT(submit_raw(system, study.dump()).err, AllOf(HasSubstr("/strategy"), HasSubstr("mfas"), HasSubstr("exhaustive")));
  EXPECT_THAT(submit_raw(system, "{\"name\": \"x\",\n oops}").err, HasSubstr("line 2"));
  EXPECT_EQ(submit_raw(system, "[]").status, 2);
  EXPECT_EQ(system.ctl({"submit", "/nowhere/at/all.json"}).status, 2);
  EXPECT_EQ(system.ctl({"status", "99"}).status, 2);
  EXPECT_EQ(system.ctl({"query", "delete from trials"}).status, 2);
  EXPECT_EQ(system.ctl({"query", "selct"}).status, 2);
  EXPECT_EQ(system.ctl({"frobnicate"}).status, 2);
  EXPECT_EQ(system.sql("select count(*) from studies")[0][0], 0);
  EXPECT_EQ(system.stop(), 0);
}

TEST(BadStudyTest, ADatasetOutsideTheRootsOrWithoutFeaturesIsNamed) {
  System system;
  system.start(0);
  json study = System::small_study();
  study["dataset"] = "/etc/passwd";
  EXPECT_THAT(submit_raw(system, study.dump()).err, HasSubstr("data roots"));
  study["dataset"] = "../outside.json";
  EXPECT_EQ(submit_raw(system, study.dump()).status, 2);
  study["dataset"] = "nothing.json";
  EXPECT_THAT(submit_raw(system, study.dump()).err, HasSubstr("nothing.json"));
  write_atomically(system.folder() / "bare/dataset.json", "{\"format\": \"fusiond-dataset-1\"}");
  study["dataset"] = "bare/dataset.json";
  EXPECT_THAT(submit_raw(system, study.dump()).err, HasSubstr("fusion-data extract"));
  testing::write_small_features(system.folder() / "plain", {.logits = false});
  study["dataset"] = "plain/features.json";
  study["training"]["multitask"] = true;
  EXPECT_THAT(submit_raw(system, study.dump()).err, HasSubstr("multitask"));
  EXPECT_EQ(system.stop(), 0);
}

/// Submits a small random study on features that `spoil` changes after the submission, and returns the text its trials failed with.
std::string failure_text(const std::function<void(const std::filesystem::path&)>& spoil) {
  System system;
  system.start(0);
  json study = System::small_study();
  study["strategy"] = {{"name", "random"}, {"trials", 2}};
  study["retries"] = 0;
  const auto id = system.submit(study);
  spoil(system.folder() / "features");
  testing::Process worker({testing::program("fusion-worker"), "--name", "w"}, system.options());
  EXPECT_EQ(system.wait_for(id), "completed");
  EXPECT_EQ(system.sql("select count(*) from trials where state = 'failed'")[0][0], 2);
  EXPECT_TRUE(worker.running()) << "a failed trial must not take the worker down";
  const std::string text = system.sql("select error from trials limit 1")[0][0].get<std::string>();
  EXPECT_EQ(system.stop(), 0);
  return text;
}

TEST(BadFeaturesTest, AChangedDatasetFailsTheTrialWithASentence) {
  const std::string text = failure_text([](const std::filesystem::path& folder) { testing::write_small_features(folder, {.seed = 99}); });
  EXPECT_THAT(text, AllOf(HasSubstr("features.json"), HasSubstr("digest")));
}

TEST(BadFeaturesTest, ATruncatedFileFailsTheTrialWithASentence) {
  const std::string text = failure_text([](const std::filesystem::path& folder) {
    const auto file = folder / "train-audio-small.safetensors";
    std::filesystem::resize_file(file, std::filesystem::file_size(file) / 2);
  });
  EXPECT_THAT(text, HasSubstr("train-audio-small.safetensors"));
}

TEST(BadFeaturesTest, AMissingFileFailsTheTrialWithASentence) {
  const std::string text =
      failure_text([](const std::filesystem::path& folder) { std::filesystem::remove(folder / "dev-labels-small.safetensors"); });
  EXPECT_THAT(text, HasSubstr("dev-labels-small.safetensors"));
}

TEST(BadStartTest, APortInUseASecondDaemonAndOddOptionsExitTwoWithASentence) {
  System system;
  system.start(0);
  const auto url = system.options().environment.at("FUSION_URL");
  const std::string address = url.substr(7);
  const std::string fusiond = testing::program("fusiond");
  const auto attempt = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), fusiond);
    return testing::run(arguments, system.options(), std::chrono::seconds(20));
  };
  Finished finished = attempt({"--db", "other.db", "--listen", address, "--loopback", "same_user"});
  EXPECT_EQ(finished.status, 2);
  EXPECT_THAT(finished.err, HasSubstr(address));
  finished = attempt({"--db", "third.db", "--listen", "127.0.0.1:0"});
  EXPECT_EQ(finished.status, 2) << "who needs no token must be chosen";
  EXPECT_THAT(finished.err, HasSubstr("--loopback same_user"));
  finished = attempt({"--db", "third.db", "--listen", "0.0.0.0:0", "--loopback", "same_user"});
  EXPECT_EQ(finished.status, 2);
  EXPECT_THAT(finished.err, AllOf(HasSubstr("fusionctl certs"), HasSubstr("fusionctl tokens add")));
  EXPECT_EQ(attempt({"--db", "third.db", "--loopback", "everybody"}).status, 2);
  finished = attempt({"--db", "fusion.db", "--listen", "127.0.0.1:0", "--loopback", "same_user"});
  EXPECT_EQ(finished.status, 2);
  EXPECT_THAT(finished.err, HasSubstr("fusion.db"));
  EXPECT_EQ(attempt({"--db", "third.db", "--listen", "0.0.0.0:0", "--tokens", "absent.json"}).status, 2);
  EXPECT_EQ(attempt({"--db", "third.db", "--listen", "nonsense", "--loopback", "same_user"}).status, 2);
  EXPECT_EQ(attempt({"--db", "third.db", "--log-level", "loud", "--loopback", "same_user"}).status, 2);
  EXPECT_EQ(attempt({"--no-such-option"}).status, 2);
  EXPECT_EQ(attempt({"--config", "absent.json"}).status, 2);
  write_atomically(system.folder() / "daemon.json", R"({"lease_s": "long", "lisen": "x"})");
  finished = attempt({"--config", "daemon.json"});
  EXPECT_EQ(finished.status, 2);
  EXPECT_THAT(finished.err, AllOf(HasSubstr("/lease_s"), HasSubstr("did you mean \"listen\"")));
  EXPECT_FALSE(std::filesystem::exists(system.folder() / "third.db"));
  EXPECT_TRUE(system.daemon().running());
  EXPECT_EQ(system.stop(), 0);
}

TEST(BadStartTest, ANewerOrForeignOrCorruptDatabaseIsRefused) {
  System system;
  const std::string fusiond = testing::program("fusiond");
  const auto start_on = [&](const std::string& db) {
    return testing::run({fusiond, "--db", db, "--listen", "127.0.0.1:0", "--loopback", "same_user"}, system.options(), std::chrono::seconds(20));
  };
  write_atomically(system.folder() / "text.db", std::string(5'000, 'x'));
  Finished finished = start_on("text.db");
  EXPECT_EQ(finished.status, 2);
  EXPECT_THAT(finished.err, HasSubstr("text.db"));

  system.start(0);
  EXPECT_EQ(system.stop(), 0);
  {
    // user_version lies at byte 60 of the file, big-endian
    std::fstream file(system.folder() / "fusion.db", std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(60);
    file.write("\x00\x00\x03\xe7", 4);
  }
  const std::string before = read_text(system.folder() / "fusion.db");
  finished = start_on("fusion.db");
  EXPECT_EQ(finished.status, 2);
  EXPECT_THAT(finished.err, HasSubstr("999"));
  EXPECT_EQ(read_text(system.folder() / "fusion.db"), before) << "a refused database must not be touched";
}

TEST(BadWorkerTest, NoDaemonTwoDevicesNoSuchOption) {
  System system;
  EXPECT_EQ(testing::run({testing::program("fusion-worker"), "--device", "tpu:0"}, system.options()).status, 2);
  EXPECT_EQ(testing::run({testing::program("fusion-worker"), "--slots", "0"}, system.options()).status, 2);
  EXPECT_EQ(testing::run({testing::program("fusion-worker"), "--connect", "ftp://x"}, system.options()).status, 2);
  const Finished unreachable = testing::run({testing::program("fusionctl"), "--url", "http://127.0.0.1:1", "list"}, system.options());
  EXPECT_EQ(unreachable.status, 1);
  EXPECT_THAT(unreachable.err, HasSubstr("127.0.0.1:1"));
}

}  // namespace
}  // namespace fusion
