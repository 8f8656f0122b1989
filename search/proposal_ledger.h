#pragma once

#include <cstdint>
#include <set>

#include "search/strategy.h"

namespace fusion {

/// Which proposals of a strategy are outstanding: asked and not yet told.
class ProposalLedger {
 public:
  /// One more proposal; returns its ask_index.
  std::int64_t ask();
  /// Throws Error if that proposal is not outstanding, or the state is not final.
  void tell(const Told& ended);
  std::int64_t asked() const { return asked_; }
  bool none_outstanding() const { return outstanding_.empty(); }

 private:
  std::int64_t asked_ = 0;
  std::set<std::int64_t> outstanding_;
};

}  // namespace fusion
