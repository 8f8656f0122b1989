#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "store/store.h"

namespace fusion {

/// What the database knows of the trial that a request names.
struct RetrainingSource {
  std::optional<Trial> trial;
  std::optional<StudyRecord> study;
};

/// The trial that a request names; nothing if it brings an exported file (or names none that is a number).
std::optional<TrialId> trial_named(const nlohmann::json& document);

/// Reads a request to retrain whole (docs/protocol.md, `POST /api/v1/retrainings`): where the configuration comes from, the dataset's
/// feature manifest (below one of `roots`, its digest equal), every option. `artifacts`: absolute; below it lies the retraining's folder.
/// Throws ConfigError with every problem found.
NewRetraining parse_retraining(const nlohmann::json& document, const RetrainingSource& source,
                               const std::vector<std::filesystem::path>& roots, const std::filesystem::path& artifacts);

}  // namespace fusion
