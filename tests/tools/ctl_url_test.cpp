#include <gtest/gtest.h>

#include "tools/ctl/http_client.h"

namespace fusion::ctl {
namespace {

TEST(UrlTest, ReadsHostPortAndPrefix) {
  EXPECT_EQ(Url::parse("http://localhost").text(), "http://localhost:7878");
  EXPECT_EQ(Url::parse("http://127.0.0.1:80/").text(), "http://127.0.0.1:80");
  EXPECT_EQ(Url::parse("http://gpu01:9000/fusion/").prefix, "/fusion");
  EXPECT_EQ(Url::parse("http://[::1]:9000").host, "::1");
  EXPECT_EQ(Url::parse("http://[::1]").text(), "http://[::1]:7878");
  EXPECT_EQ(Url::parse("https://gpu01/x").text(), "https://gpu01:7878/x");
  EXPECT_TRUE(Url::parse("https://gpu01").tls);
  EXPECT_FALSE(Url::parse("http://gpu01").tls);
}

TEST(UrlTest, RefusesWhatIsNoUrlOfADaemon) {
  for (const char* text : {"", "localhost", "ftp://localhost", "https://", "http://", "http://:80", "http://a:0", "http://a:65536", "http://a:x",
                           "http://a:", "http://[::1", "http://[::1]x", "http://u@a", "http://a b", "http://a/?q", "http://a:-1"}) {
    EXPECT_THROW(Url::parse(text), ConfigError) << text;
  }
}

}  // namespace
}  // namespace fusion::ctl
