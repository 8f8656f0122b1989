// A retraining that is killed in the middle of an epoch and goes on gives the bytes of one that nobody disturbed.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <set>

#include "base/random.h"
#include "tests/workers/train/small_retraining.h"

namespace fusion {
namespace {

using testing::SmallRetraining;

/// Runs an attempt in a process of its own and kills it -9 after that many epochs, `delay_us` later.
void run_and_kill(const RetrainingJob& job, int epochs, int delay_us) {
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    RetrainContext context;
    context.on_epoch = [&](const RetrainingEpoch& epoch) {
      const char byte = static_cast<char>(epoch.epoch);
      if (::write(ends[1], &byte, 1) != 1) ::_exit(3);
    };
    (void)retrain(job, context);
    ::_exit(0);
  }
  ::close(ends[1]);
  char byte = 0;
  while (::read(ends[0], &byte, 1) == 1 && byte < epochs) {}
  ::usleep(static_cast<useconds_t>(delay_us));
  ::kill(child, SIGKILL);
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ::close(ends[0]);
}

TEST(RetrainKillTest, GoesOnWithTheSameBytesAfterThreeKills) {
  const SmallRetraining small;
  RetrainingOptions options = SmallRetraining::options();
  options.fusion_epochs = 3;
  options.epochs = 9;
  options.batch = 4;
  const RetrainingJob job = small.job(options, "killed");
  constexpr std::uint64_t kSeed = 20;
  Rng rng(kSeed);
  std::set<int> at;
  while (at.size() < 3) at.insert(1 + static_cast<int>(rng.below(10)));
  for (const int epoch : at) run_and_kill(job, epoch, static_cast<int>(rng.below(3000)));
  const RetrainingOutcome last = retrain(job);
  ASSERT_EQ(last.outcome, Outcome::completed) << last.error;
  EXPECT_EQ(SmallRetraining::digest_of(last), SmallRetraining::digest_of(retrain(small.job(options, "undisturbed"))));
}

/// An attempt in a process of its own that may write nothing any more once it has reported that epoch, as on a disk that is full. Returns
/// how it ended.
std::string run_on_a_full_disk(const RetrainingJob& job, int epoch) {
  int ends[2];
  if (::pipe(ends) != 0) return "";
  const pid_t child = ::fork();
  if (child == 0) {
    std::signal(SIGXFSZ, SIG_IGN);  // the writer is told instead
    RetrainContext context;
    context.on_epoch = [&](const RetrainingEpoch& reported) {
      const rlimit nothing{0, 0};
      if (reported.epoch == epoch) ::setrlimit(RLIMIT_FSIZE, &nothing);
    };
    const RetrainingOutcome outcome = retrain(job, context);
    const std::string text = std::string(name_of(outcome.outcome)) + ": " + outcome.error;
    ::_exit(::write(ends[1], text.data(), text.size()) == static_cast<ssize_t>(text.size()) ? 0 : 3);
  }
  ::close(ends[1]);
  std::string said;
  char part[512];
  for (ssize_t got = 0; (got = ::read(ends[0], part, sizeof part)) > 0;) said.append(part, static_cast<std::size_t>(got));
  ::close(ends[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  return said;
}

TEST(RetrainKillTest, ADiskThatIsFullLeavesTheLastGoodCheckpoint) {
  const SmallRetraining small;
  const RetrainingJob job = small.job(SmallRetraining::options(), "full");
  const std::string said = run_on_a_full_disk(job, 1);
  EXPECT_THAT(said, ::testing::StartsWith("failed: "));
  EXPECT_THAT(said, ::testing::HasSubstr("checkpoint-2"));
  int first = 0;
  RetrainContext context;
  context.on_epoch = [&](const RetrainingEpoch& epoch) { first = first == 0 ? epoch.epoch : first; };
  const RetrainingOutcome last = retrain(job, context);
  ASSERT_EQ(last.outcome, Outcome::completed) << last.error;
  EXPECT_EQ(first, 1) << "it goes on behind epoch 1, which it tells again";
  EXPECT_EQ(SmallRetraining::digest_of(last), SmallRetraining::digest_of(retrain(small.job(SmallRetraining::options(), "roomy"))));
}

}  // namespace
}  // namespace fusion
