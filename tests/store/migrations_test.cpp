#include "store/migrations.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>

#include "base/error.h"
#include "base/files.h"
#include "store/database.h"
#include "store/statement.h"
#include "store/store.h"
#include "store/store_reader.h"
#include "tests/store/fixtures.h"
#include "tests/temporary_folder.h"

namespace fusion {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

class MigrationsTest : public ::testing::Test {
 protected:
  /// Opening is refused with these words, by Store and StoreReader, and the file stays as it is.
  void expect_refused(const std::string& words) {
    const std::string before = read_text(path);
    EXPECT_THAT([&] { Store::open(path, clock); }, ThrowsMessage<StoreError>(AllOf(HasSubstr(path), HasSubstr(words))));
    EXPECT_THAT([&] { StoreReader::open(path); }, ThrowsMessage<StoreError>(AllOf(HasSubstr(path), HasSubstr(words))));
    EXPECT_EQ(read_text(path), before);
    EXPECT_FALSE(std::filesystem::exists(path + ".lock"));
  }
  std::map<std::string, std::string> schema_of(const std::string& file) {
    const Database database(file, Database::Access::read_only);
    Statement row(database, "SELECT type || ' ' || name, sql FROM sqlite_schema WHERE sql IS NOT NULL");
    std::map<std::string, std::string> schema;
    while (row.step()) schema[row.text(0)] = row.text(1);
    return schema;
  }

