#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/id.h"
#include "workers/simulate/objective.h"

namespace fusion {

/// What is known of a run beside its database.
struct HistoryWitness {
  std::vector<std::filesystem::path> journals;              ///< of its workers (workers/client/journal.h)
  std::vector<std::pair<StudyId, std::string>> submitted;   ///< studies whose submission was answered, with their names
  std::shared_ptr<const SimulatedObjective> objective;      ///< what its workers simulated; may be null
};

/// What was found. Each finding is a sentence that names the study, trial or attempt.
struct HistoryFindings {
  std::vector<std::string> lost;     ///< acknowledged to a worker or to whoever submitted, and not in the database, or not as it was sent
  std::vector<std::string> doubled;  ///< stored, or acknowledged as stored, twice
  std::vector<std::string> stuck;    ///< has not come to an end
  std::vector<std::string> illegal;  ///< a state, or a sequence of attempts, that the rules of docs/schema.md do not allow

  std::int64_t studies = 0, trials = 0, attempts = 0, epochs = 0;
  std::int64_t results_acknowledged = 0, epochs_acknowledged = 0;  ///< by the journals; the accepted ones
  std::int64_t torn = 0;                                           ///< lines of journals that a kill left unfinished

  bool good() const { return lost.empty() && doubled.empty() && stuck.empty() && illegal.empty(); }
};

/// Judges a database whose studies should all have ended, against what its workers wrote down: nothing acknowledged is lost, nothing is
/// stored twice, nothing is stuck, every trial is in a legal state with a legal history. Reads only; no daemon needs to run.
///
/// Believes nothing of the schema: what a UNIQUE or a CHECK forbids is looked for all the same. Throws StoreError for a file that is no
/// database of ours, DataError for a journal that cannot be read.
HistoryFindings check_history(const std::string& database, const HistoryWitness& witness);

}  // namespace fusion
