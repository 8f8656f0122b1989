#include "tools/retraining_host.h"

#include <filesystem>
#include <utility>

#include "base/log.h"

namespace fusion {

using nlohmann::json;

RetrainingHost::RetrainingHost(asio::any_io_executor io, asio::thread_pool& search, GroupCommit& store, Dispatcher& dispatcher,
                               std::vector<std::filesystem::path> data_roots, std::filesystem::path artifacts)
    : io_(std::move(io)),
      search_(search),
      store_(store),
      dispatcher_(dispatcher),
      data_roots_(std::move(data_roots)),
      artifacts_(std::move(artifacts)) {}

void RetrainingHost::take_up(const std::vector<RetrainingRecord>& records, std::map<RetrainingId, EpochTimes> times) {
  for (const RetrainingRecord& record : records) {
    dispatcher_.retrainings().submit(
        {record.job, record.priority, record.state == RetrainingState::paused, record.job.attempt > 0, std::move(times[record.id])});
  }
}

void RetrainingHost::submit(json document, std::function<void(RetrainingId, Failed)> done) {
  const auto trial = trial_named(document);
  if (!trial) return parse(std::move(document), {}, std::move(done));
  store_.async(
      io_,
      [trial](Store& store) {
        RetrainingSource source;
        source.trial = store.trial(*trial);
        if (source.trial) source.study = store.study(source.trial->study);
        return source;
      },
      [this, document = std::move(document), done = std::move(done)](StoreResult<RetrainingSource> source) mutable {
        try {
          parse(std::move(document), std::move(source.value()), done);
        } catch (...) {
          done({}, std::current_exception());
        }
      });
}

void RetrainingHost::parse(json document, RetrainingSource source, std::function<void(RetrainingId, Failed)> done) {
  asio::post(search_, [this, document = std::move(document), source = std::move(source), done = std::move(done)]() mutable {
    Failed error;
    try {
      NewRetraining retraining = parse_retraining(document, source, data_roots_, artifacts_);
      asio::post(io_, [this, retraining = std::move(retraining), done = std::move(done)]() mutable {
        store_parsed(std::move(retraining), std::move(done));
      });
      return;
    } catch (...) {
      error = std::current_exception();
    }
    // Behind the handler, which holds the exception too: that two threads let go of one is right, but ThreadSanitizer does not see how.
    asio::post(io_, [done = std::move(done), error = std::move(error)] { done({}, error); });
  });
}

void RetrainingHost::store_parsed(NewRetraining retraining, std::function<void(RetrainingId, Failed)> done) {
  store_.async(
      io_,
      [retraining = std::move(retraining)](Store& store) {
        RetrainingRecord record = store.create_retraining(retraining);
        store.add_event({0, 0, "retraining_submitted", record.study, record.trial, {},
                         std::string(name_of(record.job.options.head)) + " head", record.id});
        return record;
      },
      [this, done = std::move(done)](StoreResult<RetrainingRecord> stored) {
        try {
          const RetrainingRecord& record = stored.value();
          logger("search")->info("retraining submitted retraining={} trial={} head={} folder={}", record.id.value, record.trial.value,
                                 name_of(record.job.options.head), record.job.folder);
          std::error_code ignored;  // it tells workers whether they share this folder; one that does makes it again
          std::filesystem::create_directories(record.job.folder, ignored);
          dispatcher_.retrainings().submit({record.job, record.priority, false, false});
          done(record.id, nullptr);
        } catch (...) {
          done({}, std::current_exception());
        }
      });
}

void RetrainingHost::change(RetrainingId id, RetrainingAction action, std::function<void(RetrainingChange, Failed)> done) {
  store_.async(
      io_,
      [id, action](Store& store) {
        const RetrainingChange change = action == RetrainingAction::pause    ? store.pause_retraining(id)
                                        : action == RetrainingAction::resume ? store.resume_retraining(id)
                                                                             : store.cancel_retraining(id);
        if (change.changed) {
          const std::string what = action == RetrainingAction::resume ? "resumed" : std::string(name_of(change.state));
          store.add_event({0, 0, "retraining_" + what, {}, {}, {}, "", id});
        }
        return change;
      },
      [this, id, action, done = std::move(done)](StoreResult<RetrainingChange> changed) {
        try {
          if (changed.value().changed) {
            RetrainingDispatch& dispatch = dispatcher_.retrainings();
            switch (action) {
              case RetrainingAction::pause: dispatch.pause(id, "the retraining was paused"); break;
              case RetrainingAction::resume: dispatch.resume(id); break;
              case RetrainingAction::cancel: dispatch.cancel(id, "the retraining was cancelled"); break;
            }
          }
          done(changed.value(), nullptr);
        } catch (...) {
          done({}, std::current_exception());
        }
      });
}

}  // namespace fusion
