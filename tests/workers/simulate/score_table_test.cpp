#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/store/fixtures.h"
#include "tests/temporary_folder.h"
#include "workers/simulate/score_table.h"

namespace fusion::testing {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class ScoreTableTest : public ::testing::Test {
 protected:
  /// So many trials, scored 0.5, 0.51, ...; each with a curve of two epochs.
  StudyId fill(std::int64_t count, const std::string& name = "table") {
    const StudyId study = add_study(store, name);
    const std::vector<TrialId> ids = add_trials(store, study, count);
    for (std::size_t i = 0; i < ids.size(); ++i) end(ids[i], 0.5 + 0.01 * static_cast<double>(i));
    return study;
  }
  void end(TrialId trial, double score) {
    store.lease(trial, {});
    store.add_epoch(trial, 1, {1, 1.0, score - 0.25, 0.1, 1});
    store.add_epoch(trial, 1, {2, 0.5, score, 0.1, 1});
    TrialOutcome outcome = completed(trial, 1, score);
    outcome.score->test_score = score - 0.125;
    store.finish(outcome);
  }
  std::string problem(std::optional<StudyId> study) {
    try {
      ScoreTable::open(path, study, "--simulate-study");
    } catch (const ConfigError& error) {
      return error.what();
    }
    return "none";
  }

  TemporaryFolder folder;
  std::string path = (folder / "table.db").string();
  ManualClock clock;
  Store store = Store::open(path, clock);
};

TEST_F(ScoreTableTest, GivesWhatWasMeasured) {
  fill(5);
  const ScoreTable table = ScoreTable::open(path, std::nullopt, "--table-study");
  EXPECT_EQ(table.entries().size(), 5u);
  EXPECT_EQ(table.dataset().modalities.size(), avmnist_spec().modalities.size());
  const Architecture third = new_trial(2).architecture;
  EXPECT_EQ(table.truth(third), 0.52);
  EXPECT_EQ(table.score(third, 1), table.score(third, 2));
  EXPECT_EQ(table.test_score(third, 1), 0.52 - 0.125);
  EXPECT_EQ(table.parameters(third), 1234);
  EXPECT_THAT(table.curve(third, 1, 2), ElementsAre(0.52 - 0.25, 0.52));
  const std::vector<double> other = table.curve(third, 1, 4);
  ASSERT_EQ(other.size(), 4u) << "another number of epochs: a curve is made up";
  EXPECT_EQ(other.back(), 0.52);
  EXPECT_EQ(table.truth(new_trial(5).architecture), std::nullopt);
  EXPECT_TRUE(table.curve(new_trial(5).architecture, 1, 2).empty());
}

TEST_F(ScoreTableTest, LeavesOutWhatWasPrunedOrFailedAndReplicas) {
  const StudyId study = add_study(store);
  std::vector<NewTrial> trials{new_trial(0), new_trial(1), new_trial(2), new_trial(2)};
  trials[3].ask_index = 3;
  trials[3].replica = 1;
  const std::vector<TrialId> ids = store.add_trials(study, trials);
  store.lease(ids[0], {});
  store.finish(ended(ids[0], 1, Outcome::pruned));
  end(ids[2], 0.5);
  end(ids[3], 0.75);
  const ScoreTable table = ScoreTable::open(path, study, "--table-study");
  EXPECT_EQ(table.entries().size(), 1u);
  EXPECT_EQ(table.truth(new_trial(2).architecture), 0.5) << "the first training counts";
}

TEST_F(ScoreTableTest, SaysWhichStudiesThereAre) {
  EXPECT_THAT(problem(std::nullopt), HasSubstr("no study in this database has scores"));
  fill(2, "first");
  EXPECT_EQ(problem(std::nullopt), "none");
  fill(3, "second");
  add_study(store, "empty");
  EXPECT_THAT(problem(std::nullopt), AllOf(HasSubstr("1 \"first\" (2 scores), 2 \"second\" (3 scores)"), HasSubstr("--simulate-study N")));
  EXPECT_EQ(problem(StudyId{2}), "none");
  EXPECT_THAT(problem(StudyId{3}), HasSubstr("--simulate-study 3: no such study with scores"));
}

}  // namespace
}  // namespace fusion::testing
