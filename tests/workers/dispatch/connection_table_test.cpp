#include "workers/dispatch/connection_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <vector>

namespace fusion {
namespace {

using State = ConnectionTable::State;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

struct Door {
  explicit Door(std::size_t connections, std::size_t unproven, std::size_t per_address = 100) {
    Limits limits;
    limits.connections = connections;
    limits.unproven = unproven;
    limits.per_address = per_address;
    table = std::make_unique<ConnectionTable>(limits);
  }
  ~Door() { slots.clear(); }
  bool come(int who, const std::string& address = "", State state = State::unproven) {
    auto slot = table->admit(address, [this, who] { closed.push_back(who); });
    if (!slot) return false;
    slot->set(state);
    slots[who] = std::move(slot);
    return true;
  }
  std::unique_ptr<ConnectionTable> table;
  std::map<int, std::unique_ptr<ConnectionTable::Slot>> slots;
  std::vector<int> closed;
};

TEST(ConnectionTableTest, TheOldestOfWhomNothingWasLetInMakesRoom) {
  Door door(100, 3);
  for (int i = 1; i <= 3; ++i) door.come(i);
  door.slots[1]->set(State::busy);  // it spoke
  door.come(4);
  EXPECT_THAT(door.closed, IsEmpty());
  door.come(5);
  door.come(6);
  EXPECT_THAT(door.closed, ElementsAre(2, 3));
  EXPECT_EQ(door.table->count(State::unproven), 3u);
  EXPECT_EQ(door.table->size(), 4u);
  EXPECT_EQ(door.table->evicted(), 2u);
}

TEST(ConnectionTableTest, TenThousandSilentOnesDoNotTouchThoseThatSpeak) {
  Door door(2'000, 100);
  for (int i = 0; i < 500; ++i) door.come(i, "", i % 2 == 0 ? State::session : State::busy);
  for (int i = 500; i < 10'500; ++i) ASSERT_TRUE(door.come(i));
  EXPECT_EQ(door.closed.size(), 9'900u);
  EXPECT_GE(*std::min_element(door.closed.begin(), door.closed.end()), 500);
  EXPECT_EQ(door.table->size(), 600u);
}

TEST(ConnectionTableTest, WhereAllIsTakenTheIdleGoLongestIdleFirstAndTheBusyNever) {
  Door door(3, 3);
  door.come(1, "", State::idle);
  door.come(2, "", State::busy);
  door.come(3, "", State::session);
  EXPECT_TRUE(door.come(4, "", State::idle));
  EXPECT_THAT(door.closed, ElementsAre(1));
  door.slots[2]->set(State::idle);
  EXPECT_TRUE(door.come(5, "", State::busy));
  EXPECT_THAT(door.closed, ElementsAre(1, 4));
  EXPECT_TRUE(door.come(6, "", State::busy));
  EXPECT_THAT(door.closed, ElementsAre(1, 4, 2));
  EXPECT_FALSE(door.come(7)) << "all three are busy";
  EXPECT_EQ(door.table->refused(), 1u);
  door.slots.erase(6);
  EXPECT_TRUE(door.come(7));
}

TEST(ConnectionTableTest, AnAddressHasItsShareAndLoopbackHasNone) {
  Door door(100, 100, 2);
  door.come(1, "10.0.0.1", State::busy);
  door.come(2, "10.0.0.1");
  door.come(3, "10.0.0.2");
  EXPECT_TRUE(door.come(4, "10.0.0.1", State::busy));
  EXPECT_THAT(door.closed, ElementsAre(2)) << "its own, not another's";
  EXPECT_FALSE(door.come(5, "10.0.0.1"));
  EXPECT_TRUE(door.come(6, "10.0.0.2"));
  for (int i = 10; i < 20; ++i) EXPECT_TRUE(door.come(i));
  door.slots.erase(1);
  EXPECT_TRUE(door.come(5, "10.0.0.1")) << "a place that was given up";
}

TEST(ConnectionTableTest, OneThatWasClosedForAnotherIsNotCountedTwice) {
  Door door(100, 1);
  door.come(1, "a");
  door.come(2, "a");
  door.slots[1]->set(State::busy);
  door.slots.erase(1);
  EXPECT_EQ(door.table->size(), 1u);
  EXPECT_EQ(door.table->count(State::unproven), 1u);
  EXPECT_TRUE(door.table->evict_one());
  EXPECT_FALSE(door.table->evict_one());
}

}  // namespace
}  // namespace fusion
