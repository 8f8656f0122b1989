// Tokens of pools of workers: real files and a real table of tokens.
#include "tools/pool_token.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <optional>
#include <string>

#include "security/access.h"
#include "security/private_file.h"
#include "tests/temporary_folder.h"

namespace fusion {
namespace {

using testing::TemporaryFolder;
using ::testing::HasSubstr;
using ::testing::StartsWith;
using std::chrono::milliseconds;

class PoolTokenTest : public ::testing::Test {
 protected:
  std::string issue(Role role) {
    const IssuedToken token = issue_token(role, "x", 1);
    table_.add(token.record);
    table_.save(tokens_);
    access_.reload();
    return token.text;
  }
  void ask(const std::string& text, mode_t mode = 0600) {
    write_private(file_, text + "\n", true);
    ASSERT_EQ(::chmod(file_.c_str(), mode), 0);
    checked_.reset();
    pool_tokens_.check(file_, [this](std::string problem) { checked_ = std::move(problem); });
  }
  std::string answer() {
    for (int i = 0; i < 6000 && !checked_; ++i) io_.run_one_for(milliseconds(10));
    return checked_.value_or("no answer");
  }
  TokenTable empty_table() {
    TokenTable().save(tokens_);
    return {};
  }

  TemporaryFolder folder_;
  const std::string tokens_ = folder_ / "tokens.json", file_ = folder_ / "worker.token";
  TokenTable table_ = empty_table();
  Access access_{tokens_, LoopbackRule::token};
  asio::io_context io_{1};
  const asio::executor_work_guard<asio::io_context::executor_type> stay_ = asio::make_work_guard(io_);
  std::optional<std::string> checked_;
  PoolTokens pool_tokens_{io_, access_};
};

TEST_F(PoolTokenTest, WhoWouldBeTurnedAwayIsSaidInASentence) {
  const std::string worker = issue(Role::worker), reader = issue(Role::read);
  ask(worker);
  EXPECT_EQ(answer(), "");
  ask(reader);
  EXPECT_THAT(answer(), StartsWith("token_file " + file_ + ": "));
  ask(worker.substr(0, worker.size() - 1));
  EXPECT_THAT(answer(), HasSubstr("is not known to this daemon, or was revoked; nothing is launched until"));
  ask(worker, 0644);
  EXPECT_THAT(answer(), HasSubstr("others may read or write this file of a token"));
}

TEST_F(PoolTokenTest, ADiskThatDoesNotAnswerKeepsNobodyWaiting) {
  const std::string worker = issue(Role::worker);
  ASSERT_EQ(::mkfifo(file_.c_str(), 0600), 0) << "who reads it waits for a writer";
  pool_tokens_.check(file_, [this](std::string problem) { checked_ = std::move(problem); });
  bool served = false;
  asio::post(io_, [&served] { served = true; });
  io_.run_for(milliseconds(50));
  EXPECT_TRUE(served);
  EXPECT_FALSE(checked_);
  const int fd = ::open(file_.c_str(), O_WRONLY | O_CLOEXEC);
  ASSERT_EQ(::write(fd, worker.data(), worker.size()), static_cast<ssize_t>(worker.size()));
  ::close(fd);
  EXPECT_EQ(answer(), "");
}

TEST_F(PoolTokenTest, WhatCountsIsTheTableWhenTheFileHasBeenRead) {
  const std::string worker = issue(Role::worker);
  ask(worker);
  pool_tokens_.join();
  TokenTable().save(tokens_);
  access_.reload();
  EXPECT_THAT(answer(), HasSubstr("was revoked"));
}

}  // namespace
}  // namespace fusion
