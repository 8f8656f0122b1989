#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <unordered_map>

#include "workers/dispatch/limits.h"

namespace fusion {

/// Who is connected, and who has to make room.
///
/// A connection is `unproven` until a request of it was let in; then `busy` with one, or `idle` between two; or it is a worker's
/// `session`. Room is made by closing the unproven one that came first, then the one that is idle for longest; one that is busy and a session
/// are never closed for another. So ten thousand connections that say nothing lock out nobody: whoever comes and speaks has the time until as many
/// more have come as there are places for the unproven. I/O thread.
class ConnectionTable {
 public:
  enum class State { unproven, idle, busy, session };

  /// One connection's place; given up when destroyed. Must not outlive the table.
  class Slot {
   public:
    ~Slot();
    Slot(const Slot&) = delete;
    Slot& operator=(const Slot&) = delete;
    /// Nothing happens to one that was evicted.
    void set(State state);

   private:
    friend class ConnectionTable;
    Slot(ConnectionTable& table, std::string address, std::function<void()> evict);
    ConnectionTable& table_;
    std::string address_;  // empty: not counted by address
    std::function<void()> evict_;
    State state_ = State::unproven;
    bool gone_ = false;
    std::list<Slot*>::iterator place_;
  };

  explicit ConnectionTable(const Limits& limits) : limits_(limits) {}
  ConnectionTable(const ConnectionTable&) = delete;
  ConnectionTable& operator=(const ConnectionTable&) = delete;

  /// A place for a newcomer, perhaps another's; nothing if there is none. `address` is empty for loopback. `evict` closes the connection; it
  /// may be called until the slot is destroyed, once.
  std::unique_ptr<Slot> admit(const std::string& address, std::function<void()> evict);
  /// Closes the one that has to go first, where descriptors ran out. False if there is none.
  bool evict_one() { return evict_first(""); }

  std::size_t size() const { return size_; }
  std::size_t count(State state) const { return list_of(state).size(); }
  std::uint64_t evicted() const { return evicted_; }
  std::uint64_t refused() const { return refused_; }

 private:
  std::list<Slot*>& list_of(State state) { return lists_[static_cast<std::size_t>(state)]; }
  const std::list<Slot*>& list_of(State state) const { return lists_[static_cast<std::size_t>(state)]; }
  bool evict_first(const std::string& address);
  bool evict_first(State state, const std::string& address);
  void remove(Slot& slot);

  const Limits limits_;
  std::list<Slot*> lists_[4];  // by state, in the order in which they came to it
  std::unordered_map<std::string, std::size_t> by_address_;
  std::size_t size_ = 0;
  std::uint64_t evicted_ = 0, refused_ = 0;
};

}  // namespace fusion
