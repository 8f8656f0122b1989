#pragma once

#include <map>
#include <mutex>
#include <set>
#include <utility>

#include "workers/protocol/messages.h"

namespace fusion::testing {

/// What a daemon has acknowledged: by an answer to a client, a pack or an acknowledgement to a worker. All of it must be in the database.
struct Acknowledged {
  std::set<StudyId> studies;
  std::set<protocol::Held> leases;
  std::map<std::pair<protocol::Held, int>, double> epochs;  ///< dev scores, by attempt and epoch
  std::map<TrialId, double> results;                        ///< dev scores of completed trials
  bool empty() const { return studies.empty() && leases.empty() && epochs.empty() && results.empty(); }
};

/// Writes it down as it comes. Any thread.
class Witness {
 public:
  template <typename Note>
  void note(Note note) {
    const std::lock_guard lock(guard_);
    note(seen_);
  }
  Acknowledged seen() const {
    const std::lock_guard lock(guard_);
    return seen_;
  }

 private:
  mutable std::mutex guard_;
  Acknowledged seen_;
};

}  // namespace fusion::testing
