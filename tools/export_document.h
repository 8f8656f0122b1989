#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>

#include "store/store_reader.h"

namespace fusion {

/// What `fusionctl export` writes: the best trials of a study (none that was ended early) with everything needed to train them again elsewhere, also
/// from another database: {"format": "fusiond-export-1", "study": {id, name, seed, state, strategy, space, dataset, dataset_file (as submitted)},
/// "dataset": {...DatasetSpec}, "training": {...}, "architectures": [{"rank", "trial", "dev_score", "test_score", "seed",
/// "triplets", "steps": [{"taps": {"audio": "tap3"}, "op", "activation"}], "train_s", ...}]}. nullopt: no such study.
std::optional<nlohmann::json> export_document(const StoreReader& reader, StudyId study, std::int64_t top);

}  // namespace fusion
