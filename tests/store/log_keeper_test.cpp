// How long the write-ahead log gets while there is always somebody who reads.
#include "store/log_keeper.h"

#include <gtest/gtest.h>

#include <atomic>
#include <optional>
#include <thread>

#include "store/database.h"
#include "store/group_commit.h"
#include "store/reader_gate.h"
#include "store/store_reader.h"
#include "tests/store/fixtures.h"
#include "tests/temporary_folder.h"

namespace fusion {
namespace {

using fusion::testing::add_study;
using fusion::testing::add_trials;

constexpr LogLimits kLimits{100, 400};
constexpr std::int64_t kPage = 4096;

class LogKeeperTest : public ::testing::Test {
 protected:
  LogKeeperTest() {
    Store store = Store::open(path, clock, kLimits);
    study = add_study(store);
    store.ask_readers(&gate);
    group.emplace(std::move(store), [](std::exception_ptr) { FAIL(); });
    gate.on_drained([this] { group->tend_log(); });
  }
  /// Writes about 15 pages, and waits for the answer.
  void write() {
    io.restart();
    group->async(
        io.get_executor(), [this](Store& store) { return add_trials(store, study, 50, 50 * written).size(); },
        [](StoreResult<std::size_t> added) { EXPECT_EQ(added.value(), 50u); });
    const auto stay = asio::make_work_guard(io);
    io.run_one();
    ++written;
  }
  std::int64_t log_pages() const { return static_cast<std::int64_t>(std::filesystem::file_size(path + "-wal")) / kPage; }
  std::int64_t count(const StoreReader& reader) const { return reader.query("SELECT count(*) FROM trials", 1, std::chrono::seconds(60))["rows"][0][0]; }

  fusion::testing::TemporaryFolder folder;
  std::string path = (folder / "fusion.db").string();
  SystemClock clock;
  StudyId study;
  ReaderGate gate;
  std::int64_t written = 0;
  asio::io_context io;  // outlives the store thread, which may still be amid its wake-up when the answer is here
  std::optional<GroupCommit> group;
};

TEST_F(LogKeeperTest, WithoutReadersItIsMovedIntoTheFileAgainAndAgain) {
  for (int i = 0; i < 60; ++i) write();
  EXPECT_LT(log_pages(), 2 * kLimits.checkpoint_pages);
}

// Each reader holds its snapshot until the next one has its own, so there is no moment without one: what eight readers that loop come to.
TEST_F(LogKeeperTest, ReadersThatNobodyAsksMakeItAsLongAsTheyLike) {
  std::optional<Database> before, after;
  const auto begin = [&](std::optional<Database>& reader) {
    reader.emplace(path, Database::Access::read_only);
    reader->execute("BEGIN; SELECT count(*) FROM trials");
  };
  write();
  begin(before);
  for (int i = 0; i < 80; ++i) {
    write();
    begin(after);
    before = std::move(after);
    after.reset();
  }
  EXPECT_GT(log_pages(), 2 * kLimits.longest_pages);
}

TEST_F(LogKeeperTest, EightReadersThatLoopOverFullScansAreAskedToPause) {
  std::atomic<bool> end = false;
  std::atomic<std::int64_t> scans = 0;
  std::vector<std::thread> readers;
  for (int i = 0; i < 8; ++i) {
    readers.emplace_back([&] {
      const StoreReader reader = StoreReader::open(path);
      std::int64_t last = 0;
      while (!end) {
        const ReaderGate::Turn turn(&gate);
        const std::int64_t found = count(reader);
        EXPECT_GE(found, last) << "commits are seen in their order";
        last = found;
        ++scans;
      }
    });
  }
  std::int64_t longest = 0;
  for (int i = 0; i < 250; ++i) {
    write();
    longest = std::max(longest, log_pages());
  }
  const std::int64_t before = scans;
  while (scans < before + 8) std::this_thread::yield();  // nobody is left waiting at the gate
  end = true;
  for (std::thread& reader : readers) reader.join();
  // More than 3000 pages were written. What is written while the last queries inside end comes on top of the limit.
  EXPECT_LT(longest, 6 * kLimits.longest_pages);
  RecordProperty("longest_log_pages", static_cast<int>(longest));
  EXPECT_EQ(count(StoreReader::open(path)), 12'500);
}

TEST_F(LogKeeperTest, OneReaderThatDoesNotEndHoldsUpNobodyForLong) {
  std::optional<ReaderGate::Turn> stuck(std::in_place, &gate);
  std::optional<Database> snapshot(std::in_place, path, Database::Access::read_only);
  snapshot->execute("BEGIN; SELECT count(*) FROM trials");
  while (!gate.closed()) write();
  { const ReaderGate::Turn turn(&gate); }  // waits for its patience to end
  EXPECT_FALSE(gate.closed()) << "whoever comes next goes in at once";
  snapshot.reset();
  stuck.reset();
  for (int i = 0; i < 6; ++i) write();
  const std::int64_t held = log_pages();
  for (int i = 0; i < 100; ++i) write();
  EXPECT_EQ(log_pages(), held) << "it is begun anew, and the file is used again from its beginning";
}

}  // namespace
}  // namespace fusion
