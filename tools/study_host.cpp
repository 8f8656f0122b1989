#include "tools/study_host.h"

#include "base/log.h"
#include "search/study_strategy.h"

namespace fusion {

using nlohmann::json;

namespace {

std::string text_of(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const std::exception& exception) {
    return exception.what();
  } catch (...) {
    return "unknown error";
  }
}

/// What the dispatcher has to know of the trials that did not end.
std::vector<QueuedTrial> queued_of(const std::vector<Trial>& trials) {
  std::vector<QueuedTrial> queued;
  for (const Trial& trial : trials) {
    if (is_final(trial.state)) continue;
    queued.push_back({trial.id, trial.ask_index, trial.architecture, trial.seed, trial.attempt, trial.attempt > 0, trial.alone});
  }
  return queued;
}

}  // namespace

StudyHost::StudyHost(asio::any_io_executor io, asio::thread_pool& search, GroupCommit& store, Dispatcher& dispatcher,
                     std::vector<std::filesystem::path> data_roots)
    : io_(std::move(io)), search_(search), store_(store), dispatcher_(dispatcher), data_roots_(std::move(data_roots)) {}

void StudyHost::take_up(StudyRecord study, std::vector<Trial> trials) {
  if (study.state == StudyState::running || study.state == StudyState::paused) start(std::move(study), std::move(trials));
}

void StudyHost::start(StudyRecord record, std::vector<Trial> trials) {
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
  asio::post(place->second.strand, [this, id, record = std::move(record), trials = std::move(trials), strand = place->second.strand]() mutable {
    try {
      auto controller = std::make_shared<Controller>(record, make_study_strategy(record), store_, strand, hooks(id));
      asio::post(io_, [this, id, controller, strand, total = controller->total()] {
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
        for (const Told& told : found->second.early) {
          asio::post(found->second.strand, [controller, told] { controller->tell(told); });
        }
        found->second.early.clear();
      });
      controller->resume(trials);
    } catch (...) {
      // Workers may have come back with trials of it; nobody will ask for these now.
      asio::post(io_, [this, id, error = std::current_exception(), queued = queued_of(trials)]() mutable {
        broken(id, error);
        dispatcher_.submit(id, std::move(queued));
      });
    }
  });
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
    try {
      ParsedStudy parsed = parse_study(document, "study", data_roots_);
      asio::post(io_, [this, parsed = std::move(parsed), validate_only, done = std::move(done)]() mutable {
        if (validate_only) return done(parsed.summary(), nullptr);
        store_submitted(std::move(parsed), std::move(done));
      });
    } catch (...) {
      asio::post(io_, [done = std::move(done), error = std::current_exception()] { done(json(), error); });
    }
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
          start(record, {});
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
  using Found = std::pair<ChangeResult, std::pair<std::optional<StudyRecord>, std::vector<Trial>>>;
  store_.async(
      io_,
      [id](Store& store) -> Found {
        const auto study = store.study(id);
        if (!study) return {ChangeResult::unknown_study, {}};
        if (study->state != StudyState::failed || !store.set_study_state(id, StudyState::running)) {
          return {ChangeResult::not_allowed, {}};
        }
        store.add_event({0, 0, "study_running", id, {}, {}, "resumed after a failure"});
        return {ChangeResult::done, {store.study(id), store.trials(id)}};
      },
      [this, done = std::move(done)](StoreResult<Found> found) {
        try {
          auto& [result, stored] = found.value();
          if (result == ChangeResult::done) start(*stored.first, std::move(stored.second));
          done(result, nullptr);
        } catch (...) {
          done(ChangeResult::not_allowed, std::current_exception());
        }
      });
}

void StudyHost::on_ended(const Ended& ended) {
  const auto found = studies_.find(ended.study);
  if (found == studies_.end()) return;
  const Told told{ended.ask_index, ended.architecture, ended.state, ended.score};
  if (const auto controller = found->second.controller) {
    asio::post(found->second.strand, [controller, told] { controller->tell(told); });
  } else {
    found->second.early.push_back(told);
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
