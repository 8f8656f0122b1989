#include "tools/ctl/table.h"

#include <gtest/gtest.h>

#include <sstream>

namespace fusion::ctl {
namespace {

Table sample() {
  Table table({{"trial", Align::right}, {"name", Align::left, true}, {"score", Align::right}, {"error", Align::left, true, true}});
  table.add({"7", "Zürich", "0.9000", ""});
  table.add({"12345678", "研究", "-", ""});
  return table;
}

TEST(TableTest, AlignsByDisplayWidthAndLeavesNoTrailingBlanks) {
  EXPECT_EQ(sample().text({}),
            "   trial  name     score\n"
            "       7  Zürich  0.9000\n"
            "12345678  研究         -\n");
}

TEST(TableTest, OptionalColumnsAppearWithTheirFirstText) {
  Table table = sample();
  table.add({"8", "x", "-", "out of memory"});
  EXPECT_EQ(table.text({}),
            "   trial  name     score  error\n"
            "       7  Zürich  0.9000\n"
            "12345678  研究         -\n"
            "       8  x            -  out of memory\n");
}

TEST(TableTest, TitlesAreBoldOnTerminalsOnly) {
  Table table({{"a"}, {"b"}});
  table.add({"1", Cell("2", Style::bad)});
  EXPECT_EQ(table.text({}), "a  b\n1  2\n");
  const Terminal terminal{true, true, 80, 24};
  EXPECT_EQ(table.text(terminal), "\033[1ma\033[0m  \033[1mb\033[0m\n1  \033[31m2\033[0m\n");
  const Terminal colourless{true, false, 80, 24};
  EXPECT_EQ(table.text(colourless), "a  b\n1  2\n");
}

TEST(TableTest, FlexibleColumnsGiveWayToTheWidthOfTheTerminal) {
  Table table({{"id", Align::right}, {"short", Align::left, true}, {"long", Align::left, true}});
  table.add({"1", "abcdefghij", std::string(200, 'x')});
  for (std::size_t width = 22; width <= 216; ++width) {
    const Terminal terminal{true, false, width, 24};
    std::istringstream lines(table.text(terminal));
    for (std::string line; std::getline(lines, line);) EXPECT_LE(display_width(line), width);
  }
  const Terminal narrow{true, false, 5, 24};  // narrower than possible: eight columns each, no less
  EXPECT_EQ(table.text(narrow), "id  short     long\n 1  abcdefg…  xxxxxxx…\n");
}

TEST(TableTest, CellsAreMadeSafe) {
  Table table({{"a"}});
  table.add({"x\n\033[2Jy"});
  EXPECT_EQ(table.text({}), "a\nx \uFFFD[2Jy\n");
}

TEST(TableTest, ARowNeedsACellPerColumn) {
  Table table({{"a"}, {"b"}});
  EXPECT_THROW(table.add({"1"}), std::logic_error);
}

TEST(FactsTest, PadsNames) {
  Facts facts;
  facts.add("a", "1");
  facts.add("long", "2");
  facts.add("", "3");
  EXPECT_EQ(facts.text(), "  a     1\n  long  2\n        3\n");
}

}  // namespace
}  // namespace fusion::ctl
