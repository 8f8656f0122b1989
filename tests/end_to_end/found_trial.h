#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "tests/end_to_end/system.h"

namespace fusion::testing {

/// Writes folder/fusion.db: a completed study "found" on the small features in folder/features, with trial 1 completed, as a search would have
/// left it. Its seed is 4711. No daemon may be running.
void put_a_completed_trial(const std::filesystem::path& folder);

/// A system whose database has that trial, for tests of retrainings. The daemon is to be started.
class FoundTrialTest : public ::testing::Test {
 protected:
  FoundTrialTest() { put_a_completed_trial(system.folder().path()); }

  /// fusionctl retrain --trial 1 with these options; returns its id.
  std::int64_t retrain(const std::vector<std::string>& options);
  std::string state(std::int64_t retraining);
  void wait_for_completion(std::int64_t retraining, std::chrono::seconds limit = std::chrono::seconds(180));
  /// Waits until so many epochs of it are on disk.
  void wait_for_epoch(std::int64_t retraining, int epoch);

  System system;
};

}  // namespace fusion::testing
