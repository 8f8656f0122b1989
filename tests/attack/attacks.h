#pragma once

#include <map>
#include <string>
#include <vector>

#include "tests/attack/clients.h"

namespace fusion::attack {

/// One kind of attack: how often it was tried, what must come of it, and what came of it.
struct Row {
  std::string name, expected;
  std::map<std::string, int> got;  ///< an HTTP status, a close code, or a few words, and how often
  bool ok = true;                  ///< each was as expected
  void add(const std::string& came, bool as_expected);
  int tries() const;
};

/// Submits a study and lets a worker score its first trial, so that there is something to export and to retrain. Throws DataError.
void prepare(const Target& target);

std::vector<Row> attack_tokens(Target& target);
std::vector<Row> attack_requests(const Target& target);
/// Every field of the API that a client may put a path into, by several ways out.
std::vector<Row> attack_paths(const Target& target);
/// The files of a retraining that a worker of token `other_worker` holds.
std::vector<Row> attack_files(const Target& target);
std::vector<Row> attack_frames(const Target& target);
/// `honest` is leased to another worker, named "honest".
std::vector<Row> attack_leases(const Target& target, const protocol::Held& honest);

}  // namespace fusion::attack
