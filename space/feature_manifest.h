#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "space/dataset_spec.h"

namespace fusion {

/// The feature manifest a study's `dataset` means: the path itself if it is a features.json (a JSON whose `format` is
/// fusiond-features-1), else `features/features.json` beside the dataset.json. Throws ConfigError if there is none, saying
/// which command makes it.
std::filesystem::path feature_manifest_path(const std::filesystem::path& dataset);

/// Reads the manifest's head and checks its digest against its content; files are not opened (a worker does that). Throws
/// ConfigError or DataError with every problem.
DatasetSpec read_feature_manifest(const std::filesystem::path& manifest);

/// SHA-256 of a manifest without its `digest` member, keys sorted, no blanks.
std::string manifest_digest(nlohmann::json manifest);

}  // namespace fusion
