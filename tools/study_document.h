#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "space/dataset_spec.h"
#include "space/search_space.h"
#include "space/study.h"
#include "store/store.h"

namespace fusion {

/// A study document that was found good: everything needed to store it and to begin.
struct ParsedStudy {
  StudySpec spec;            ///< `space` with every default filled in
  DatasetSpec dataset;
  std::string manifest;      ///< the feature manifest, absolute
  std::string count;         ///< architectures in the space, decimal
  std::optional<std::uint64_t> total;  ///< trials there will be, where the strategy knows

  /// The answer to `fusionctl validate`.
  nlohmann::json summary() const;
};

/// Reads a study document whole: its keys, its dataset's feature manifest (below one of `roots`), its space, its strategy, and
/// what they demand of each other. Throws ConfigError with every problem found; `source` names the document in them.
ParsedStudy parse_study(const nlohmann::json& document, const std::string& source,
                        const std::vector<std::filesystem::path>& roots);

}  // namespace fusion
