#include "workers/client/daemon_url.h"

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

TEST(DaemonUrlTest, ReadsHostPortAndPrefix) {
  EXPECT_EQ(parse_daemon_url("http://127.0.0.1:7878"), (DaemonUrl{"127.0.0.1", "7878", ""}));
  EXPECT_EQ(parse_daemon_url("ws://gpu7"), (DaemonUrl{"gpu7", "7878", ""}));
  EXPECT_EQ(parse_daemon_url("ws://[::1]:80/"), (DaemonUrl{"::1", "80", ""}));
  EXPECT_EQ(parse_daemon_url("http://proxy:8080/fusion/"), (DaemonUrl{"proxy", "8080", "/fusion"}));
}

TEST(DaemonUrlTest, SaysWhereToConnect) {
  EXPECT_EQ(parse_daemon_url("ws://[::1]:80/").authority(), "[::1]:80");
  EXPECT_EQ(parse_daemon_url("http://proxy/fusion").target(), "/fusion/api/v1/worker");
  EXPECT_EQ(parse_daemon_url("http://127.0.0.1:1").text(), "http://127.0.0.1:1");
}

TEST(DaemonUrlTest, RefusesWhatItCannotReach) {
  for (const char* text : {"", "127.0.0.1:7878", "ftp://x", "https://x", "http://", "http://:1", "http://x:0", "http://x:65536",
                           "http://x:12a", "http://x:", "http://[::1", "http://[::1]7", "http://a@b", "http://x/?y", "http://a b"}) {
    EXPECT_THAT([&] { parse_daemon_url(text); },
                ThrowsMessage<ConfigError>(AllOf(HasSubstr(std::string("\"") + text + "\""), HasSubstr("expected http://"))))
        << text;
  }
}

TEST(WorkerTokenTest, ComesFromTheFileOrTheEnvironment) {
  testing::TemporaryFolder folder;
  write_atomically(folder / "token", "s3cret\nsecond line\n");
  ::chmod((folder / "token").c_str(), 0600);
  ::setenv("FUSION_TOKEN", "other", 1);
  EXPECT_EQ(worker_token(folder / "token"), "s3cret");
  EXPECT_EQ(worker_token(""), "other");
  ::unsetenv("FUSION_TOKEN");
  EXPECT_EQ(worker_token(""), "");
}

TEST(WorkerTokenTest, RefusesFilesThatOthersMayRead) {
  testing::TemporaryFolder folder;
  write_atomically(folder / "token", "s3cret\n");
  ::chmod((folder / "token").c_str(), 0644);
  EXPECT_THAT([&] { worker_token(folder / "token"); },
              ThrowsMessage<ConfigError>(AllOf(HasSubstr("0644"), HasSubstr("expected 0600"))));
}

TEST(WorkerTokenTest, RefusesWhatWouldBreakTheHeader) {
  ::setenv("FUSION_TOKEN", "a\r\nX-Other: b", 1);
  EXPECT_THROW(worker_token(""), ConfigError);
  ::unsetenv("FUSION_TOKEN");
}

}  // namespace
}  // namespace fusion
