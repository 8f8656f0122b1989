#include "security/tokens.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <set>

#include "base/error.h"
#include "base/files.h"
#include "tests/temporary_folder.h"

namespace fusion {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

TEST(TokensTest, ATokenIsFoundByItsTextAndByNothingElse) {
  TokenTable table;
  const IssuedToken a = issue_token(Role::submit, "alice", 1), b = issue_token(Role::worker, "gpu7", 2);
  table.add(a.record);
  table.add(b.record);
  ASSERT_TRUE(table.find(a.text));
  EXPECT_EQ(table.find(a.text)->name, "alice");
  EXPECT_EQ(table.find(b.text)->role, Role::worker);
  std::string other = a.text;
  for (std::size_t i = 0; i < other.size(); ++i) {  // each single character counts
    const char kept = other[i];
    other[i] = kept == '0' ? '1' : '0';
    EXPECT_FALSE(table.find(other)) << i;
    other[i] = kept;
  }
  const std::string mixed = a.text.substr(0, 24) + b.text.substr(24);
  for (const std::string& text : {std::string(), a.text + "0", a.text.substr(1), a.record.id, "fusion_" + a.record.id + "_" + a.record.sha256,
                                  mixed, issue_token(Role::submit, "alice", 1).text, std::string(100'000, 'f')}) {
    EXPECT_FALSE(table.find(text)) << text.substr(0, 100);
  }
  EXPECT_TRUE(table.remove(a.record.id));
  EXPECT_FALSE(table.remove(a.record.id));
  EXPECT_FALSE(table.find(a.text));
}

TEST(TokensTest, NoTwoTokensAreAlike) {
  std::set<std::string> texts, salts;
  for (int i = 0; i < 1000; ++i) {
    const IssuedToken token = issue_token(Role::read, "n", 0);
    texts.insert(token.text);
    salts.insert(token.record.salt);
  }
  EXPECT_EQ(texts.size(), 1000u);
  EXPECT_EQ(salts.size(), 1000u);
}

TEST(TokensTest, TheFileKeepsWhatRecognisesATokenAndNotTheToken) {
  testing::TemporaryFolder folder;
  const auto file = folder / "secret/tokens.json";
  TokenTable table;
  const IssuedToken token = issue_token(Role::read, "for the wall \"screen\"", 5);
  table.add(token.record);
  table.save(file);
  struct stat status {};
  ASSERT_EQ(::stat(file.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0600u);
  const std::string secret = token.text.substr(token.text.size() - 64);
  EXPECT_THAT(read_text(file), ::testing::Not(HasSubstr(secret)));
  const TokenTable again = TokenTable::load(file);
  EXPECT_EQ(again.list(), table.list());
  EXPECT_TRUE(again.find(token.text));
}

TEST(TokensTest, FilesThatOthersMayReadOrThatAreWrongAreRefusedInSentences) {
  testing::TemporaryFolder folder;
  const auto file = folder / "tokens.json";
  TokenTable().save(file);
  EXPECT_EQ(TokenTable::load(file).size(), 0u);
  for (const mode_t mode : {0644, 0640, 0602, 0620}) {
    ::chmod(file.c_str(), mode);
    EXPECT_THAT([&] { TokenTable::load(file); }, ThrowsMessage<ConfigError>(HasSubstr("expected 0600")));
  }
  EXPECT_THROW(TokenTable::load(folder / "none"), DataError);
  write_atomically(file, R"({"version": 1, "tokens": [{"id": "X", "role": "admin", "name": "n", "salt": "", "sha256": "0", "token": 1}]})");
  ::chmod(file.c_str(), 0600);
  try {
    TokenTable::load(file);
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_GE(error.problems().size(), 5u) << error.what();
    EXPECT_THAT(error.what(), HasSubstr("/tokens/0/role: expected one of read, submit, worker, got \"admin\""));
  }
}

}  // namespace
}  // namespace fusion
