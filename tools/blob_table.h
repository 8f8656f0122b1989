#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "store/store_reader.h"

namespace fusion {

/// What workers may fetch by digest (`/api/v1/blobs/<digest>`): the manifests of the features of every study and retraining in the database,
/// and what these name: labels, features, the dataset's manifest with its arrays, and the backbones. Nothing else, and only what resolves
/// to a file below one of `roots`, links followed: a manifest that names /etc/passwd gives nothing.
struct BlobTable {
  std::map<std::string, std::string> files;     ///< digest -> path
  std::map<std::string, std::string> problems;  ///< digest of a registered manifest -> why it cannot be sent: a sentence

  /// What it was made of: manifests that were read and files that were not found, and with the database's own rows how they were then.
  std::vector<std::string> looked_at;
  std::string state;
};

/// Reads database and manifests; for a reader thread. Files are not hashed: who fetches one checks it. `known` is given back where nothing that it was
/// made of has changed, so that a digest that is not known costs one query and a look at the times of the manifests, however often it is asked for.
std::shared_ptr<const BlobTable> find_blobs(const StoreReader& reader, const std::vector<std::filesystem::path>& roots,
                                            const std::shared_ptr<const BlobTable>& known = nullptr);

}  // namespace fusion
