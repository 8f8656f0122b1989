#include "tools/ctl/figures.h"

#include <gtest/gtest.h>

#include <cmath>

namespace fusion::ctl {
namespace {

using nlohmann::json;

TEST(SparklineTest, SpansLowestToHighest) {
  EXPECT_EQ(sparkline({}), "");
  EXPECT_EQ(sparkline({0.0, 1.0}), "▁█");
  EXPECT_EQ(sparkline({0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0}), "▁▂▃▄▅▆▇█");
  EXPECT_EQ(sparkline({-3.0, -5.0}), "█▁");
}

TEST(SparklineTest, EqualValuesStandHalfHighAndAbsentOnesAreBlank) {
  EXPECT_EQ(sparkline({0.5, 0.5}), "▅▅");
  EXPECT_EQ(sparkline({0.0, std::nullopt, 1.0}), "▁ █");
  EXPECT_EQ(sparkline({0.0, NAN, INFINITY, 1.0}), "▁  █");
  EXPECT_EQ(sparkline({std::nullopt, NAN}), "  ");
}

TEST(DurationTest, IsFineWhereShortAndCoarseWhereLong) {
  EXPECT_EQ(duration(0), "0.00 s");
  EXPECT_EQ(duration(0.834), "0.83 s");
  EXPECT_EQ(duration(0.999), "1.0 s");
  EXPECT_EQ(duration(7.44), "7.4 s");
  EXPECT_EQ(duration(9.96), "10 s");
  EXPECT_EQ(duration(42), "42 s");
  EXPECT_EQ(duration(185), "3 min 05 s");
  EXPECT_EQ(duration(7620), "2 h 07 min");
  EXPECT_EQ(duration(3 * 86400 + 4 * 3600 + 59), "3 d 04 h");
}

TEST(DurationTest, UnknownOrSenselessIsAbsent) {
  EXPECT_EQ(duration(std::nullopt), "-");
  EXPECT_EQ(duration(-1), "-");
  EXPECT_EQ(duration(INFINITY), "-");
  EXPECT_EQ(duration(NAN), "-");
}

TEST(FiguresTest, Texts) {
  EXPECT_EQ(score_text(0.91), "0.9100");
  EXPECT_EQ(score_text(std::nullopt), "-");
  EXPECT_EQ(figure_text(0.000123456), "0.0001235");
  EXPECT_EQ(grouped("837930"), "837,930");
  EXPECT_EQ(grouped("1"), "1");
  EXPECT_EQ(grouped("123"), "123");
  EXPECT_EQ(grouped("-1234"), "-1,234");
  EXPECT_EQ(grouped("340282366920938463463374607431768211456"), "340,282,366,920,938,463,463,374,607,431,768,211,456");
  EXPECT_EQ(grouped("many"), "many");
  EXPECT_EQ(grouped("-"), "-");
  EXPECT_EQ(plural(1, "trial"), "1 trial");
  EXPECT_EQ(plural(2000, "trial"), "2,000 trials");
  EXPECT_EQ(time_text(1'700'000'000'123), "2023-11-14 22:13:20Z");
  EXPECT_EQ(time_text(std::nullopt), "-");
}

TEST(FiguresTest, BarFillsWithItsShareAndNeverBeyond) {
  EXPECT_EQ(bar(0, 4), "[----]");
  EXPECT_EQ(bar(0.5, 4), "[==--]");
  EXPECT_EQ(bar(0.99, 4), "[===-]");
  EXPECT_EQ(bar(1, 4), "[====]");
  EXPECT_EQ(bar(7, 4), "[====]");
  EXPECT_EQ(bar(-1, 4), "[----]");
  EXPECT_EQ(bar(NAN, 4), "[----]");
}

TEST(FieldsTest, WrongOrMissingMembersAreAbsent) {
  const json record{{"a", 1}, {"b", "x"}, {"c", nullptr}, {"d", {1, 2}}, {"e", 18446744073709551615ull}, {"f", 0.5}};
  EXPECT_EQ(integer_in(record, "a"), 1);
  EXPECT_EQ(integer_in(record, "b"), std::nullopt);
  EXPECT_EQ(integer_in(record, "f"), std::nullopt);
  EXPECT_EQ(number_in(record, "c"), std::nullopt);
  EXPECT_EQ(number_in(record, "f"), 0.5);
  EXPECT_EQ(text_in(record, "b"), "x");
  EXPECT_EQ(text_in(record, "a", "?"), "?");
  EXPECT_EQ(list_in(record, "d").size(), 2u);
  EXPECT_TRUE(list_in(record, "a").empty());
  EXPECT_EQ(digits_in(record, "e"), "18446744073709551615");
  EXPECT_EQ(digits_in(record, "none"), "-");
  EXPECT_TRUE(value_in(json("text"), "a").is_null());
}

}  // namespace
}  // namespace fusion::ctl
