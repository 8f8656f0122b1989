#include "workers/launch/slurm_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace fusion {
namespace {

using ::testing::HasSubstr;

TEST(SlurmTextTest, ReadsWhatSqueuePrints) {
  const auto jobs = parse_squeue(
      "12|10|2|RUNNING|None|2026-01-31T12:00:00|node2|fusion:ab:pool:1\n"
      "10|10|3|PENDING|ReqNodeNotAvail, UnavailableNodes:node2|N/A||fusion:ab:pool:1|more\n"
      "9|9|N/A|COMPLETING|None|2026-01-31T12:00:00|node1|(null)\n\n");
  ASSERT_EQ(jobs.size(), 3u);
  EXPECT_EQ(jobs[0], (SlurmJob{12, 10, 2, "RUNNING", "", "2026-01-31T12:00:00", "node2", "fusion:ab:pool:1"}));
  EXPECT_EQ(jobs[1].reason, "ReqNodeNotAvail, UnavailableNodes:node2");
  EXPECT_EQ(jobs[1].comment, "fusion:ab:pool:1|more") << "the comment comes last and may hold anything";
  EXPECT_EQ(jobs[2].index, std::nullopt);
  EXPECT_EQ(jobs[2].comment, "");
}

TEST(SlurmTextTest, ALineOfAnotherFormIsASentence) {
  EXPECT_THAT([] { parse_squeue("12|10|2|RUNNING|None||node2|x\nJOBID PARTITION NAME\n"); },
              ::testing::ThrowsMessage<DataError>(HasSubstr("got \"JOBID PARTITION NAME\"")));
  EXPECT_THROW(parse_squeue("1|1|[0-3]|PENDING|None|||x"), DataError) << "elements that were not split";
}

TEST(SlurmTextTest, StatesMeanWhatTheyMeanForCounting) {
  EXPECT_EQ(phase_of("PENDING"), SlurmPhase::coming);
  EXPECT_EQ(phase_of("REQUEUE_HOLD"), SlurmPhase::coming);
  EXPECT_EQ(phase_of("RUNNING"), SlurmPhase::running);
  EXPECT_EQ(phase_of("SUSPENDED"), SlurmPhase::running);
  EXPECT_EQ(phase_of("A_NEW_STATE"), SlurmPhase::running) << "nothing is replaced for a word nobody understands";
  EXPECT_EQ(phase_of("COMPLETING"), SlurmPhase::closing);
  EXPECT_EQ(phase_of("PREEMPTED"), SlurmPhase::closing);
  EXPECT_EQ(phase_of("NODE_FAIL"), SlurmPhase::gone);
}

TEST(SlurmTextTest, ReadsTheIdOfASubmission) {
  EXPECT_EQ(parse_submitted("4711\n"), 4711);
  EXPECT_EQ(parse_submitted("4711;cluster\n"), 4711);
  EXPECT_EQ(parse_submitted("Submitted batch job 4711"), std::nullopt);
  EXPECT_EQ(parse_submitted(""), std::nullopt);
}

TEST(SlurmTextTest, OnlyAClearNoIsARefusal) {
  for (const char* no : {"sbatch: error: invalid partition specified: nowhere\nsbatch: error: Batch job submission failed: Invalid partition name specified",
                         "sbatch: error: Batch job submission failed: Requested node configuration is not available",
                         "sbatch: unrecognized option '--frobnicate'\nTry \"sbatch --help\" for more information"}) {
    EXPECT_EQ(classify_submit_failure(no), SubmitFailure::refused) << no;
  }
  for (const char* unclear : {"sbatch: error: Batch job submission failed: Socket timed out on send/recv operation",
                              "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)",
                              "sbatch: error: something nobody has seen before", "Killed", ""}) {
    EXPECT_EQ(classify_submit_failure(unclear), SubmitFailure::unclear) << unclear;
  }
}

TEST(SlurmTextTest, KeepsTheLastWordsOfSlurm) {
  EXPECT_EQ(slurm_words("sbatch: error: invalid partition specified: x\nsbatch: error: Batch job submission failed: Invalid partition name specified\n"),
            "Batch job submission failed: Invalid partition name specified");
  EXPECT_EQ(slurm_words(""), "");
}

TEST(SlurmTextTest, KnowsReasonsThatDoNotPass) {
  EXPECT_TRUE(waits_in_vain("JobHeldUser"));
  EXPECT_TRUE(waits_in_vain("launch failed requeued held"));
  EXPECT_TRUE(waits_in_vain("PartitionTimeLimit"));
  EXPECT_FALSE(waits_in_vain("Resources"));
  EXPECT_FALSE(waits_in_vain("ReqNodeNotAvail, UnavailableNodes:node2"));
  EXPECT_FALSE(waits_in_vain(""));
}

}  // namespace
}  // namespace fusion
