#include "base/json_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/temporary_folder.h"
#include "base/files.h"

namespace fusion {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(JsonReaderTest, ReadsWhatIsThereAndDefaultsTheRest) {
  const auto json = parse_json(R"({"epochs": 5, "name": "x", "inner": {"rate": 0.5, "on": true}})", "t.json");
  JsonProblems problems;
  JsonReader reader(json, "t.json", problems);
  EXPECT_EQ(reader.integer("epochs", 1, 10), 5);
  EXPECT_EQ(reader.integer("absent", 1, 10, 7), 7);
  EXPECT_EQ(reader.text("name"), "x");
  JsonReader inner = reader.object("inner");
  EXPECT_EQ(inner.number("rate", 0, 1), 0.5);
  EXPECT_TRUE(inner.boolean("on"));
  inner.finish();
  reader.finish();
  EXPECT_TRUE(problems.empty());
}

TEST(JsonReaderTest, ReportsEveryProblemWithPointerValueAndWhatWasAllowed) {
  const auto json = parse_json(
      R"({"epochs": "3", "inner": {"rate": 2, "raet": 1}, "list": [{"n": 1.5}], "wdith": 3, "seed": -1})", "t.json");
  JsonProblems problems;
  JsonReader reader(json, "t.json", problems);
  reader.integer("epochs", 1, 1000, 3);
  reader.integer("width", 1, 9, 3);
  reader.seed("seed", 0);
  JsonReader inner = reader.object("inner");
  inner.number("rate", 0, 1, 0.5);
  inner.finish();
  for (JsonReader& element : reader.list("list")) element.integer("n", 0, 5);
  reader.text("title");
  reader.finish();
  EXPECT_THAT(problems.list(),
              ElementsAre("t.json: /epochs: expected an integer in [1, 1000], got \"3\"",
                          "t.json: /seed: expected an integer in [0, 2^64), got -1",
                          "t.json: /inner/rate: expected a number in [0.0, 1.0], got 2",
                          "t.json: /inner/raet: is not a known key; did you mean \"rate\"?",
                          "t.json: /list/0/n: expected an integer in [0, 5], got 1.5",
                          "t.json: /title: is missing; expected a text",
                          "t.json: /wdith: is not a known key; did you mean \"width\"?"));
  try {
    problems.throw_if_any();
    FAIL() << "no error";
  } catch (const ConfigError& error) {
    EXPECT_EQ(error.problems().size(), 7u);
  }
}

TEST(JsonReaderTest, RefusesNumbersThatDoNotFit) {
  const auto json = parse_json(R"({"a": 18446744073709551615, "b": 1e301})", "t");
  JsonProblems problems;
  JsonReader reader(json, "t", problems);
  reader.integer("a", 0, INT64_MAX);
  reader.number("b", 0, 1e300);
  EXPECT_EQ(problems.list().size(), 2u);
  EXPECT_THROW(parse_json("[1e400]", "t"), ConfigError);
}

TEST(ParseJsonTest, NamesLineAndColumn) {
  try {
    parse_json("{\n  \"a\": 1,\n  oops\n}", "t.json");
    FAIL() << "no error";
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(), HasSubstr("t.json: line 3, column 3"));
  }
}

TEST(ParseJsonTest, RefusesAKeyThatStandsTwice) {
  EXPECT_THROW(parse_json(R"({"a": 1, "a": 2})", "t"), ConfigError);
  EXPECT_NO_THROW(parse_json(R"({"a": {"b": 1}, "c": {"b": 2}})", "t"));
}

TEST(ParseJsonTest, RefusesNestingThatWouldMakeReadersRecurse) {
  const auto nested = [](std::size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  EXPECT_NO_THROW(parse_json(nested(64), "a.json"));
  EXPECT_THROW(parse_json(nested(65), "a.json"), ConfigError);
  EXPECT_THROW(parse_json(nested(1'000'000), "a.json"), ConfigError);
  EXPECT_NO_THROW(parse_json("{\"a\": \"" + std::string(1'000, '[') + "\\\"{\"}", "a.json")) << "brackets in a text are text";
}

TEST(ParseJsonTest, ReadsFilesAndNamesThemWhereTheyAreAbsent) {
  testing::TemporaryFolder folder;
  write_atomically(folder / "a.json", "[1]");
  EXPECT_EQ(parse_json_file(folder / "a.json")[0], 1);
  EXPECT_THROW(parse_json_file(folder / "b.json"), DataError);
}

}  // namespace
}  // namespace fusion
