// `fusionctl replay` on databases that a study was recorded in.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/clock.h"
#include "base/json_reader.h"
#include "tests/search/recorded_study.h"
#include "tests/tools/child.h"

namespace fusion::testing {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class CtlReplayTest : public ::testing::Test {
 protected:
  StudyId record(const json& strategy, std::size_t workers, std::size_t enough = SIZE_MAX) {
    Store store = Store::open(path, clock);
    StudySpec spec;
    spec.name = "recorded";
    spec.dataset = "d";
    spec.space = {{"steps", {{"max", 3}}}};
    spec.strategy = strategy;
    spec.seed = 11;
    const StudyId study = store.create_study(spec, tiny_spec(), "/d");
    RecordedStudy(store, study, rng, scored_by_chance).run(workers, enough);
    return study;
  }

  const json kMfas{{"name", "mfas"}, {"samples", 5}, {"surrogate", {{"name", "ridge"}}}};
  TemporaryFolder folder;
  std::string path = (folder / "fusion.db").string();
  SystemClock clock;
  Rng rng{4};
};

TEST_F(CtlReplayTest, EveryStudyOfTheFileIsMadeAgain) {
  record(kMfas, 64);
  record({{"name", "random"}, {"trials", 20}}, 3, 7);
  const ChildResult all = run_fusionctl({"replay", path});
  EXPECT_EQ(all.status, 0) << all.err;
  EXPECT_THAT(all.out, StartsWith("study 1 \"recorded\": identical (48 proposals, 48 told, 9 fits)\nstudy 2 \"recorded\": identical ("));
  EXPECT_EQ(all.err, "") << "no progress where stderr is no terminal";
  const ChildResult one = run_fusionctl({"replay", path, "--study", "2", "--json"});
  EXPECT_EQ(one.status, 0) << one.err;
  const json answer = json::parse(one.out);
  EXPECT_EQ(answer["identical"], true);
  ASSERT_EQ(answer["studies"].size(), 1u);
  EXPECT_EQ(answer["studies"][0]["study"], 2);
  EXPECT_EQ(answer["studies"][0]["told"], 7);
  EXPECT_EQ(answer["studies"][0]["state"], "running");
  EXPECT_TRUE(answer["studies"][0]["difference"].is_null());
}

TEST_F(CtlReplayTest, WorksBesideTheWriterAndChangesNothing) {
  record(kMfas, 2, 10);
  const Store writer = Store::open(path, clock);
  const auto before = writer.trials(StudyId{1}).size();
  EXPECT_EQ(run_fusionctl({"replay", path}).status, 0);
  EXPECT_EQ(writer.trials(StudyId{1}).size(), before);
}

TEST_F(CtlReplayTest, TheFirstDifferenceIsNamedWithStatusOne) {
  const StudyId study = record({{"name", "random"}, {"trials", 5}}, 1);
  {
    // A sixth proposal that the strategy never made: the store has no reason to doubt it.
    Store store = Store::open(path, clock);
    StudySpec spec = store.study(study)->spec;
    spec.name = "longer";
    const StudyId other = store.create_study(spec, tiny_spec(), "/d");
    NewTrial odd;
    odd.architecture = architecture_from_text("[[0,0,0,0]]");
    odd.seed = 1;
    store.add_trials(other, std::span(&odd, 1));
  }
  const ChildResult replayed = run_fusionctl({"replay", path, "--json"});
  EXPECT_EQ(replayed.status, 1);
  const json answer = json::parse(replayed.out);
  EXPECT_EQ(answer["identical"], false);
  EXPECT_EQ(answer["studies"][0]["identical"], true);
  const json difference = answer["studies"][1]["difference"];
  EXPECT_EQ(difference["ask_index"], 0);
  EXPECT_EQ(difference["what"], "architecture");
  EXPECT_EQ(difference["stored"], "[[0,0,0,0]]");
  const ChildResult text = run_fusionctl({"replay", path, "--study", "2"});
  EXPECT_EQ(text.status, 1);
  EXPECT_THAT(text.out, HasSubstr("proposal 0: architecture: stored [[0,0,0,0]], recomputed " + difference["recomputed"].get<std::string>()));
}

TEST_F(CtlReplayTest, BadInputGetsASentence) {
  const ChildResult missing = run_fusionctl({"replay", path});
  EXPECT_EQ(missing.status, 2);
  EXPECT_THAT(missing.err, HasSubstr("there is no such file"));
  record({{"name", "random"}, {"trials", 5}}, 1);
  const ChildResult unknown = run_fusionctl({"replay", path, "--study", "7"});
  EXPECT_EQ(unknown.status, 2);
  EXPECT_THAT(unknown.err, HasSubstr("there is no study 7"));
  EXPECT_THAT(unknown.err, HasSubstr("expected one of 1"));
}

TEST_F(CtlReplayTest, ShowsProgressOnATerminal) {
  record({{"name", "mfas"}, {"samples", 10}, {"surrogate", {{"epochs", 300}}}}, 64);  // takes longer than the tenth of a second between drawings
  EXPECT_THAT(run_on_terminal({"replay", path}, 100, 30).out, HasSubstr("replay study 1"));
}

}  // namespace
}  // namespace fusion::testing
