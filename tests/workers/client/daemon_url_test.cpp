#include "workers/client/daemon_url.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

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
  EXPECT_EQ(parse_daemon_url("https://gpu7:1"), (DaemonUrl{"gpu7", "1", "", true}));
  EXPECT_EQ(parse_daemon_url("wss://gpu7:1"), parse_daemon_url("https://gpu7:1"));
}

TEST(DaemonUrlTest, SaysWhereToConnect) {
  EXPECT_EQ(parse_daemon_url("ws://[::1]:80/").authority(), "[::1]:80");
  EXPECT_EQ(parse_daemon_url("http://proxy/fusion").target(), "/fusion/api/v1/worker");
  EXPECT_EQ(parse_daemon_url("http://127.0.0.1:1").text(), "http://127.0.0.1:1");
  EXPECT_EQ(parse_daemon_url("wss://a:1/b").text(), "https://a:1/b");
}

TEST(DaemonUrlTest, RefusesWhatItCannotReach) {
  for (const char* text : {"", "127.0.0.1:7878", "ftp://x", "wws://x", "http://", "https://", "http://:1", "http://x:0", "http://x:65536",
                           "http://x:12a", "http://x:", "http://[::1", "http://[::1]7", "http://a@b", "http://x/?y", "http://a b"}) {
    EXPECT_THAT([&] { parse_daemon_url(text); },
                ThrowsMessage<ConfigError>(AllOf(HasSubstr(std::string("\"") + text + "\""), HasSubstr("expected http://"))))
        << text;
  }
}

}  // namespace
}  // namespace fusion
