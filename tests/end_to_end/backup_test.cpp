// Backups of a database that a real daemon is writing.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/files.h"
#include "store/store_reader.h"
#include "tests/end_to_end/system.h"

namespace fusion {
namespace {

using nlohmann::json;
using testing::System;
using ::testing::HasSubstr;

class BackupEndToEndTest : public ::testing::Test {
 protected:
  void refused(std::vector<std::string> arguments, const std::string& words) {
    arguments.insert(arguments.begin(), "backup");
    const testing::Finished finished = system.ctl(arguments);
    EXPECT_EQ(finished.status, 2) << words;
    EXPECT_THAT(finished.err, HasSubstr(words));
  }
  std::vector<std::string> leftovers() {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(system.folder().path())) {
      const std::string name = entry.path().filename().string();
      if (name.find(".part.") != std::string::npos || name.find(".backup") != std::string::npos) names.push_back(name);
    }
    return names;
  }
  System system;
  const std::string database = (system.folder() / "fusion.db").string(), copy = (system.folder() / "copy.db").string();
};

TEST_F(BackupEndToEndTest, OfARunningStudyGoesOnWhereItWasMade) {
  system.start(2, {{"--worker-program", POISONED_WORKER}});
  const auto study = system.submit(System::small_study());
  system.wait_for_completed(study, 5);
  const json made = system.ctl_json({"backup", copy});
  EXPECT_EQ(made["verified"], true);
  EXPECT_EQ(made["studies"], 1);
  EXPECT_EQ(made["bytes"], std::filesystem::file_size(copy));
  EXPECT_EQ(system.ctl_json({"backup", (system.folder() / "second.db").string(), "--db", database})["studies"], 1);
  EXPECT_EQ(system.wait_for(study), "completed");
  EXPECT_EQ(system.stop(), 0);

  const json acknowledged = StoreReader::open(copy).query("SELECT count(*) FROM trials WHERE state = 'completed'", 1, std::chrono::seconds(10))["rows"];
  EXPECT_GE(acknowledged[0][0], 5);
  system.start(2, {{"--worker-program", POISONED_WORKER}, {"--db", copy}});
  system.ctl({"watch", std::to_string(study)});
  EXPECT_EQ(system.ctl_json({"status", std::to_string(study)})["study"]["state"], "completed");
  EXPECT_EQ(system.stop(), 0);
  EXPECT_EQ(system.ctl({"replay", copy}).status, 0);
  EXPECT_THAT(leftovers(), ::testing::IsEmpty());
}

TEST_F(BackupEndToEndTest, NothingIsOverwrittenUnlessItIsAskedFor) {
  system.start(0);
  write_atomically(copy, "mine");
  refused({copy}, "there is a file of that name already; name another one, or have it replaced with --force");
  refused({copy, "--db", database}, "--force");
  EXPECT_EQ(read_text(copy), "mine");
  refused({database, "--db", database, "--force"}, "is the database itself");
  refused({database, "--force"}, "a database that is in use");
  refused({system.folder().path().string()}, "is a folder");
  refused({(system.folder() / "missing/copy.db").string()}, "cannot be written");
  refused({(system.folder() / "other.db").string(), "--db", (system.folder() / "none.db").string()}, "none.db");
  EXPECT_EQ(system.ctl({"backup", copy, "--force"}).status, 0);
  EXPECT_EQ(StoreReader::open(copy).study_ids().size(), 0u);
  EXPECT_EQ(system.stop(), 0);
  EXPECT_THAT(leftovers(), ::testing::IsEmpty());
}

TEST_F(BackupEndToEndTest, NeedsNoDaemon) {
  system.start(0);
  system.submit(System::small_study());
  EXPECT_EQ(system.stop(), 0);
  const testing::Finished finished = system.ctl({"backup", copy, "--db", database});
  EXPECT_EQ(finished.status, 0) << finished.err;
  EXPECT_THAT(finished.out, HasSubstr("1 study, "));
  EXPECT_THAT(finished.out, HasSubstr("every page was read again and is sound"));
  const testing::Finished failed = system.ctl({"backup", (system.folder() / "second.db").string()});
  EXPECT_EQ(failed.status, 1);
  EXPECT_THAT(failed.err, HasSubstr("cannot be reached"));
}

}  // namespace
}  // namespace fusion
