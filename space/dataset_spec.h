#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "base/json_reader.h"
#include "space/architecture.h"

namespace fusion {

/// A named feature of a backbone: one vector of `width` numbers per row.
struct TapSpec {
  std::string name;
  std::int64_t width = 0;
  bool operator==(const TapSpec&) const = default;
};

struct ModalitySpec {
  std::string name;
  std::vector<TapSpec> taps;
  bool has_logits = false;  ///< The backbone's own class scores are stored too (multitask loss, late fusion).
  bool operator==(const ModalitySpec&) const = default;
};

/// What a search has to know of a dataset's features: nothing of files and nothing of pixels. It is read from the feature
/// manifest (`features.json`, docs/data.md) and sent and stored as `to_json` writes it.
struct DatasetSpec {
  std::string name;
  std::string digest;  ///< SHA-256 of the feature manifest; a score is meaningless without it.
  std::int64_t classes = 0;
  std::vector<std::string> class_names;  ///< empty, or one per class
  std::vector<ModalitySpec> modalities;  ///< at least two; their order is the order of taps in a step
  std::map<std::string, std::int64_t> rows;  ///< split ("train", "dev", "test") -> rows
  bool operator==(const DatasetSpec&) const = default;

  /// Reads name, digest, classes, class_names, modalities (name, taps[name, width], has_logits) and rows; other keys are left
  /// to the caller. Problems go to the reader.
  static DatasetSpec read(JsonReader& reader);
  nlohmann::json to_json() const;

  /// Throws SpaceError naming the first step and tap that this dataset does not have.
  void check(const Architecture& architecture) const;

  /// The long form with names, for people and exports:
  /// {"steps": [{"taps": {"audio": "tap3", "image": "tap2"}, "op": "concat_fc", "activation": "relu"}], "triplets": [[3,2,0]]}
  nlohmann::json describe(const Architecture& architecture) const;
  /// Reads the long form (names must exist), or the triplets. Throws SpaceError.
  Architecture architecture_from_json(const nlohmann::json& value) const;
};

}  // namespace fusion
