#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

#include "base/error.h"
#include "tests/temporary_folder.h"
#include "workers/client/journal.h"

namespace fusion {
namespace {

using ::testing::HasSubstr;

protocol::Ack ack(std::int64_t trial) {
  protocol::Ack ack;
  ack.what = "result";
  ack.trial = TrialId{trial};
  ack.attempt = 1;
  ack.accepted = true;
  return ack;
}
protocol::Epoch epoch(std::int64_t trial) { return {TrialId{trial}, 1, {1, 0.5, 0.25, 0.001, 1.5}}; }

class JournalTest : public ::testing::Test {
 protected:
  void append_text(const std::string& text) { std::ofstream(file, std::ios::app) << text; }
  testing::TemporaryFolder folder;
  std::filesystem::path file = folder / "worker.jsonl";
};

TEST_F(JournalTest, KeepsWhatWasSaidInOrder) {
  {
    Journal journal(file);
    journal.sent(epoch(3));
    journal.received(ack(3));
  }
  Journal(file).sent(epoch(4));
  const JournalText text = read_journal(file);
  EXPECT_EQ(text.torn, 0);
  ASSERT_EQ(text.lines.size(), 3u);
  EXPECT_TRUE(text.lines[0].sent);
  EXPECT_EQ(std::get<protocol::Epoch>(text.lines[0].message), epoch(3));
  EXPECT_FALSE(text.lines[1].sent);
  EXPECT_EQ(std::get<protocol::Ack>(text.lines[1].message), ack(3));
  EXPECT_EQ(std::get<protocol::Epoch>(text.lines[2].message), epoch(4));
  EXPECT_LE(text.lines[0].at, text.lines[2].at);
}

TEST_F(JournalTest, ALineThatAKilledProcessLeftUnfinishedSpoilsNoOther) {
  Journal(file).sent(epoch(3));
  append_text("{\"at_ms\":17,\"event\":\"se");
  Journal(file).sent(epoch(4));
  const JournalText text = read_journal(file);
  EXPECT_EQ(text.torn, 1);
  ASSERT_EQ(text.lines.size(), 2u);
  EXPECT_EQ(std::get<protocol::Epoch>(text.lines[1].message), epoch(4));
}

TEST_F(JournalTest, AWholeLineOfSomethingElseIsRefused) {
  append_text("{\"at_ms\":17,\"event\":\"sent\",\"message\":{\"type\":\"song\"}}\n");
  try {
    read_journal(file);
    FAIL();
  } catch (const DataError& error) {
    EXPECT_THAT(error.what(), HasSubstr("line 1 is no line of a journal"));
  }
}

TEST_F(JournalTest, ADiskThatIsFullIsNotPassedOver) {
  if (::access("/dev/full", W_OK) != 0) GTEST_SKIP() << "this machine has no /dev/full";
  std::filesystem::create_symlink("/dev/full", file);
  Journal journal(file);
  EXPECT_THROW(journal.sent(epoch(1)), ConfigError);
  EXPECT_THROW(Journal(folder / "no/such/folder/j"), DataError);
}

}  // namespace
}  // namespace fusion
