#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/faults/sweep.h"

namespace fusion::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

/// Shared: it silences logs and stands in SQLite's way, once in a process.
Sweep& sweep() {
  static Sweep one;
  return one;
}

struct Case {
  FaultKind kind;
  std::int64_t stride;  ///< `vfs_sweep` does them all; here some of each kind, at different places of the run
};

class VfsSweepTest : public ::testing::TestWithParam<Case> {};

TEST_P(VfsSweepTest, NothingAcknowledgedIsLostAndTheDaemonSaysWhyItStops) {
  for (const Scene scene : {Scene::new_database, Scene::after_a_crash}) {
    const SweepTotals totals = sweep().run_all(scene, GetParam().kind, GetParam().stride, [](std::int64_t nth, const SweepRun& run) {
      EXPECT_THAT(run.violations, IsEmpty()) << "with operation " << nth;
    });
    EXPECT_GE(totals.points, 1);
    EXPECT_EQ(totals.carried_on + totals.stopped, totals.points);
  }
}

INSTANTIATE_TEST_SUITE_P(, VfsSweepTest,
                         ::testing::Values(Case{FaultKind::write_error, 67}, Case{FaultKind::short_write, 97}, Case{FaultKind::disk_full, 101},
                                           Case{FaultKind::disk_full_lasting, 83}, Case{FaultKind::sync_error, 17}, Case{FaultKind::sync_error_lasting, 9},
                                           Case{FaultKind::truncate_error, 1}, Case{FaultKind::open_error, 1}, Case{FaultKind::delete_error, 1},
                                           Case{FaultKind::read_error, 41}, Case{FaultKind::lock_error, 5}, Case{FaultKind::size_error, 7},
                                           Case{FaultKind::access_error, 5}, Case{FaultKind::map_error, 2}),
                         [](const auto& one) { return std::string(name_of(one.param.kind)); });

// What the sweep says is worth something only if it can say otherwise.

TEST(VfsSweepCheckTest, ADiskThatLiesAboutSyncsIsFoundOut) {
  const SweepRun run = sweep().run_on_a_liar();
  EXPECT_THAT(run.violations, ::testing::Contains(HasSubstr("lost: the acknowledged result of trial")));
}

TEST(VfsSweepCheckTest, AWriteThatIsForgottenIsFoundOut) {
  bool found = false;
  for (std::int64_t nth = 150; nth < 160 && !found; ++nth) found = !sweep().run_with_lost_write(nth).violations.empty();
  EXPECT_TRUE(found);
}

}  // namespace
}  // namespace fusion::testing
