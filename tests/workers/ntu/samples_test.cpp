#include "workers/ntu/samples.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "base/error.h"
#include "tests/temporary_folder.h"

namespace fusion {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

void touch(const std::filesystem::path& file, const std::string& text = "") {
  std::filesystem::create_directories(file.parent_path());
  std::ofstream(file) << text;
}

TEST(NtuNameTest, ReadsWhatTheNameSays) {
  const auto name = NtuName::of_file("S017C003P008R002A060_rgb.avi");
  ASSERT_TRUE(name);
  EXPECT_EQ(*name, (NtuName{17, 3, 8, 2, 60}));
  EXPECT_EQ(name->label(), 59);
  EXPECT_EQ(name->text(), "S017C003P008R002A060");
  EXPECT_TRUE(NtuName::of_file("S001C001P001R001A001"));
}

TEST(NtuNameTest, RefusesOtherNames) {
  for (const char* const text : {"", "S001", "S001C001P001R001A00", "S001C001P001R001A0011", "S001C001P001R001B001", "s001C001P001R001A001",
                                 "S0x1C001P001R001A001", "S-01C001P001R001A001", "S001C001P001R001A000", "readme.txt and so on"}) {
    EXPECT_FALSE(NtuName::of_file(text)) << text;
  }
}

TEST(NtuSplitTest, DividesTheSubjects) {
  std::set<int> all;
  for (const NtuSplit split : {NtuSplit::train, NtuSplit::dev, NtuSplit::test}) {
    for (const int subject : ntu_subjects(split)) EXPECT_TRUE(all.insert(subject).second) << subject << " is in two splits";
  }
  EXPECT_EQ(all.size(), 40U);
  EXPECT_EQ(*all.begin(), 1);
  EXPECT_EQ(*all.rbegin(), 40);
  EXPECT_EQ(ntu_subjects(NtuSplit::train).size() + ntu_subjects(NtuSplit::dev).size(), 20U);
  const auto train = ntu_subjects(NtuSplit::train);
  for (const int subject : ntu_subjects(NtuSplit::trainexp)) {
    EXPECT_NE(std::find(train.begin(), train.end(), subject), train.end());
  }
}

TEST(NtuMissingTest, ListsRecordings) {
  const auto missing = ntu_missing_skeletons();
  EXPECT_EQ(missing.size(), 302U);
  for (const std::string& name : missing) EXPECT_TRUE(NtuName::of_file(name)) << name;
}

TEST(NtuMissingTest, ReadsAListWhateverItsLastLineEndsWith) {
  const testing::TemporaryFolder folder;
  touch(folder / "bad.txt", "S001C002P005R002A008\r\n\nS001C002P006R001A008");
  EXPECT_THAT(read_ntu_names(folder / "bad.txt"), ::testing::ElementsAre("S001C002P005R002A008", "S001C002P006R001A008"));
  touch(folder / "bad.txt", "S001C002P005R002A008\nS001C002P005R002A0\n");
  EXPECT_THAT([&] { read_ntu_names(folder / "bad.txt"); }, ThrowsMessage<DataError>(HasSubstr("line 2: expected a recording's name")));
  EXPECT_THROW(read_ntu_names(folder / "none.txt"), DataError);
}

TEST(NtuSamplesTest, PairsClipsWithSkeletonsByName) {
  const testing::TemporaryFolder folder;
  const auto clips = folder / "nturgbd_rgb" / "avi_256x256_30", skeletons = folder / "nturgbd_skeletons";
  for (const char* const name : {"S001C001P002R001A003", "S001C001P002R001A001", "S001C001P003R001A001"}) {
    touch(clips / (std::string(name) + "_rgb.avi"));
    touch(skeletons / (std::string(name) + ".skeleton"));
  }
  touch(clips / "notes.txt");
  const auto dev = list_ntu_samples(folder.path(), NtuSplit::dev);
  ASSERT_EQ(dev.size(), 2U);
  EXPECT_EQ(dev[0].name.action, 1);
  EXPECT_EQ(dev[1].name.action, 3);
  EXPECT_EQ(dev[1].clip.filename(), "S001C001P002R001A003_rgb.avi");
  EXPECT_EQ(dev[1].skeleton.filename(), "S001C001P002R001A003.skeleton");
  EXPECT_EQ(list_ntu_samples(folder.path(), NtuSplit::dev, {"S001C001P002R001A001"}).size(), 1U);

  touch(skeletons / "S001C001P005R001A001.skeleton");
  EXPECT_THAT([&] { list_ntu_samples(folder.path(), NtuSplit::dev); },
              ThrowsMessage<DataError>(HasSubstr("S001C001P005R001A001 has no clip")));
  EXPECT_EQ(list_ntu_samples(folder.path(), NtuSplit::dev, {"S001C001P005R001A001"}).size(), 2U);
  EXPECT_EQ(list_ntu_samples(folder.path(), NtuSplit::test).size(), 1U);
  EXPECT_THAT([&] { list_ntu_samples(folder / "elsewhere", NtuSplit::dev); }, ThrowsMessage<DataError>(HasSubstr("cannot be read")));
}

}  // namespace
}  // namespace fusion
