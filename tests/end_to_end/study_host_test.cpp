#include "tools/study_host.h"

#include <gmock/gmock.h>
#include <spdlog/sinks/ostream_sink.h>

#include <sstream>

#include "base/log.h"
#include "search/study_strategy.h"
#include "tests/space/spaces.h"
#include "tests/workers/dispatch/harness.h"

namespace fusion {
namespace {

using protocol::Cancel;
using protocol::Pack;
using testing::Harness;
using testing::ScriptedWorker;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

/// Store, dispatcher and a host whose search thread stands still until it is let go: what happens while a controller replays.
class StudyHostTest : public ::testing::Test {
 protected:
  StudyHostTest() { logger("search")->sinks().push_back(sink_); }
  ~StudyHostTest() override {
    let_go();
    search_.join();
    h_.on_store([](Store&) {});
    h_.on_io([this] { host_.reset(); });
    logger("search")->sinks().pop_back();
  }

  void begin() {
    h_.dispatch.on_ended = [this](const Ended& ended) { host_->on_ended(ended); };
    asio::post(search_, [wait = held_up_.get_future().share()] { wait.wait(); });
    h_.on_io([this] {
      host_ = std::make_unique<StudyHost>(h_.io->get_executor(), search_, *h_.store, *h_.dispatcher,
                                          std::vector<std::filesystem::path>{"/"}, (h_.folder / "fusion.db").string());
    });
  }
  void let_go() {
    if (!std::exchange(gone_, true)) held_up_.set_value();
  }
  void take_up(StudyId study) {
    const StudyRecord stored = h_.on_store([study](Store& s) { return *s.study(study); });
    h_.on_io([&] { host_->take_up(stored); });
  }
  void cancel(StudyId study) {
    std::promise<ChangeResult> changed;
    h_.on_io([&] {
      host_->change(study, StudyAction::cancel, [&](ChangeResult result, StudyHost::Failed) { changed.set_value(result); });
    });
    EXPECT_EQ(changed.get_future().get(), ChangeResult::done);
  }
  /// Until all that was posted between the threads is done.
  void settle() {
    let_go();
    for (int i = 0; i < 5; ++i) {
      std::promise<void> passed;
      asio::post(search_, [&] { passed.set_value(); });
      passed.get_future().wait();
      h_.on_store([](Store&) {});
      h_.on_io([] {});
    }
  }
  /// Lines of the search's log at `error`.
  std::string errors() {
    std::string found, line;
    std::istringstream lines(log_.str());
    while (std::getline(lines, line)) {
      if (line.find("error") != std::string::npos) found += line + "\n";
    }
    return found;
  }

