#include "base/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/error.h"
#include "base/files.h"
#include "tests/temporary_folder.h"

namespace fusion {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using ::testing::Not;

class LogTest : public ::testing::Test {
 protected:
  ~LogTest() override { configure_logs("info"); }
  LogOptions to_file() {
    LogOptions options;
    options.file = file_.string();
    return options;
  }
  testing::TemporaryFolder folder_;
  const fs::path file_ = folder_ / "daemon.log";
};

TEST_F(LogTest, GoesToAFileAndIsAppended) {
  write_atomically(file_, "before\n");
  configure_logs(to_file());
  logger("log_test")->info("trial leased trial={}", 42);
  logger("log_test")->debug("not at this level");
  const std::string text = read_text(file_);
  EXPECT_THAT(text, MatchesRegex("before\n20[-0-9T:.]+Z \\[info\\] \\[log_test\\] trial leased trial=42\n"));
}

TEST_F(LogTest, IsOpenedAnewUnderItsNameAndNothingIsLostMeanwhile) {
  configure_logs(to_file());
  logger("log_test")->info("first");
  fs::rename(file_, folder_ / "daemon.log.1");
  logger("log_test")->info("second");
  reopen_logs();
  logger("log_test")->info("third");
  EXPECT_THAT(read_text(folder_ / "daemon.log.1"), AllOf(HasSubstr("first"), HasSubstr("second"), Not(HasSubstr("third"))));
  EXPECT_THAT(read_text(file_), AllOf(HasSubstr("third"), Not(HasSubstr("second"))));
}

TEST_F(LogTest, StaysInTheOldFileWhereANewOneCannotBeMade) {
  const fs::path below = folder_ / "logs";
  fs::create_directory(below);
  LogOptions options;
  options.file = (below / "daemon.log").string();
  configure_logs(options);
  fs::rename(below, folder_ / "moved");
  write_atomically(below, "a file where the folder was");
  reopen_logs();
  logger("log_test")->info("still here");
  EXPECT_THAT(read_text(folder_ / "moved/daemon.log"), AllOf(HasSubstr("log file not opened again"), HasSubstr("still here")));
}

TEST_F(LogTest, IsRotatedByItselfAndKeepsSoManyFiles) {
  LogOptions options = to_file();
  options.max_mb = 1;
  options.files = 2;
  configure_logs(options);
  const std::string line(10'000, 'x');
  for (int i = 0; i < 450; ++i) logger("log_test")->info("line={} {}", i, line);
  EXPECT_THAT(read_text(file_), HasSubstr("line=449 "));
  EXPECT_TRUE(fs::exists(folder_ / "daemon.1.log"));
  EXPECT_TRUE(fs::exists(folder_ / "daemon.2.log"));
  EXPECT_FALSE(fs::exists(folder_ / "daemon.3.log")) << "the oldest is gone";
  for (const auto& entry : fs::directory_iterator(folder_.path())) EXPECT_LE(fs::file_size(entry), 1u << 20) << entry.path();
}

TEST_F(LogTest, IsOneJsonObjectALineWhereWanted) {
  LogOptions options = to_file();
  options.json = true;
  configure_logs(options);
  logger("log_test")->warn("it said \"no\"\nand \xff");
  const auto line = nlohmann::json::parse(read_text(file_));
  EXPECT_EQ(line.at("level"), "warning");
  EXPECT_EQ(line.at("logger"), "log_test");
  EXPECT_EQ(line.at("text"), "it said \"no\"\nand \xef\xbf\xbd");
  EXPECT_THAT(line.at("at").get<std::string>(), HasSubstr("Z"));
}

TEST_F(LogTest, AFullDiskStopsNobodyAndWhatComesAfterIsWritten) {
  configure_logs(to_file());
  rlimit old{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &old), 0);
  ::signal(SIGXFSZ, SIG_IGN);
  rlimit small = old;
  small.rlim_cur = 1000;
  ::setrlimit(RLIMIT_FSIZE, &small);
  for (int i = 0; i < 100; ++i) logger("log_test")->info("line={} {}", i, std::string(100, 'x'));
  ::setrlimit(RLIMIT_FSIZE, &old);
  ::signal(SIGXFSZ, SIG_DFL);
  EXPECT_LE(fs::file_size(file_), 1000u);
  logger("log_test")->info("there is room again");
  EXPECT_THAT(read_text(file_), HasSubstr("there is room again"));
}

TEST_F(LogTest, WhatCannotBeIsRefusedInASentence) {
  LogOptions options;
  options.level = "loud";
  EXPECT_THROW(configure_logs(options), ConfigError);
  options = to_file();
  options.file = (folder_ / "absent/daemon.log/").string();
  try {
    configure_logs(options);
    FAIL() << "a folder is no file";
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(), AllOf(HasSubstr("absent/daemon.log/"), HasSubstr("name one in a folder that this user may write")));
  }
}

TEST_F(LogTest, OpensAnewWhileOthersLog) {
  configure_logs(to_file());
  std::vector<std::jthread> writers;
  for (int i = 0; i < 3; ++i) {
    writers.emplace_back([i] {
      for (int n = 0; n < 500; ++n) logger("log_test")->info("writer={} n={}", i, n);
    });
  }
  for (int i = 0; i < 20; ++i) {
    fs::rename(file_, folder_ / ("daemon.log." + std::to_string(i)));
    reopen_logs();
  }
  writers.clear();
  std::size_t lines = 0;
  for (const auto& entry : fs::directory_iterator(folder_.path())) {
    const std::string text = read_text(entry.path());
    lines += static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n'));
  }
  EXPECT_EQ(lines, 1500u);
}

}  // namespace
}  // namespace fusion
