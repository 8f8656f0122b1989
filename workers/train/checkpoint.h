#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "model/flat_tensors.h"

namespace fusion {

/// Where a training is after a whole epoch: tensors by name, and what else it has to know.
struct Checkpoint {
  int epoch = 0;           ///< epochs that are done
  nlohmann::json state;
  NamedTensors tensors;
};

/// The checkpoints of one training in one folder: checkpoint-<epoch>.safetensors, the two newest are kept.
///
/// A file is written to another name, synced and renamed, and its metadata holds the digest of its content, so after a kill or a
/// power cut the last whole one is found. It is bound to the training by a text (job, architecture, options, seed, data): another
/// training's checkpoint is refused. Not thread-safe.
class CheckpointFolder {
 public:
  /// `binding`: equal text, same training.
  CheckpointFolder(std::filesystem::path folder, std::string binding);

  /// Writes it and removes all but the two newest. Throws DataError.
  void write(const Checkpoint& checkpoint) const;
  /// The newest one that is whole; nullopt if there is none. Throws DataError with a sentence if it belongs to another training.
  std::optional<Checkpoint> newest() const;

 private:
  std::vector<std::pair<int, std::filesystem::path>> files() const;  ///< newest first

  std::filesystem::path folder_;
  std::string binding_;
};

}  // namespace fusion