  Harness h_;
  asio::thread_pool search_{1};
  std::promise<void> held_up_;
  bool gone_ = false;
  std::unique_ptr<StudyHost> host_;
  std::ostringstream log_;
  std::shared_ptr<spdlog::sinks::ostream_sink_mt> sink_ = std::make_shared<spdlog::sinks::ostream_sink_mt>(log_);
};

TEST_F(StudyHostTest, AStudyCancelledWhileItsControllerIsMadeProposesNothingAndIsNoError) {
  begin();
  const StudyId study = h_.add_study(0);
  h_.on_io([&] { h_.dispatcher->remove_study(study); });
  h_.on_store([&](Store& s) { return s.set_study_state(study, StudyState::paused); });
  take_up(study);
  cancel(study);
  settle();
  EXPECT_THAT(h_.trials_of(study), IsEmpty());
  EXPECT_EQ(errors(), "");
  EXPECT_EQ(h_.on_store([&](Store& s) { return s.study(study)->state; }), StudyState::cancelled);
}

TEST_F(StudyHostTest, WorkersThatCameBackWithTrialsOfACancelledStudyAreStopped) {
  const StudyId study = h_.add_study(2);
  auto before = std::make_unique<ScriptedWorker>(h_.port());
  before->join("w", 2);
  const Pack pack = before->expect<Pack>();
  before->vanish();
  h_.end();
  h_.begin();
  h_.on_store([](Store& s) { return s.requeue_leased(); });
  begin();
  take_up(study);
  ScriptedWorker again(h_.port());
  again.join("w", 2, {testing::held(pack.trials[0])});
  EXPECT_EQ(h_.trial(pack.trials[0].trial).state, TrialState::leased);
  cancel(study);
  let_go();
  EXPECT_THAT(again.expect<Cancel>().held, ElementsAre(testing::held(pack.trials[0])));
  settle();
  for (const Trial& trial : h_.trials_of(study)) EXPECT_EQ(trial.state, TrialState::cancelled);
  EXPECT_EQ(errors(), "");
}

TEST_F(StudyHostTest, AResultThatComesBeforeTheTrialsAreReadIsToldOnce) {
  std::vector<TrialId> trials;
  const StudyId study = h_.on_store([&trials](Store& s) {
    StudySpec spec;
    spec.name = "small";
    spec.dataset = "d";
    spec.space = {{"steps", {{"max", 2}}}};
    spec.strategy = {{"name", "random"}, {"trials", 3}};
    const StudyId id = s.create_study(spec, testing::avmnist_spec(), "/d");
    std::vector<NewTrial> proposed;
    for (const Proposal& proposal : make_study_strategy(*s.study(id))->ask(3)) {
      const auto place = static_cast<std::int64_t>(proposed.size());
      proposed.push_back({place, proposal.architecture, 0, trial_seed(spec.seed, proposal.architecture, 0)});
    }
    trials = s.add_trials(id, proposed);
    s.lease(trials[0], s.join_worker({{}, "w", "here", "cpu", "0.1.0", "1.13.0", 1, 1}));
    s.requeue_leased();
    return id;
  });
  h_.dispatch.on_ended = [this](const Ended& ended) { host_->on_ended(ended); };  // a dispatcher takes it when it is made
  h_.end();
  h_.begin();
  begin();
  take_up(study);
  ScriptedWorker worker(h_.port());
  const protocol::Held first{trials[0], 1};
  worker.join("w", 3, {first});
  EXPECT_TRUE(worker.report(first, 0.5).accepted);
  let_go();
  const Pack pack = worker.expect<Pack>();
  ASSERT_EQ(pack.trials.size(), 2u);
  for (const TrialJob& job : pack.trials) EXPECT_TRUE(worker.report(testing::held(job), 0.5).accepted);
  const auto state = [&] { return h_.on_store([study](Store& s) { return s.study(study)->state; }); };
  for (int i = 0; i < 1000 && state() == StudyState::running; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_EQ(state(), StudyState::completed);
  EXPECT_EQ(errors(), "");
}

TEST_F(StudyHostTest, AStudyThatCannotBeReplayedFailsOnceAndItsTrialsWaitInTheStore) {
  const StudyId study = h_.add_study(1);
  auto before = std::make_unique<ScriptedWorker>(h_.port());
  before->join("w");
  const Pack pack = before->expect<Pack>();
  before->vanish();
  h_.end();
  h_.begin();
  h_.on_store([](Store& s) { return s.requeue_leased(); });
  begin();
  take_up(study);
  ScriptedWorker again(h_.port());
  again.join("w", 1, {testing::held(pack.trials[0])});
  let_go();  // its strategy is empty: it cannot be made
  EXPECT_THAT(again.expect<Cancel>().held, ElementsAre(testing::held(pack.trials[0])));
  settle();
  EXPECT_EQ(h_.on_store([&](Store& s) { return s.study(study)->state; }), StudyState::failed);
  EXPECT_EQ(h_.trial(pack.trials[0].trial).state, TrialState::queued);
  EXPECT_THAT(errors(), HasSubstr("study failed study=1"));
}

}  // namespace
}  // namespace fusion
