#include "tests/store/writers.h"

#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <exception>
#include <memory>

#include "store/group_commit.h"
#include "tests/store/fixtures.h"

namespace fusion::testing {
namespace {

void say(const std::string& line) {
  const std::string text = line + "\n";
  if (::write(STDOUT_FILENO, text.data(), text.size()) < 0) ::_exit(3);
}

StudyId only_study(Store& store) {
  const auto studies = store.studies();
  return studies.empty() ? add_study(store) : studies[0].id;
}

std::int64_t next_ask_index(Store& store, StudyId study) {
  const auto trials = store.trials(study);
  return trials.empty() ? 0 : trials.back().ask_index + 1;
}

/// Chains of add, then lease and finish; each answer posts the next piece of work.
struct Writer {
  asio::io_context& io;
  GroupCommit& store;
  StudyId study;
  std::int64_t next;

  void add() {
    const std::int64_t n = next++;
    store.async(
        io.get_executor(), [this, n](Store& s) { return add_trials(s, study, 1, n).at(0); },
        [this, n](StoreResult<TrialId> added) {
          say("added " + std::to_string(n) + " " + to_string(added.value()));
          score(n, added.value());
        });
  }
  void score(std::int64_t n, TrialId id) {
    store.async(
        io.get_executor(),
        [n, id](Store& s) {
          const int attempt = s.lease(id, WorkerId{}).value();
          s.add_epoch(id, attempt, {1, 0.5, 0.25, 1e-3, 0.1});
          return s.finish(completed(id, attempt, static_cast<double>(n % 1000) / 1000));
        },
        [this, n, id](StoreResult<FinishResult> result) {
          if (result.value().accepted) say("scored " + std::to_string(n) + " " + to_string(id));
          add();
        });
  }
};

}  // namespace

int run_writer(const std::string& database) {
  SystemClock clock;
  Store store = Store::open(database, clock);
  store.requeue_leased();
  const StudyId study = only_study(store);
  const std::int64_t next = next_ask_index(store, study);
  asio::io_context io;
  const auto stay = asio::make_work_guard(io);
  GroupCommit group(std::move(store), [](std::exception_ptr) { ::_exit(4); });
  Writer writer{io, group, study, next};
  for (int chain = 0; chain < 24; ++chain) writer.add();
  io.run();
  return 0;
}

int run_filling(const std::string& database, const std::string& bytes) {
  SystemClock clock;
  Store opened = Store::open(database, clock);
  const StudyId study = only_study(opened);
  std::signal(SIGXFSZ, SIG_IGN);
  const rlimit limit{std::stoul(bytes), std::stoul(bytes)};
  ::setrlimit(RLIMIT_FSIZE, &limit);

  asio::io_context io;
  const auto stay = asio::make_work_guard(io);
  GroupCommit store(std::move(opened), [](std::exception_ptr error) {
    try {
      std::rethrow_exception(error);
    } catch (const StoreError& e) {
      say(std::string("broken ") + e.what());
    }
  });
  int failed = 0;
  std::function<void(std::int64_t)> add = [&](std::int64_t n) {
    NewTrial trial = new_trial(n);
    trial.facts["ballast"] = std::string(5000, 'x');
    store.async(
        io.get_executor(), [study, trial](Store& s) { return s.add_trials(study, std::vector{trial}).at(0); },
        [&, n](StoreResult<TrialId> added) {
          if (added.ok()) {
            say("added " + std::to_string(n) + " " + to_string(added.value()));
          } else {
            say("failed " + std::to_string(n));
            if (++failed >= 20) return io.stop();
          }
          add(n + 5);
        });
  };
  for (int chain = 0; chain < 5; ++chain) add(chain);
  io.run();
  return 0;
}

int run_sample(const std::string& database) {
  ManualClock clock;
  Store store = Store::open(database, clock);
  fill_with_samples(store, clock);
  return 0;
}

/// One that was lost and came to its end, one from a file that failed, one that is paused, one at work, one that waits.
void fill_with_retrainings(Store& store, ManualClock& clock, StudyId study, TrialId trial, WorkerId worker) {
  const RetrainingId done = store.create_retraining(new_retraining(study, trial)).id;
  for (int attempt = 1; attempt <= 2; ++attempt) {
    store.lease_retraining(done, worker);
    for (int epoch = attempt; epoch <= attempt + 2; ++epoch) {
      clock.advance(std::chrono::milliseconds(12'500));
      store.add_retraining_epoch(done, attempt, retraining_epoch(epoch));
    }
    store.finish_retraining(attempt == 1 ? retraining_ended(done, 1, Outcome::lost, "the worker was silent for 60 s") : retrained(done, 2, 0.875));
  }
  NewRetraining from_file = new_retraining({}, {}, HeadKind::bert);
  from_file.lineage = {{"source", "best.json"}, {"study", {{"id", 9}, {"name", "elsewhere"}}}, {"trial", {{"id", 77}, {"dev_score", 0.75}}}};
  from_file.retries = 0;
  const RetrainingId failed = store.create_retraining(from_file).id;
  store.lease_retraining(failed, worker);
  store.finish_retraining(retraining_ended(failed, 1, Outcome::failed, "the loss became NaN in epoch 2; the last finite one was 1.25"));
  const RetrainingId paused = store.create_retraining(new_retraining(study, trial, HeadKind::mmtm)).id;
  store.pause_retraining(paused);
  const RetrainingId leased = store.create_retraining(new_retraining(study, trial, HeadKind::lstm)).id;
  store.lease_retraining(leased, worker);
  store.create_retraining(new_retraining(study, trial));
  store.add_event({0, 0, "retraining_submitted", study, trial, {}, "linear head", done});
}

void fill_with_samples(Store& store, ManualClock& clock) {
  using std::chrono::milliseconds;
  store.begin_group();  // one sync to disk instead of eighty
  const WorkerId gone = store.join_worker({{}, "w1", "node1", "cuda:0", "0.1.0", "2.4.0", 4711, 8});
  const WorkerId here = store.join_worker({{}, "w2", "node2", "cpu", "0.1.0", "1.13.0", 42, 2});
  const StudyId first = add_study(store, "first", 1);
  const StudyId second = add_study(store, "second");
  store.add_event({0, 0, "study_submitted", first, {}, {}, "first on avmnist"});
  const auto ids = add_trials(store, first, 12);
  add_trials(store, second, 3);
  for (int n = 0; n < 8; ++n) {
    const TrialId id = ids[static_cast<std::size_t>(n)];
    clock.advance(milliseconds(1500));
    const int attempt = store.lease(id, n % 2 ? gone : here).value();
    for (int epoch = 1; epoch <= 3; ++epoch) {
      clock.advance(milliseconds(700));
      store.add_epoch(id, attempt, {epoch, 2.0 / epoch, 0.3 + 0.05 * n + 0.01 * epoch, 1e-3 / epoch, 0.7});
    }
    TrialOutcome outcome = completed(id, attempt, 0.3 + 0.05 * ((n * 5) % 8));
    outcome.score->test_score = 0.25 + 0.05 * n;
    store.finish(outcome);
  }
  for (int attempt = 1; attempt <= 3; ++attempt) {  // the first oom is free, then one retry: failed for good
    store.lease(ids[8], here);
    clock.advance(milliseconds(300));
    store.finish(ended(ids[8], attempt, attempt == 1 ? Outcome::oom : Outcome::failed, "CUDA out of memory"));
  }
  store.lease(ids[9], gone);
  store.finish(ended(ids[9], 1, Outcome::lost, "the worker was silent for 90 s"));
  store.leave_worker(gone, "connection closed");
  store.lease(ids[9], here);
  clock.advance(milliseconds(900));
  store.finish(completed(ids[9], 1, 0.62));  // late, and welcome
  store.finish(completed(ids[9], 2, 0.61));  // late, and dropped
  store.lease(ids[10], here);
  store.lease(ids[11], gone);
  store.finish(ended(ids[11], 1, Outcome::lost, "the worker was silent for 90 s"), true);
  for (int fit = 0; fit < 3; ++fit) {
    FitRow row;
    row.fit_index = fit;
    row.surrogate = "lstm";
    row.observations = 4 * (fit + 1);
    row.loss = 0.01 / (fit + 1);
    if (fit > 0) row.rank_correlation = 0.4 + 0.1 * fit, row.mean_abs_error = 0.05;
    row.seconds = 0.2;
    row.details = {{"epochs", 50}};
    store.add_fit(first, row);
  }
  store.set_study_state(second, StudyState::cancelled);
  fill_with_retrainings(store, clock, first, ids[0], here);
  store.commit_group();
}

}  // namespace fusion::testing
