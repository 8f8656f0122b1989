#include "workers/launch/async_command.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <optional>

#include "base/asio.h"
#include "base/files.h"
#include "tests/temporary_folder.h"

namespace fusion {
namespace {

using namespace std::chrono_literals;

class AsyncCommandTest : public ::testing::Test {
 protected:
  CommandEnd run(CommandLine line) {
    std::optional<CommandEnd> end;
    const auto command = AsyncCommand::start(io_, std::move(line), [&](CommandEnd how) { end = std::move(how); });
    EXPECT_FALSE(end) << "never from within";
    io_.restart();
    io_.run_for(60s);
    EXPECT_TRUE(end);
    return end.value_or(CommandEnd{});
  }
  CommandEnd shell(const std::string& script, std::chrono::milliseconds limit = 30s) {
    CommandLine line;
    line.program = "/bin/sh";
    line.arguments = {"-c", script};
    line.environment = {{"PATH", "/usr/bin:/bin"}};
    line.input = "from standard input";
    line.limit = limit;
    return run(std::move(line));
  }
  asio::io_context io_{1};
};

TEST_F(AsyncCommandTest, GivesStatusOutputAndErrors) {
  const CommandEnd end = shell("cat; echo warned >&2; exit 3");
  EXPECT_EQ(end.status, 3);
  EXPECT_EQ(end.output, "from standard input");
  EXPECT_EQ(end.errors, "warned\n");
  EXPECT_EQ(end.problem, "");
  EXPECT_FALSE(end.good());
}

TEST_F(AsyncCommandTest, TheEnvironmentIsWhatWasGiven) {
  ::setenv("SLURM_JOB_ID", "17", 1);
  const CommandEnd end = shell("/usr/bin/env | grep -v ^PWD= | grep -v ^_= | grep -v ^SHLVL=");
  ::unsetenv("SLURM_JOB_ID");
  EXPECT_EQ(end.output, "PATH=/usr/bin:/bin\n");
}

TEST_F(AsyncCommandTest, TakesMuchOutput) {
  const CommandEnd end = shell("head -c 3000000 /dev/zero | tr '\\0' x");
  EXPECT_EQ(end.output.size(), 3'000'000u);
  EXPECT_TRUE(end.good());
}

TEST_F(AsyncCommandTest, KillsWhatTakesTooLong) {
  const CommandEnd end = shell("sleep 1000 & echo begun; sleep 1000", 200ms);
  EXPECT_EQ(end.status, -1);
  EXPECT_EQ(end.problem, "did not end within 0.2 s");
}

TEST_F(AsyncCommandTest, SomebodyWhoKeepsThePipesDoesNotKeepUs) {
  const CommandEnd end = shell("setsid sleep 5 & echo begun; sleep 1000", 200ms);
  EXPECT_EQ(end.problem, "did not end within 0.2 s");
}

TEST_F(AsyncCommandTest, AProgramThatIsNotThereIsAWord) {
  CommandLine line;
  line.program = "/nowhere/sbatch";
  EXPECT_EQ(run(std::move(line)).problem, "No such file or directory");
}

TEST_F(AsyncCommandTest, DestroyedItLeavesNothing) {
  testing::TemporaryFolder folder;
  CommandLine line;
  line.program = "/bin/sh";
  line.arguments = {"-c", "echo $$ > $0.tmp; mv $0.tmp $0; exec sleep 1000", (folder / "pid").string()};
  line.environment = {{"PATH", "/usr/bin:/bin"}};
  auto command = AsyncCommand::start(io_, std::move(line), [](const CommandEnd&) { ADD_FAILURE() << "nobody is there to be told"; });
  for (int i = 0; i < 10'000 && !std::filesystem::exists(folder / "pid"); ++i) io_.run_for(2ms);
  const pid_t pid = std::stoi(read_text(folder / "pid"));
  command.reset();
  EXPECT_NE(::kill(pid, 0), 0);
  io_.restart();
  io_.run_for(20ms);
}

TEST(FindProgramTest, LooksThroughThePath) {
  EXPECT_THAT(find_program("sh", "/nowhere::/bin:/usr/bin"), ::testing::EndsWith("/sh"));
  EXPECT_EQ(find_program("no-such-program", "/bin:/usr/bin"), "");
  EXPECT_EQ(find_program("tmp", "/"), "") << "a folder is no program";
}

}  // namespace
}  // namespace fusion
