#include "tools/study_host.h"

#include "base/error.h"
#include "base/log.h"
#include "search/study_strategy.h"

namespace fusion {

using nlohmann::json;

namespace {

constexpr int kReadAttempts = 6;
constexpr std::chrono::milliseconds kReadAgain{50};  // doubled each time: 3 s in all

std::string text_of(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const std::exception& exception) {
    return exception.what();
  } catch (...) {
    return "unknown error";
  }
}

/// What the dispatcher has to know of the trials that workers may have: those that did not end, or that were cancelled once they had begun.
std::vector<QueuedTrial> queued_of(const std::vector<Trial>& trials) {
  std::vector<QueuedTrial> queued;
  for (const Trial& trial : trials) {
    const bool stopped = trial.state == TrialState::cancelled && trial.attempt > 0;
    if (is_final(trial.state) && !stopped) continue;
    queued.push_back({trial.id, trial.ask_index, trial.architecture, trial.seed, trial.attempt, trial.attempt > 0, trial.alone});
  }
  return queued;
}

}  // namespace

StudyHost::StudyHost(asio::any_io_executor io, asio::thread_pool& search, GroupCommit& store, Dispatcher& dispatcher,
                     std::vector<std::filesystem::path> data_roots, std::string database)
    : io_(std::move(io)), search_(search), store_(store), dispatcher_(dispatcher), data_roots_(std::move(data_roots)),
      database_(std::move(database)) {}

void StudyHost::take_up(StudyRecord study) {
  if (study.state == StudyState::running || study.state == StudyState::paused) start(std::move(study), Trials::stored);
}

void StudyHost::start(StudyRecord record, Trials trials) {
  const StudyId id = record.id;
  DispatchStudy entry;
  entry.id = id;
  entry.priority = record.spec.priority;
  entry.paused = record.state == StudyState::paused;
  entry.dataset_path = record.dataset_path;
  entry.dataset_digest = record.dataset.digest;
  entry.training = record.spec.training;
  entry.order_seed = order_seed(record.spec.seed);
  entry.early_stopping = record.spec.early_stopping;
  dispatcher_.add_study(entry);
  const auto [place, is_new] = studies_.insert_or_assign(id, Runtime{record, asio::make_strand(search_.get_executor()), nullptr, {}, {}});
  asio::post(place->second.strand, [this, record = std::move(record), trials, strand = place->second.strand] {
    if (trials == Trials::stored) read_history(record, strand, 1);
    else make_controller(record, StudyHistory(), strand);
  });
}

// On the strand. A disk that does not answer once, or descriptors that are short for a moment, must not end a study of days.
void StudyHost::read_history(const StudyRecord& record, const Strand& strand, int attempt) {
  try {
    auto history = StoreReader::open(database_).history(record.id);
    make_controller(record, history ? std::move(*history) : StudyHistory(), strand);
  } catch (const StoreError& error) {
    if (attempt == kReadAttempts) return post_broken(record.id, {});
    logger("search")->warn("study not read yet, tried again study={} attempt={} error={}", record.id.value, attempt, json(error.what()).dump());
    const auto timer = std::make_shared<asio::steady_timer>(strand, kReadAgain * (1 << attempt));
    timer->async_wait([this, record, strand, attempt, timer](const boost::system::error_code&) { read_history(record, strand, attempt + 1); });
  } catch (...) {
    post_broken(record.id, {});
  }
}

// Within a handler of an exception. Workers may have come back with trials of it; nobody will ask for these now.
void StudyHost::post_broken(StudyId id, const std::vector<Trial>& trials) {
  asio::post(io_, [this, id, error = std::current_exception(), queued = queued_of(trials)]() mutable {
    broken(id, error);
    dispatcher_.submit(id, std::move(queued));
  });
}

// On the strand. What workers report meanwhile may be in what is read here and come as `Ended` too: the controller counts.
void StudyHost::make_controller(const StudyRecord& record, const StudyHistory& history, const Strand& strand) {
  const StudyId id = record.id;
  try {
    if (history.study.state == StudyState::cancelled) {
      // Workers may have come back with trials of it: the dispatcher stops them.
      asio::post(io_, [this, id, queued = queued_of(history.trials)]() mutable { dispatcher_.submit(id, std::move(queued)); });
      return;
    }
    auto controller = std::make_shared<Controller>(record, make_study_strategy(record, history.trials), store_, strand, hooks(id));
    asio::post(io_, [this, id, controller, strand, total = controller->total()] { made(id, controller, strand, total); });
    controller->resume(history.trials);
    // A fork knows only now how many of the inherited trials it met.
    asio::post(io_, [this, id, controller, total = controller->total()] {
      const auto found = studies_.find(id);
      if (found != studies_.end() && found->second.controller == controller) found->second.total = total;
    });
  } catch (...) {
    post_broken(id, history.trials);
  }
}

