#include "store/right_of_way.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <optional>
#include <thread>

#include "base/error.h"
#include "store/group_commit.h"
#include "store/store_reader.h"
#include "tests/store/fixtures.h"
#include "tests/temporary_folder.h"

namespace fusion {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;
using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

class RightOfWayTest : public ::testing::Test {
 protected:
  /// A looker that has run for a moment already, and so may wait three times as long.
  static GivingWay after_a_moment(const RightOfWay* way) {
    GivingWay giving(way);
    const Clock::time_point moment = Clock::now() + 2ms;
    while (Clock::now() < moment) continue;
    return giving;
  }
  RightOfWay way;
};

TEST_F(RightOfWayTest, NobodyWaitsWhileItIsFree) {
  GivingWay giving = after_a_moment(&way), alone = after_a_moment(nullptr);
  giving.look(Clock::time_point::max());
  alone.look(Clock::time_point::max());
  EXPECT_EQ(giving.waited(), 0ns);
  EXPECT_EQ(alone.waited(), 0ns);
}

TEST_F(RightOfWayTest, GivesWayForThreeQuartersOfItsTimeAtMost) {
  const RightOfWay::Hold forever(&way);
  GivingWay giving = after_a_moment(&way);
  const Clock::time_point after_it_began = Clock::now() - 2ms;
  const Clock::time_point end = giving.look(Clock::time_point::max());
  EXPECT_GT(giving.waited(), 6ms);
  EXPECT_GE(giving.waited() * GivingWay::kShare, (end - after_it_began) * (GivingWay::kShare - 1));
  const auto waited = giving.waited();
  giving.look(end);
  EXPECT_EQ(giving.waited(), waited) << "nor beyond the end it is given";
}

TEST_F(RightOfWayTest, GoesOnOnceTheWayIsFree) {
  std::optional<RightOfWay::Hold> hold(&way);
  GivingWay giving(&way);
  std::thread looker([&] {
    while (giving.waited() == 0ns || way.taken()) giving.look(Clock::time_point::max());
  });
  std::this_thread::sleep_for(5ms);
  hold.reset();
  looker.join();
  EXPECT_FALSE(way.taken());
}

TEST_F(RightOfWayTest, TheStoreThreadTakesItForAGroup) {
  fusion::testing::TemporaryFolder folder;
  SystemClock clock;
  asio::thread_pool pool(1);
  bool taken = false;
  {
    GroupCommit group(Store::open((folder / "fusion.db").string(), clock), [](std::exception_ptr) {}, &way);
    std::promise<bool> seen;
    group.async(
        pool.get_executor(), [this](Store&) { return way.taken(); }, [&](StoreResult<bool> result) { seen.set_value(result.value()); });
    taken = seen.get_future().get();
  }
  EXPECT_TRUE(taken);
  EXPECT_FALSE(way.taken());
}

TEST_F(RightOfWayTest, AQueryEndsBesideAStoreThatNeverRests) {
  fusion::testing::TemporaryFolder folder;
  SystemClock clock;
  const std::string path = (folder / "fusion.db").string();
  Store::open(path, clock);
  StoreReader reader = StoreReader::open(path);
  reader.give_way(&way);
  const RightOfWay::Hold forever(&way);
  const std::string numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n";
  EXPECT_EQ(reader.query(numbers + " LIMIT 20000) SELECT count(*) FROM n", 10, 60s)["rows"][0][0], 20000);
  EXPECT_THAT([&] { reader.query(numbers + ") SELECT count(*) FROM n", 10, 50ms); }, ThrowsMessage<StoreError>(HasSubstr("deadline of 50 ms")));
}

}  // namespace
}  // namespace fusion
