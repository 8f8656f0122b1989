// docs/schema.md is held to the database: every table, view and column stands in it, and its queries run.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "base/files.h"
#include "store/store_reader.h"
#include "tests/store/fixtures.h"
#include "tests/temporary_folder.h"

namespace fusion {
namespace {

using nlohmann::json;
using namespace std::chrono_literals;

class SchemaDocumentTest : public ::testing::Test {
 protected:
  SchemaDocumentTest() { fusion::testing::fill_with_samples(store, clock); }
  json rows(const std::string& sql) { return StoreReader::open(path).query(sql, 10'000, 10s)["rows"]; }
  /// The text under the heading that names the table or view.
  std::string section(const std::string& name) {
    const std::size_t begin = document.find("\n### `" + name + "`");
    if (begin == std::string::npos) return "";
    return document.substr(begin, document.find("\n#", begin + 2) - begin);
  }
  std::vector<std::string> sql_blocks() {
    std::vector<std::string> blocks;
    for (std::size_t at = 0; (at = document.find("```sql\n", at)) != std::string::npos;) {
      at += 7;
      const std::size_t end = document.find("```", at);
      blocks.push_back(document.substr(at, end - at));
      at = end;
    }
    return blocks;
  }

  fusion::testing::TemporaryFolder folder;
  std::string path = (folder / "fusion.db").string();
  ManualClock clock;
  Store store = Store::open(path, clock);
  std::string document = read_text(fusion::testing::source_folder() / "docs/schema.md");
};

TEST_F(SchemaDocumentTest, NamesEveryTableViewAndColumn) {
  for (const json& table : rows("SELECT name FROM sqlite_schema WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite_%'")) {
    const std::string name = table[0];
    const std::string text = section(name);
    EXPECT_FALSE(text.empty()) << name << " has no section";
    for (const json& column : rows("SELECT name FROM pragma_table_info('" + name + "')")) {
      EXPECT_THAT(text, ::testing::HasSubstr("`" + column[0].get<std::string>() + "`")) << "in the section of " << name;
    }
  }
}

TEST_F(SchemaDocumentTest, ItsQueriesRunAndFindSomething) {
  const auto blocks = sql_blocks();
  EXPECT_GE(blocks.size(), 10u);
  for (const std::string& sql : blocks) {
    json found;
    EXPECT_NO_THROW(found = rows(sql)) << sql;
    EXPECT_FALSE(found.empty()) << sql;
  }
}

TEST_F(SchemaDocumentTest, EveryViewHasRows) {
  for (const json& view : rows("SELECT name FROM sqlite_schema WHERE type = 'view'")) {
    EXPECT_GT(rows("SELECT * FROM " + view[0].get<std::string>()).size(), 0u) << view[0];
  }
}

TEST_F(SchemaDocumentTest, LeaderboardHasTheBestFirst) {
  const json best = rows("SELECT rank, dev_score, trial FROM leaderboard LIMIT 3");
  EXPECT_EQ(best[0][0], 1);
  EXPECT_EQ(best[0][1], 0.65);
  EXPECT_EQ(best[1][1], 0.62);
  EXPECT_EQ(best[1][2], 10);
  EXPECT_EQ(best[2][1], 0.6);
  EXPECT_EQ(rows("SELECT * FROM leaderboard").size(), 9u);
}

TEST_F(SchemaDocumentTest, HistoryRunsInTheOrderOfEnds) {
  const json history = rows("SELECT told_index, dev_score, best_so_far FROM history WHERE study = 'first'");
  double best = 0;
  for (std::size_t n = 0; n < history.size(); ++n) {
    EXPECT_EQ(history[n][0], n);
    if (!history[n][1].is_null()) best = std::max(best, history[n][1].get<double>());
    EXPECT_EQ(history[n][2], best);
  }
}

}  // namespace
}  // namespace fusion
