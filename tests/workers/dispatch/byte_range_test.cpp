#include "workers/dispatch/byte_range.h"

#include <gtest/gtest.h>

namespace fusion {
namespace {

using Kind = ByteRange::Kind;

ByteRange of(std::string_view range, std::uint64_t size, std::string_view if_range = "") { return read_byte_range(range, if_range, "\"d\"", size); }

TEST(ByteRangeTest, APartIsWhatTheHeaderSays) {
  EXPECT_EQ(of("bytes=0-0", 10), (ByteRange{Kind::part, 0, 1}));
  EXPECT_EQ(of("bytes=3-6", 10), (ByteRange{Kind::part, 3, 4}));
  EXPECT_EQ(of("bytes=3-", 10), (ByteRange{Kind::part, 3, 7}));
  EXPECT_EQ(of(" bytes=3-99 ", 10), (ByteRange{Kind::part, 3, 7}));
  EXPECT_EQ(of("bytes=-4", 10), (ByteRange{Kind::part, 6, 4}));
  EXPECT_EQ(of("bytes=-99", 10), (ByteRange{Kind::part, 0, 10}));
  EXPECT_EQ(of("bytes=3-6", 10).content_range(10), "bytes 3-6/10");
}

TEST(ByteRangeTest, BehindTheEndThereIsNothing) {
  for (const char* range : {"bytes=10-", "bytes=10-20", "bytes=-0"}) EXPECT_EQ(of(range, 10).kind, Kind::outside) << range;
  EXPECT_EQ(of("bytes=0-", 0).kind, Kind::outside);
  EXPECT_EQ(of("bytes=-5", 0).kind, Kind::outside);
  EXPECT_EQ(of("bytes=10-", 10).content_range(10), "bytes */10");
}

TEST(ByteRangeTest, WhatMayBeIgnoredIs) {
  for (const char* range : {"", "bytes", "bytes=", "bytes=-", "bytes=a-b", "bytes=5-3", "bytes=1-2,4-5", "lines=1-2", "bytes=1", "bytes=+1-2",
                            "bytes=99999999999999999999-"}) {
    EXPECT_EQ(of(range, 10), (ByteRange{Kind::whole, 0, 10})) << range;
  }
}

TEST(ByteRangeTest, AFileThatIsAnotherNowIsSentWhole) {
  EXPECT_EQ(of("bytes=3-", 10, "\"d\"").kind, Kind::part);
  EXPECT_EQ(of("bytes=3-", 10, "\"other\"").kind, Kind::whole);
  EXPECT_EQ(of("bytes=3-", 10, "Sun, 06 Nov 1994 08:49:37 GMT").kind, Kind::whole);
}

}  // namespace
}  // namespace fusion
