#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

namespace fusion::ctl {

/// What the command line says over the document.
struct StudyOverrides {
  std::optional<std::string> name;
  std::optional<std::uint64_t> seed;
  std::optional<std::int64_t> priority;
};

/// Reads a study to submit ("-": stdin). A relative `dataset` that exists below the current folder is made absolute, so that a
/// file means what it meant here whatever folder the daemon runs in; one that does not exist here is sent as it stands
/// (the daemon resolves it below its data roots). Everything else is the daemon's to check.
///
/// Throws DataError for a file that cannot be read, ConfigError naming line and column for one that is not a JSON object.
nlohmann::json read_study_file(const std::string& file, const StudyOverrides& overrides);

}  // namespace fusion::ctl
