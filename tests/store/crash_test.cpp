// Nothing acknowledged is ever lost: real processes, real files, kill -9 and a disk that is full.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <map>
#include <random>
#include <set>
#include <sstream>
#include <thread>

#include "store/database.h"
#include "store/store.h"
#include "tests/store/fixtures.h"
#include "tests/temporary_folder.h"

namespace fusion {
namespace {

/// This binary once more, with its stdout as a pipe.
class Child {
 public:
  explicit Child(const std::vector<std::string>& arguments) {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) throw std::runtime_error("no pipe");
    pid_ = ::fork();
    if (pid_ == 0) {
      ::dup2(ends[1], STDOUT_FILENO);
      std::vector<char*> argv{const_cast<char*>("store_test")};
      for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
      argv.push_back(nullptr);
      ::execv("/proc/self/exe", argv.data());
      ::_exit(127);
    }
    ::close(ends[1]);
    output_ = ends[0];
  }
  ~Child() {
    kill();
    ::close(output_);
  }
  /// Blocks until something was said, or the child is gone.
  bool read_some() {
    char buffer[1 << 16];
    const ssize_t got = ::read(output_, buffer, sizeof buffer);
    if (got > 0) said_.append(buffer, static_cast<std::size_t>(got));
    return got > 0;
  }
  void kill() {
    if (pid_ > 0) ::kill(pid_, SIGKILL);
    wait();
  }
  /// The exit status, or minus the signal.
  int wait() {
    if (pid_ <= 0) return status_;
    int status = 0;
    ::waitpid(pid_, &status, 0);
    pid_ = -1;
    return status_ = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }
  /// Whole lines only: the last one may have been cut.
  std::vector<std::string> lines() const {
    std::vector<std::string> lines;
    std::istringstream text(said_.substr(0, said_.rfind('\n') + 1));
    for (std::string line; std::getline(text, line);) lines.push_back(line);
    return lines;
  }

 private:
  pid_t pid_ = -1;
  int output_ = -1;
  int status_ = 0;
  std::string said_;
};

/// What was acknowledged: ask_index -> trial id.
struct Acknowledged {
  std::map<std::int64_t, std::int64_t> added, scored;
  std::set<std::int64_t> failed;
  int broken = 0;

  void take(const std::vector<std::string>& lines) {
    for (const std::string& line : lines) {
      std::istringstream words(line);
      std::string what;
      std::int64_t n = 0, id = 0;
      words >> what >> n >> id;
      if (what == "added") added[n] = id;
      if (what == "scored") scored[n] = id;
      if (what == "failed") failed.insert(n);
      broken += what == "broken";
    }
  }
  void check(const std::vector<Trial>& trials) const {
    std::map<std::int64_t, const Trial*> stored;
    std::set<std::int64_t> told;
    for (const Trial& trial : trials) {
      EXPECT_TRUE(stored.emplace(trial.ask_index, &trial).second) << "stored twice: " << trial.ask_index;
      if (trial.told_index < 0) continue;
      EXPECT_TRUE(told.insert(trial.told_index).second) << "told twice: " << trial.told_index;
    }
    EXPECT_EQ(told.empty() ? 0 : *told.rbegin() + 1, static_cast<std::int64_t>(told.size())) << "a gap";
    for (const auto& [n, id] : added) {
      ASSERT_TRUE(stored.contains(n)) << "acknowledged and lost: " << n;
      EXPECT_EQ(stored[n]->id.value, id);
    }
    for (const auto& [n, id] : scored) {
      ASSERT_TRUE(stored.contains(n)) << "acknowledged and lost: " << n;
      ASSERT_EQ(stored[n]->state, TrialState::completed) << "score acknowledged and lost: " << n;
      EXPECT_EQ(stored[n]->score->dev_score, static_cast<double>(n % 1000) / 1000);
    }
  }
};

class CrashTest : public ::testing::Test {
 protected:
  void expect_sound() {
    const Database database(path, Database::Access::create);
    EXPECT_EQ(database.text("PRAGMA integrity_check"), "ok");
    EXPECT_EQ(database.integer("SELECT count(*) FROM pragma_foreign_key_check"), 0);
  }
  fusion::testing::TemporaryFolder folder;
  std::string path = (folder / "fusion.db").string();
  SystemClock clock;
  Acknowledged acknowledged;
};

TEST_F(CrashTest, NothingAcknowledgedIsLostByKill9) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  for (int round = 0; round < 8; ++round) {
    Child writer({"--writer", path});
    ASSERT_TRUE(writer.read_some()) << "round " << round;
    const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(random() % 150'000);
    while (std::chrono::steady_clock::now() < end && writer.read_some()) {
    }
    writer.kill();
    while (writer.read_some()) {
    }
    acknowledged.take(writer.lines());
    const Store store = Store::open(path, clock);  // the lock of a killed process locks nothing
    acknowledged.check(store.trials(StudyId{1}));
    if (HasFailure()) return;
  }
  EXPECT_GT(acknowledged.scored.size(), 8u);
  expect_sound();
}

TEST_F(CrashTest, FullDiskBreaksTheStoreOnceAndWhollyUndoesTheGroup) {
  Child filling({"--filling", path, "1500000"});
  while (filling.read_some()) {
  }
  EXPECT_EQ(filling.wait(), 0);
  acknowledged.take(filling.lines());
  EXPECT_EQ(acknowledged.broken, 1);
  EXPECT_GE(acknowledged.failed.size(), 20u);
  EXPECT_GT(acknowledged.added.size(), 20u);
  const std::vector<Trial> trials = Store::open(path, clock).trials(StudyId{1});
  acknowledged.check(trials);
  for (const Trial& trial : trials) EXPECT_FALSE(acknowledged.failed.contains(trial.ask_index)) << trial.ask_index;
  expect_sound();
}

}  // namespace
}  // namespace fusion
