#include "search/proposal_ledger.h"

#include "base/error.h"

namespace fusion {

std::int64_t ProposalLedger::ask() {
  outstanding_.insert(outstanding_.end(), asked_);
  return asked_++;
}

void ProposalLedger::tell(const Told& ended) {
  const std::string subject = "strategy: the end of proposal " + std::to_string(ended.ask_index);
  if (!is_final(ended.state)) {
    throw Error(subject + " was told with the state " + std::string(name_of(ended.state)) +
                "; expected completed, failed or cancelled");
  }
  if (outstanding_.erase(ended.ask_index) == 0) {
    throw Error(subject + " was told, but it is not outstanding; " + std::to_string(asked_) + " were asked for, " +
                std::to_string(outstanding_.size()) + " of them are");
  }
}

}  // namespace fusion
