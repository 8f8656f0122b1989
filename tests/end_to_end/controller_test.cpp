#include "search/controller.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "base/random.h"
#include "tests/space/spaces.h"
#include "tests/temporary_folder.h"
#include "search/study_strategy.h"

namespace fusion {
namespace {

using nlohmann::json;

StudySpec small_spec(const json& strategy) {
  StudySpec spec;
  spec.name = "small";
  spec.dataset = "d";
  spec.space = {{"steps", {{"max", 2}}}};
  spec.strategy = strategy;
  spec.seed = 3;
  spec.parallel = 4;
  return spec;
}

double planted_score(const Architecture& architecture) {
  return static_cast<double>(mix_text(1, canonical_text(architecture)) % 1000) / 1000;
}

/// Runs a study with a real store on a file, with an instant worker, in one thread; stops after `limit` results.
class Bench {
 public:
  explicit Bench(const testing::TemporaryFolder& folder) : file_((folder / "t.db").string()) {}

  std::string error;
  bool completed = false;
  int tells = 1;  ///< how often each end is told

  void run(const json& strategy, int limit) {
    Store store = Store::open(file_, clock_);
    if (store.studies().empty()) store.create_study(small_spec(strategy), testing::avmnist_spec(), "/d");
    store.requeue_leased();
    StudyRecord study = store.studies()[0];
    const std::vector<Trial> trials = store.trials(study.id);
    asio::io_context io;  // outlives the store thread, which posts to it until its end
    GroupCommit commit(std::move(store), [](std::exception_ptr) {});
    auto work = asio::make_work_guard(io);
    Controller::Hooks hooks;
    std::shared_ptr<Controller> controller;
    hooks.ready = [&](std::vector<ReadyTrial> ready) {
      for (ReadyTrial& trial : ready) {
        if (limit-- <= 0) {
          io.stop();
          return;
        }
        finish(io, commit, controller, study.id, trial);
      }
    };
    hooks.completed = [&] {
      completed = true;
      io.stop();
    };
    hooks.broken = [&](std::exception_ptr failure) {
      try {
        std::rethrow_exception(failure);
      } catch (const std::exception& exception) {
        error = exception.what();
      }
      io.stop();
    };
    controller = std::make_shared<Controller>(study, make_study_strategy(study, trials), commit, io.get_executor(), hooks);
    try {
      controller->resume(trials);
      io.run();
    } catch (const Error& failure) {
      error = failure.what();
    }
    controller->stop();
  }

  std::vector<std::string> proposals() {
    Store store = Store::open(file_, clock_);
    std::vector<std::string> texts;
    for (const Trial& trial : store.trials(StudyId{1})) texts.push_back(canonical_text(trial.architecture));
    return texts;
  }
  std::vector<Trial> trials() { return Store::open(file_, clock_).trials(StudyId{1}); }
  StudyState state() { return Store::open(file_, clock_).studies()[0].state; }
  const std::string& file() const { return file_; }

 private:
  void finish(asio::io_context& io, GroupCommit& commit, std::shared_ptr<Controller>& controller, StudyId, const ReadyTrial& trial) {
    commit.async(
        io.get_executor(),
        [trial](Store& store) {
          const WorkerId worker = store.join_worker({{}, "w", "h", "cpu", "1", "1", 1, 1});
          TrialOutcome outcome;
          outcome.trial = trial.id;
          outcome.attempt = store.lease(trial.id, worker).value();
          outcome.score = Score{};
          outcome.score->dev_score = planted_score(trial.architecture);
          return store.finish(outcome);
        },
        [this, &controller, trial](StoreResult<FinishResult> done) {
          ASSERT_TRUE(done.value().accepted);
          const Told told{trial.ask_index, trial.architecture, TrialState::completed, planted_score(trial.architecture)};
          for (int i = 0; i < tells; ++i) controller->tell(told, done.value().told_index);
        });
  }

