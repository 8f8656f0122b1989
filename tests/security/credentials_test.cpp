#include "security/credentials.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>

#include "base/error.h"
#include "base/files.h"
#include "tests/temporary_folder.h"

namespace fusion {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

TEST(TokenToShowTest, ComesFromTheFileOrTheEnvironment) {
  testing::TemporaryFolder folder;
  write_atomically(folder / "token", "s3cret\nsecond line\n");
  ::chmod((folder / "token").c_str(), 0600);
  ::setenv("FUSION_TOKEN", "other", 1);
  EXPECT_EQ(token_to_show(folder / "token"), "s3cret");
  EXPECT_EQ(token_to_show(""), "other");
  ::setenv("FUSION_TOKEN_FILE", (folder / "token").c_str(), 1);
  EXPECT_EQ(token_to_show(""), "other");
  ::unsetenv("FUSION_TOKEN");
  EXPECT_EQ(token_to_show(""), "s3cret");
  ::unsetenv("FUSION_TOKEN_FILE");
  EXPECT_EQ(token_to_show(""), "");
}

TEST(TokenToShowTest, RefusesFilesThatOthersMayRead) {
  testing::TemporaryFolder folder;
  write_atomically(folder / "token", "s3cret\n");
  ::chmod((folder / "token").c_str(), 0644);
  EXPECT_THAT([&] { token_to_show(folder / "token"); },
              ThrowsMessage<ConfigError>(AllOf(HasSubstr("0644"), HasSubstr("expected 0600"))));
}

TEST(TokenToShowTest, RefusesWhatWouldBreakTheHeader) {
  ::setenv("FUSION_TOKEN", "a\r\nX-Other: b", 1);
  EXPECT_THROW(token_to_show(""), ConfigError);
  ::unsetenv("FUSION_TOKEN");
}

TEST(HiddenTokenTest, NoTokenLeavesThisMachineInTheClear) {
  EXPECT_NO_THROW(require_hidden_token("", false, "gpu7", "http://gpu7:1"));
  EXPECT_NO_THROW(require_hidden_token("t", true, "gpu7", "https://gpu7:1"));
  for (const char* host : {"localhost", "127.0.0.1", "::1", "127.3.2.1"}) EXPECT_NO_THROW(require_hidden_token("t", false, host, "")) << host;
  for (const char* host : {"gpu7", "10.0.0.1", "localhost.example", "::2"}) {
    EXPECT_THAT([&] { require_hidden_token("t", false, host, "http://there"); },
                ThrowsMessage<ConfigError>(AllOf(HasSubstr("http://there"), HasSubstr("https://"))));
  }
}

}  // namespace
}  // namespace fusion
