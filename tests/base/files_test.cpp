#include "base/files.h"

#include <gtest/gtest.h>

#include <ostream>

#include "base/digest.h"
#include "tests/temporary_folder.h"

namespace fusion {
namespace {

using testing::TemporaryFolder;

TEST(FilesTest, WritesAtomicallyAndLeavesNothingElseBehind) {
  TemporaryFolder folder;
  write_atomically(folder / "deep/er/a.txt", "one");
  write_atomically(folder / "deep/er/a.txt", "two");
  EXPECT_EQ(read_text(folder / "deep/er/a.txt"), "two");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder / "deep/er"), {}), 1);
}

TEST(FilesTest, KeepsTheOldFileWhenTheWriterThrows) {
  TemporaryFolder folder;
  write_atomically(folder / "a", "old");
  EXPECT_THROW(write_atomically(folder / "a",
                                [](std::ostream& out) {
                                  out << "half";
                                  throw DataError("no more");
                                }),
               DataError);
  EXPECT_EQ(read_text(folder / "a"), "old");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 1);
}

TEST(FilesTest, NamesTheFileThatCannotBeRead) {
  TemporaryFolder folder;
  try {
    read_text(folder / "absent");
    FAIL() << "no error";
  } catch (const DataError& error) {
    EXPECT_NE(std::string(error.what()).find("absent"), std::string::npos);
  }
  EXPECT_THROW(read_text(folder.path()), DataError);
  EXPECT_THROW(MappedFile::open(folder.path()), DataError);
}

TEST(DigestTest, MeetsTheKnownVectors) {
  EXPECT_EQ(sha256_of(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256_of("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  TemporaryFolder folder;
  write_atomically(folder / "a", "abc");
  EXPECT_EQ(sha256_of_file(folder / "a"), sha256_of("abc"));
}

}  // namespace
}  // namespace fusion