  SystemClock clock_;
  std::string file_;
};

const json kMfas = {{"name", "mfas"}, {"iterations", 2}, {"levels", 2}, {"samples", 5}};

TEST(ControllerTest, RunsAStudyToItsEnd) {
  testing::TemporaryFolder folder;
  Bench bench(folder);
  bench.run(kMfas, 1'000);
  EXPECT_EQ(bench.error, "");
  EXPECT_TRUE(bench.completed);
  EXPECT_EQ(bench.trials().size(), 45u);  // 30 + 3 x 5
  EXPECT_EQ(bench.state(), StudyState::completed);
}

TEST(ControllerTest, AnInterruptedStudyProposesTheSame) {
  testing::TemporaryFolder whole_folder;
  Bench whole(whole_folder);
  whole.run(kMfas, 1'000);
  for (const int first : {1, 7, 30, 31, 36}) {
    testing::TemporaryFolder folder;
    Bench parts(folder);
    parts.run(kMfas, first);
    EXPECT_FALSE(parts.completed);
    parts.run(kMfas, 5);
    parts.run(kMfas, 1'000);
    EXPECT_EQ(parts.error, "");
    EXPECT_TRUE(parts.completed);
    EXPECT_EQ(parts.proposals(), whole.proposals()) << "stopped after " << first;
  }
}

TEST(ControllerTest, AnEndThatIsToldAgainIsIgnored) {
  testing::TemporaryFolder folder;
  Bench bench(folder);
  bench.tells = 2;
  bench.run(kMfas, 7);
  bench.run(kMfas, 1'000);
  EXPECT_EQ(bench.error, "");
  EXPECT_TRUE(bench.completed);
  EXPECT_EQ(bench.trials().size(), 45u);
}

/// Proposes four times one by one; the store refuses the third, and the fourth for the gap that leaves.
class StubbornStrategy final : public Strategy {
 public:
  std::vector<Proposal> ask(std::size_t) override {
    if (asked_ == 4) return {};
    Proposal proposal;
    proposal.architecture = architecture_from_text("[[0,0,0]]");
    proposal.replica = asked_++ == 0 ? 0 : 1;  // the third and fourth repeat the second
    return {proposal};
  }
  void tell(const Told&) override {}
  bool finished() const override { return false; }
  std::optional<std::uint64_t> total() const override { return 4; }
  std::string_view name() const override { return "stubborn"; }

 private:
  int asked_ = 0;
};

TEST(ControllerTest, AFailureIsReportedOnceAndNothingIsStoredBehindIt) {
  testing::TemporaryFolder folder;
  SystemClock clock;
  Store opened = Store::open((folder / "t.db").string(), clock);
  opened.create_study(small_spec({{"name", "random"}, {"trials", 4}}), testing::avmnist_spec(), "/d");
  const StudyRecord study = opened.studies()[0];
  asio::io_context io;
  int failures = 0;
  std::size_t ready = 0;
  {
    GroupCommit commit(std::move(opened), [](std::exception_ptr) {});
    Controller::Hooks hooks;
    hooks.ready = [&](std::vector<ReadyTrial> trials) { ready += trials.size(); };
    hooks.completed = [] { FAIL(); };
    hooks.broken = [&](std::exception_ptr) { ++failures; };
    const auto controller = std::make_shared<Controller>(study, std::make_unique<StubbornStrategy>(), commit, io.get_executor(), hooks);
    controller->resume({});
    commit.async(io.get_executor(), [](Store&) { return true; }, [&](StoreResult<bool>) { io.stop(); });
    const auto stay = asio::make_work_guard(io);
    io.run();
  }
  EXPECT_EQ(ready, 2u);
  EXPECT_EQ(failures, 1);
  EXPECT_EQ(Store::open((folder / "t.db").string(), clock).trials(study.id).size(), 2u);
}

TEST(ControllerTest, ADatabaseThatTellsAnotherStoryIsNamed) {
  testing::TemporaryFolder folder;
  Bench bench(folder);
  bench.run(kMfas, 35);
  // the seed of the study is changed behind the daemon's back: the first sampled proposal differs
  const std::string command = "sqlite3 '" + bench.file() + "' \"update studies set spec = json_set(spec, '$.seed', 99)\"";
  if (std::system("command -v sqlite3 >/dev/null") != 0) GTEST_SKIP() << "no sqlite3 shell to change the database with";
  ASSERT_EQ(std::system(command.c_str()), 0);
  Bench again(folder);
  again.run(kMfas, 1'000);
  EXPECT_THAT(again.error, ::testing::HasSubstr("replay: proposal"));
}

}  // namespace
}  // namespace fusion
