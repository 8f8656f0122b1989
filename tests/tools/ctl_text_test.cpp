#include "tools/ctl/text.h"

#include <gtest/gtest.h>

namespace fusion::ctl {
namespace {

TEST(TextTest, WidthCountsColumnsNotBytes) {
  EXPECT_EQ(display_width(""), 0u);
  EXPECT_EQ(display_width("abc"), 3u);
  EXPECT_EQ(display_width("Zürich"), 6u);
  EXPECT_EQ(display_width("e\u0301"), 1u);   // e and a combining accent
  EXPECT_EQ(display_width("研究"), 4u);
  EXPECT_EQ(display_width("한글"), 4u);
  EXPECT_EQ(display_width("🙂"), 2u);
  EXPECT_EQ(display_width("▁█"), 2u);
}

TEST(TextTest, InvalidBytesCountOneColumnEach) {
  EXPECT_EQ(display_width("\xff\xfe"), 2u);
  EXPECT_EQ(display_width("a\xc3"), 2u);           // cut
  EXPECT_EQ(display_width("\xc0\xaf"), 2u);        // overlong
  EXPECT_EQ(display_width("\xe0\x80\xaf"), 3u);    // overlong
  EXPECT_EQ(display_width("\xed\xa0\x80"), 3u);    // surrogate
  EXPECT_EQ(display_width("\xf5\x80\x80\x80"), 4u);  // beyond U+10FFFF
}

TEST(TextTest, CutsWholeCharactersAndShowsIt) {
  EXPECT_EQ(truncated("abcdef", 6), "abcdef");
  EXPECT_EQ(truncated("abcdef", 5), "abcd…");
  EXPECT_EQ(truncated("abcdef", 1), "…");
  EXPECT_EQ(truncated("abcdef", 0), "");
  EXPECT_EQ(truncated("研究計画", 5), "研究…");
  EXPECT_EQ(truncated("研究計画", 4), "研…");  // half of a wide character is not shown
  EXPECT_EQ(truncated("e\u0301e\u0301e\u0301", 2), "e\u0301…");
}

TEST(TextTest, NeverGetsWiderThanAsked) {
  const std::string text = "a研e\u0301🙂\xff" "bcd";
  for (std::size_t width = 0; width <= 12; ++width) EXPECT_LE(display_width(truncated(text, width)), width) << width;
}

TEST(TextTest, PadsOnTheSideThatIsFree) {
  EXPECT_EQ(padded("ü", 3, Align::left), "ü  ");
  EXPECT_EQ(padded("研", 3, Align::right), " 研");
  EXPECT_EQ(padded("abcd", 3, Align::left), "abcd");
}

TEST(TextTest, TextsFromTheNetworkCannotSteerATerminal) {
  EXPECT_EQ(one_line("a\nb\tc\r\nd\re"), "a b c d e");
  EXPECT_EQ(one_line("\033[2J\a"), "\uFFFD[2J\uFFFD");
  EXPECT_EQ(one_line("\u009b2J"), "\uFFFD2J");        // CSI as one character of C1
  EXPECT_EQ(one_line("abc\u202Edcb"), "abc\uFFFDdcb");  // right-to-left override
  EXPECT_EQ(one_line("x\xff"), "x\uFFFD");
  EXPECT_EQ(one_line("Zürich 研究"), "Zürich 研究");
}

}  // namespace
}  // namespace fusion::ctl
