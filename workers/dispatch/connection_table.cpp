#include "workers/dispatch/connection_table.h"

#include <algorithm>
#include <utility>

namespace fusion {

ConnectionTable::Slot::Slot(ConnectionTable& table, std::string address, std::function<void()> evict)
    : table_(table), address_(std::move(address)), evict_(std::move(evict)) {
  auto& list = table_.list_of(state_);
  place_ = list.insert(list.end(), this);
  ++table_.size_;
  if (!address_.empty()) ++table_.by_address_[address_];
}

ConnectionTable::Slot::~Slot() { table_.remove(*this); }

void ConnectionTable::Slot::set(State state) {
  if (gone_) return;
  auto& to = table_.list_of(state);
  to.splice(to.end(), table_.list_of(state_), place_);
  state_ = state;
}

std::unique_ptr<ConnectionTable::Slot> ConnectionTable::admit(const std::string& address, std::function<void()> evict) {
  const auto known = by_address_.find(address);
  const bool address_full = !address.empty() && known != by_address_.end() && known->second >= limits_.per_address;
  bool room = !address_full || evict_first(address);
  if (room && count(State::unproven) >= limits_.unproven) evict_first(State::unproven, "");
  if (room && size_ >= limits_.connections) room = evict_first("");
  if (!room) {
    ++refused_;
    return nullptr;
  }
  return std::unique_ptr<Slot>(new Slot(*this, address, std::move(evict)));
}

bool ConnectionTable::evict_first(const std::string& address) {
  return evict_first(State::unproven, address) || evict_first(State::idle, address);
}

bool ConnectionTable::evict_first(State state, const std::string& address) {
  const auto& list = list_of(state);
  const auto found = std::ranges::find_if(list, [&](const Slot* slot) { return address.empty() || slot->address_ == address; });
  if (found == list.end()) return false;
  Slot& slot = **found;
  remove(slot);
  ++evicted_;
  if (slot.evict_) slot.evict_();
  return true;
}

void ConnectionTable::remove(Slot& slot) {
  if (std::exchange(slot.gone_, true)) return;
  list_of(slot.state_).erase(slot.place_);
  --size_;
  if (slot.address_.empty()) return;
  const auto found = by_address_.find(slot.address_);
  if (--found->second == 0) by_address_.erase(found);
}

}  // namespace fusion