  fusion::testing::TemporaryFolder folder;
  std::string path = (folder / "fusion.db").string();
  ManualClock clock;
};

TEST_F(MigrationsTest, NewFileHasTheNewestSchemaAndOurMark) {
  { const Store store = Store::open(path, clock); }
  const Database database(path, Database::Access::read_only);
  EXPECT_EQ(database.integer("PRAGMA user_version"), newest_schema());
  EXPECT_EQ(database.integer("PRAGMA application_id"), kApplicationId);
  EXPECT_EQ(database.integer("SELECT value FROM meta WHERE key = 'created_ms'"), clock.unix_ms());
  EXPECT_EQ(database.integer("SELECT count(*) FROM pragma_table_list WHERE type = 'table' AND NOT strict"
                             " AND name NOT LIKE 'sqlite_%'"), 0) << "every table is STRICT";
}

TEST_F(MigrationsTest, OpeningAgainChangesNothing) {
  { const Store store = Store::open(path, clock); }
  const auto before = schema_of(path);
  { const Store store = Store::open(path, clock); }
  EXPECT_EQ(schema_of(path), before);
}

TEST_F(MigrationsTest, EmptyFileIsANewDatabase) {
  std::ofstream(path).flush();
  EXPECT_NO_THROW(Store::open(path, clock));
}

TEST_F(MigrationsTest, NewerSchemaIsRefusedNamingBothVersions) {
  { const Store store = Store::open(path, clock); }
  Database(path, Database::Access::create).execute("PRAGMA user_version = 4711");
  expect_refused("its schema is version 4711");
  expect_refused("knows versions up to " + std::to_string(newest_schema()));
}

TEST_F(MigrationsTest, DatabaseOfAnotherProgramIsRefused) {
  Database(path, Database::Access::create).execute("CREATE TABLE notes (text); INSERT INTO notes VALUES ('mine')");
  expect_refused("belongs to another program");
  Database(path, Database::Access::create).execute("PRAGMA application_id = 252006674; PRAGMA user_version = 1");
  expect_refused("application id 252006674");
}

TEST_F(MigrationsTest, FileThatIsNoDatabaseIsRefused) {
  write_atomically(path, std::string(8192, 'x'));
  expect_refused("file is not a database");
}

TEST_F(MigrationsTest, CorruptFileIsRefused) {
  { const Store store = Store::open(path, clock); }
  std::string bytes = read_text(path);
  std::fill(bytes.begin() + 100, bytes.begin() + 4096, '\x5a');  // the first page of the schema behind a good header
  write_atomically(path, bytes);
  expect_refused("malformed");
  write_atomically(path, bytes.substr(0, 4096));  // cut short
  expect_refused("malformed");
}

TEST_F(MigrationsTest, ReaderNeedsAnExistingUpToDateFile) {
  EXPECT_THAT([&] { StoreReader::open(path); }, ThrowsMessage<StoreError>(HasSubstr("there is no such file")));
  EXPECT_FALSE(std::filesystem::exists(path));
  std::ofstream(path).flush();
  EXPECT_THAT([&] { StoreReader::open(path); }, ThrowsMessage<StoreError>(HasSubstr("its schema is version 0")));
}

TEST_F(MigrationsTest, StatesOfTheEnumsAreAllowedAndNoOthers) {
  {
    Store store = Store::open(path, clock);
    fusion::testing::add_study(store);
    fusion::testing::add_trials(store, StudyId{1}, 1);
  }
  Database database(path, Database::Access::create);
  const auto allows = [&](const std::string& table, const std::string& column, std::string_view value) {
    // The CHECK itself, taken from the schema: other constraints tie states to other columns.
    const auto sql = schema_of(path).at("table " + table);
    const std::size_t begin = sql.find("CHECK (" + column + " IN (");
    EXPECT_NE(begin, std::string::npos);
    const std::string check = sql.substr(begin + 6, sql.find("))", begin) + 2 - begin - 6);
    return Database(path, Database::Access::read_only)
               .integer(("SELECT " + check + " FROM (SELECT '" + std::string(value) + "' AS " + column + ")").c_str()) == 1;
  };
  for (const auto& [state, name] : EnumNames<StudyState>::kTable) EXPECT_TRUE(allows("studies", "state", name)) << name;
  for (const auto& [state, name] : EnumNames<TrialState>::kTable) EXPECT_TRUE(allows("trials", "state", name)) << name;
  for (const auto& [outcome, name] : EnumNames<Outcome>::kTable) EXPECT_TRUE(allows("attempts", "outcome", name)) << name;
  for (const auto& [state, name] : EnumNames<RetrainingState>::kTable) EXPECT_TRUE(allows("retrainings", "state", name)) << name;
  for (const auto& [head, name] : EnumNames<HeadKind>::kTable) EXPECT_TRUE(allows("retrainings", "head", name)) << name;
  for (const auto& [outcome, name] : EnumNames<Outcome>::kTable) {
    EXPECT_EQ(allows("retraining_attempts", "outcome", name), outcome != Outcome::pruned) << name;
  }
  EXPECT_FALSE(allows("trials", "state", "scored"));
  EXPECT_THROW(database.execute("UPDATE studies SET state = 'resting'"), StoreError);
  EXPECT_THROW(database.execute("UPDATE trials SET state = 'scored'"), StoreError);
  EXPECT_THROW(database.execute("UPDATE trials SET state = 'completed'"), StoreError) << "without a score";
}

// ---- every version ever released

class SchemaFixtureTest : public MigrationsTest, public ::testing::WithParamInterface<int> {
 protected:
  void load_fixture() {
    const auto file = fusion::testing::source_folder() / "tests/golden/schema" / ("v" + std::to_string(GetParam()) + ".sql");
    Database(path, Database::Access::create).execute(read_text(file).c_str());
  }
};
INSTANTIATE_TEST_SUITE_P(, SchemaFixtureTest, ::testing::Range(1, static_cast<int>(newest_schema()) + 1),
                         [](const auto& version) { return "V" + std::to_string(version.param); });

TEST_P(SchemaFixtureTest, IsWhatTheMigrationsUpToItMake) {
  load_fixture();
  const std::string fresh = (folder / "fresh.db").string();
  {
    Database database(fresh, Database::Access::create);
    for (int version = 0; version < GetParam(); ++version) {
      database.execute(std::string(migrations()[static_cast<std::size_t>(version)]).c_str());
    }
  }
  EXPECT_EQ(schema_of(path), schema_of(fresh)) << "a released migration never changes";
  EXPECT_EQ(Database(path, Database::Access::read_only).integer("PRAGMA user_version"), GetParam());
}

TEST_P(SchemaFixtureTest, IsUpgradedWithAllItHolds) {
  load_fixture();
  {
    Store store = Store::open(path, clock);
    EXPECT_EQ(store.studies().size(), 2u);
    const auto trials = store.trials(StudyId{1});
    ASSERT_EQ(trials.size(), 12u);
    EXPECT_EQ(trials[9].score->dev_score, 0.62);
    EXPECT_EQ(store.requeue_leased(), 1);
    EXPECT_EQ(store.lease(trials[10].id, WorkerId{}), 2);
    EXPECT_EQ(store.finish(fusion::testing::completed(trials[10].id, 2, 0.5)).told_index, 10);
    EXPECT_EQ(store.requeue_leased_retrainings(), GetParam() >= 3 ? 1 : 0);
    EXPECT_EQ(store.open_retrainings().size(), GetParam() >= 3 ? 3u : 0u);
    const RetrainingId id = store.create_retraining(fusion::testing::new_retraining(StudyId{1}, trials[10].id)).id;
    EXPECT_EQ(store.lease_retraining(id, WorkerId{}), 1);
    EXPECT_TRUE(store.finish_retraining(fusion::testing::retrained(id, 1, 0.5)).accepted);
  }
  const std::string fresh = (folder / "fresh.db").string();
  { const Store store = Store::open(fresh, clock); }
  EXPECT_EQ(schema_of(path), schema_of(fresh));
  const Database database(path, Database::Access::read_only);
  EXPECT_EQ(database.text("PRAGMA integrity_check"), "ok");
  EXPECT_EQ(database.integer("SELECT count(*) FROM pragma_foreign_key_check"), 0);
}

}  // namespace
}  // namespace fusion