void StudyHost::made(StudyId id, const std::shared_ptr<Controller>& controller, const Strand& strand, std::optional<std::uint64_t> total) {
  const auto found = studies_.find(id);
  if (found == studies_.end()) {  // cancelled meanwhile
    asio::post(strand, [controller] { controller->stop(); });
    return;
  }
  found->second.controller = controller;
  found->second.total = total;
  // It was made from the record of then; a pause or resume may have come since.
  const bool paused = found->second.record.state == StudyState::paused;
  asio::post(found->second.strand, [controller, paused] { controller->set_paused(paused); });
  for (const Ended& ended : std::exchange(found->second.early, {})) tell(found->second, ended);
}

void StudyHost::tell(const Runtime& runtime, const Ended& ended) {
  const Told told{ended.ask_index, ended.architecture, ended.state, ended.score};
  asio::post(runtime.strand, [controller = runtime.controller, told, told_index = ended.told_index] { controller->tell(told, told_index); });
}

Controller::Hooks StudyHost::hooks(StudyId id) {
  Controller::Hooks hooks;
  hooks.ready = [this, id](std::vector<ReadyTrial> ready) {
    std::vector<QueuedTrial> queued;
    for (ReadyTrial& trial : ready) {
      queued.push_back({trial.id, trial.ask_index, std::move(trial.architecture), trial.seed, trial.attempts, trial.recovered, trial.alone});
    }
    // Also those of a study that was cancelled meanwhile: the dispatcher stops the workers that came back with them.
    asio::post(io_, [this, id, queued = std::move(queued)]() mutable { dispatcher_.submit(id, std::move(queued)); });
  };
  hooks.completed = [this, id] { asio::post(io_, [this, id] { forget(id); }); };
  hooks.broken = [this, id](std::exception_ptr error) { asio::post(io_, [this, id, error] { broken(id, error); }); };
  return hooks;
}

void StudyHost::forget(StudyId id) {
  dispatcher_.remove_study(id);
  studies_.erase(id);
}

void StudyHost::broken(StudyId id, std::exception_ptr error) {
  if (!studies_.contains(id)) return;  // cancelled meanwhile: the store refused what its controller wanted, as it should
  const std::string text = text_of(error);
  logger("search")->error("study failed study={} error=\"{}\"", id.value, text);
  forget(id);
  store_.async(
      io_,
      [id, text](Store& store) {
        const bool failed = store.set_study_state(id, StudyState::failed, text);
        if (failed) store.add_event({0, 0, "study_failed", id, {}, {}, text});
        return failed;
      },
      [](StoreResult<bool>) {});
}

void StudyHost::submit(json document, bool validate_only, std::function<void(json, Failed)> done) {
  asio::post(search_, [this, document = std::move(document), validate_only, done = std::move(done)]() mutable {
    Failed error;
    try {
      ParsedStudy parsed = parse_study(document, "study", data_roots_);
      asio::post(io_, [this, parsed = std::move(parsed), validate_only, done = std::move(done)]() mutable {
        if (validate_only) return done(parsed.summary(), nullptr);
        store_submitted(std::move(parsed), std::move(done));
      });
      return;
    } catch (...) {
      error = std::current_exception();
    }
    // Behind the handler, which holds the exception too: that two threads let go of one is right, but ThreadSanitizer does not see how.
    asio::post(io_, [done = std::move(done), error = std::move(error)] { done(json(), error); });
  });
}

void StudyHost::store_submitted(ParsedStudy parsed, std::function<void(json, Failed)> done) {
  store_.async(
      io_,
      [parsed](Store& store) {
        const StudyId id = store.create_study(parsed.spec, parsed.dataset, parsed.manifest);
        store.add_event({0, 0, "study_submitted", id, {}, {}, parsed.spec.name});
        return *store.study(id);
      },
      [this, parsed, done = std::move(done)](StoreResult<StudyRecord> stored) {
        try {
          const StudyRecord record = stored.value();
          logger("search")->info("study submitted study={} name=\"{}\" trials={}", record.id.value, record.spec.name,
                                 parsed.total ? std::to_string(*parsed.total) : "unknown");
          json summary = parsed.summary();
          summary["study"] = record.id.value;
          start(record, Trials::none);
          done(std::move(summary), nullptr);
        } catch (...) {
          done(json(), std::current_exception());
        }
      });
}

void StudyHost::fork(StudyId parent, ForkRequest request, std::function<void(json, Failed)> done) {
  using Found = std::pair<std::optional<StudyRecord>, std::int64_t>;
  store_.async(
      io_, [parent](Store& store) -> Found { return {store.study(parent), store.forkable(parent)}; },
      [this, request = std::move(request), done = std::move(done)](StoreResult<Found> found) mutable {
        try {
          if (!found.value().first) return done(json(), nullptr);
          asio::post(search_, [this, found = found.value(), request = std::move(request), done = std::move(done)]() mutable {
            Failed error;
            try {
              ParsedFork parsed = parse_fork(request, *found.first, found.second, data_roots_);
              asio::post(io_, [this, parsed = std::move(parsed), done = std::move(done)]() mutable { store_fork(std::move(parsed), std::move(done)); });
              return;
            } catch (...) {
              error = std::current_exception();
            }
            asio::post(io_, [done = std::move(done), error = std::move(error)] { done(json(), error); });  // behind the handler, as above
          });
        } catch (...) {
          done(json(), std::current_exception());
        }
      });
}

