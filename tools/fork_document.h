#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "store/store.h"
#include "tools/study_document.h"

namespace fusion {

/// The body of `POST /api/v1/studies/N/fork`: {"at": 30, "changes": {...}}.
struct ForkRequest {
  std::optional<std::int64_t> at;                       ///< absent: everything that was told so far
  nlohmann::json changes = nlohmann::json::object();    ///< members of a study document that shall differ

  /// Throws ConfigError with every problem.
  static ForkRequest read(const nlohmann::json& document);
};

struct ParsedFork {
  ParsedStudy study;
  Lineage lineage;
};

/// Makes the fork's study: the parent's document with the changes over it, read as a submitted one is. Objects among the changes are merged
/// member by member (null takes a member away); a `strategy` or `surrogate` of another name stands alone. `forkable`: Store::forkable.
///
/// Legal changes: everything but `dataset` and, where anything is inherited, `training` (its `evaluate_test` may change): scores would
/// not compare. With the same strategy, seed and space the fork retraces its parent; else its strategy begins anew and knows what was
/// inherited (Lineage::observed). Throws ConfigError with every problem.
ParsedFork parse_fork(const ForkRequest& request, const StudyRecord& parent, std::int64_t forkable,
                      const std::vector<std::filesystem::path>& roots);

}  // namespace fusion
