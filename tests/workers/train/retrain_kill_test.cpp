// A retraining that is killed in the middle of an epoch and goes on gives the bytes of one that nobody disturbed.
#include <gtest/gtest.h>
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

}  // namespace
}  // namespace fusion
