#pragma once

#include <string>

namespace fusion::protocol {

/// What stands for a dataset in `Condition::unreadable` where a worker cannot retrain on it now, though it may well search: a retraining reads
/// more than a search does, the dataset and the backbones.
inline std::string retraining_data(const std::string& dataset_digest) { return "retraining:" + dataset_digest; }

}  // namespace fusion::protocol
