#include "workers/dispatch/request_head.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace fusion {
namespace {

using ::testing::ElementsAre;
using ::testing::Pair;

TEST(RequestHeadTest, DecodesPathAndQuery) {
  HttpRequest request;
  ASSERT_TRUE(read_target("/api/a%20b+c?x=1&y=%C3%A4+z&flag&=e&x=2&&q=a%3Db%26c", request));
  EXPECT_EQ(request.path, "/api/a b+c");
  EXPECT_THAT(request.query, ElementsAre(Pair("", "e"), Pair("flag", ""), Pair("q", "a=b&c"), Pair("x", "2"),
                                         Pair("y", "\xC3\xA4 z")));
}

TEST(RequestHeadTest, RefusesTargetsThatCannotBeDecoded) {
  for (const char* target : {"", "*", "http://x/y", "/a%", "/a%2", "/a%zz", "/a%00b", "/a?b=%0", "/a?%xx=1"}) {
    HttpRequest request;
    EXPECT_FALSE(read_target(target, request)) << target;
  }
}

TEST(RequestHeadTest, OnlyItsOwnNamesAndPagesAreServed) {
  for (const char* host : {"localhost", "LocalHost:80", "127.0.0.1:7878", "[::1]:7878", "[::1]", "10.0.0.5:1", ""}) {
    EXPECT_EQ(refusal_of(host, "", "10.0.0.5"), std::nullopt) << host;
  }
  for (const char* host : {"evil.example", "evil.example:7878", "127.0.0.1.evil.example", "localhost.evil", "[::2]", "10.0.0.6"}) {
    EXPECT_NE(refusal_of(host, "", "10.0.0.5"), std::nullopt) << host;
  }
  EXPECT_EQ(refusal_of("localhost:7878", "http://localhost:7878", "127.0.0.1"), std::nullopt);
  for (const char* origin : {"null", "http://evil.example", "http://localhost", "http://localhost:7879", "https://localhost:7878"}) {
    EXPECT_NE(refusal_of("localhost:7878", origin, "127.0.0.1"), std::nullopt) << origin;
  }
}

}  // namespace
}  // namespace fusion