void StudyHost::store_fork(ParsedFork parsed, std::function<void(json, Failed)> done) {
  store_.async(
      io_,
      [parsed](Store& store) -> StudyRecord {
        const StudyId id = store.fork_study(parsed.lineage, parsed.study.spec);
        store.add_event({0, 0, "study_forked", id, {}, {},
                         parsed.study.spec.name + ": from study " + to_string(parsed.lineage.from) + " at " + std::to_string(parsed.lineage.at)});
        return *store.study(id);
      },
      [this, parsed, done = std::move(done)](StoreResult<StudyRecord> stored) {
        try {
          const StudyRecord& record = stored.value();
          logger("search")->info("study forked study={} from={} at={} observed={} name=\"{}\"", record.id.value, parsed.lineage.from.value,
                                 parsed.lineage.at, parsed.lineage.observed, record.spec.name);
          json summary = parsed.study.summary();
          summary["study"] = record.id.value;
          start(record, Trials::stored);
          done(std::move(summary), nullptr);
        } catch (...) {
          done(json(), std::current_exception());
        }
      });
}

void StudyHost::change(StudyId id, StudyAction action, std::function<void(ChangeResult, Failed)> done) {
  if (action == StudyAction::resume && !studies_.contains(id)) return restart(id, std::move(done));
  const StudyState state = action == StudyAction::pause    ? StudyState::paused
                           : action == StudyAction::resume ? StudyState::running
                                                           : StudyState::cancelled;
  store_.async(
      io_,
      [id, state](Store& store) {
        const auto study = store.study(id);
        if (!study) return ChangeResult::unknown_study;
        if (study->state == state) return ChangeResult::done;
        if (study->state == StudyState::failed && state == StudyState::paused) return ChangeResult::not_allowed;
        if (!store.set_study_state(id, state)) return ChangeResult::not_allowed;
        store.add_event({0, 0, "study_" + std::string(name_of(state)), id, {}, {}, ""});
        return ChangeResult::done;
      },
      [this, id, state, done = std::move(done)](StoreResult<ChangeResult> changed) {
        try {
          if (changed.value() == ChangeResult::done) apply(id, state);
          done(changed.value(), nullptr);
        } catch (...) {
          done(ChangeResult::not_allowed, std::current_exception());
        }
      });
}

void StudyHost::apply(StudyId id, StudyState state) {
  const auto found = studies_.find(id);
  if (found == studies_.end()) return;
  const auto controller = found->second.controller;
  const auto strand = found->second.strand;
  if (state == StudyState::cancelled) {
    if (controller) asio::post(strand, [controller] { controller->stop(); });
    dispatcher_.cancel_study(id, "the study was cancelled");
    studies_.erase(found);
    return;
  }
  const bool paused = state == StudyState::paused;
  found->second.record.state = state;
  dispatcher_.set_paused(id, paused);
  if (controller) asio::post(strand, [controller, paused] { controller->set_paused(paused); });
}

/// A study that failed is taken up again from the database, as after a start.
void StudyHost::restart(StudyId id, std::function<void(ChangeResult, Failed)> done) {
  using Found = std::pair<ChangeResult, std::optional<StudyRecord>>;
  store_.async(
      io_,
      [id](Store& store) -> Found {
        const auto study = store.study(id);
        if (!study) return {ChangeResult::unknown_study, {}};
        if (study->state != StudyState::failed || !store.set_study_state(id, StudyState::running)) {
          return {ChangeResult::not_allowed, {}};
        }
        store.add_event({0, 0, "study_running", id, {}, {}, "resumed after a failure"});
        return {ChangeResult::done, store.study(id)};
      },
      [this, done = std::move(done)](StoreResult<Found> found) {
        try {
          auto& [result, stored] = found.value();
          if (result == ChangeResult::done) start(*stored, Trials::stored);
          done(result, nullptr);
        } catch (...) {
          done(ChangeResult::not_allowed, std::current_exception());
        }
      });
}

void StudyHost::on_ended(const Ended& ended) {
  const auto found = studies_.find(ended.study);
  if (found == studies_.end()) return;
  if (found->second.controller) {
    tell(found->second, ended);
  } else {
    found->second.early.push_back(ended);
  }
}

void StudyHost::on_paused(StudyId id, const std::string& why) {
  const auto found = studies_.find(id);
  if (found == studies_.end()) return;
  found->second.record.state = StudyState::paused;
  found->second.record.error = why;
  if (const auto controller = found->second.controller) {
    asio::post(found->second.strand, [controller] { controller->set_paused(true); });
  }
}

std::optional<std::uint64_t> StudyHost::total(StudyId id) const {
  const auto found = studies_.find(id);
  return found == studies_.end() ? std::nullopt : found->second.total;
}

void StudyHost::stop() {
  for (auto& [id, runtime] : studies_) {
    if (const auto controller = runtime.controller) asio::post(runtime.strand, [controller] { controller->stop(); });
  }
}

}  // namespace fusion
