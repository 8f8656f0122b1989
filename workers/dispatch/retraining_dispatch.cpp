#include "workers/dispatch/retraining_dispatch.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <iterator>
#include <limits>
#include <nlohmann/json.hpp>
#include <tuple>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "workers/dispatch/log_text.h"
#include "workers/protocol/retraining_data.h"

namespace fusion {

using protocol::HeldRetraining;

namespace {

constexpr std::chrono::seconds kRetryAfter{1};

RetrainingOutcome outcome_without_score(HeldRetraining what, Outcome kind, std::string error) {
  RetrainingOutcome outcome;
  outcome.retraining = what.retraining;
  outcome.attempt = what.attempt;
  outcome.outcome = kind;
  outcome.error = std::move(error);
  return outcome;
}

Event event_of(const RetrainingOutcome& outcome, RetrainingState state, WorkerId worker) {
  Event event;
  event.kind = state == RetrainingState::queued ? "retraining_requeued" : "retraining_" + std::string(name_of(state));
  event.worker = worker;
  event.retraining = outcome.retraining;
  event.text = "attempt " + std::to_string(outcome.attempt) + " ended " + std::string(name_of(outcome.outcome)) +
               (outcome.error.empty() ? "" : ": " + outcome.error);
  return event;
}

/// Artifacts lie in the retraining's own folder; a worker that names another file is not believed. By the text alone: what lies there is looked
/// at when somebody asks for it (tools/api_retrainings.cpp).
void check_artifacts(const RetrainingOutcome& outcome, const std::string& folder) {
  if (!outcome.score) return;
  std::size_t index = 0;
  for (const Artifact& artifact : outcome.score->artifacts) {
    const std::filesystem::path path(artifact.path);
    const std::filesystem::path below = path.lexically_normal().lexically_relative(std::filesystem::path(folder).lexically_normal());
    const bool legal = path.is_absolute() && !below.empty() && *below.begin() != ".." && *below.begin() != "." &&
                       std::ranges::none_of(artifact.path, [](unsigned char c) { return c < ' '; });
    if (!legal) {
      throw ProtocolError("retraining_result frame: /score/artifacts/" + std::to_string(index) + "/path: expected a file below " + folder +
                          ", got \"" + artifact.path + "\"");
    }
    ++index;
  }
}

std::string seconds_text(double seconds) { return std::to_string(std::lround(std::max(0.0, seconds))) + " s"; }

/// The worker's own words.
std::string unread_by(const RetrainingDispatch::Candidate& worker, const std::string& digest) {
  for (const protocol::Unreadable& data : worker.condition->unreadable) {
    if (data.dataset_digest == digest || data.dataset_digest == protocol::retraining_data(digest)) return worker.name + ": " + data.why;
  }
  return "";
}

bool is_named(std::span<const HeldRetraining> named, HeldRetraining what) {
  return std::find(named.begin(), named.end(), what) != named.end();
}

}  // namespace

RetrainingDispatch::RetrainingDispatch(asio::io_context& io, GroupCommit& store, const Clock& clock, Options options, Hooks hooks)
    : io_(io),
      store_(store),
      clock_(clock),
      options_(options),
      hooks_(std::move(hooks)),
      alive_(std::make_shared<RetrainingDispatch*>(this)) {}

template <typename Work, typename Done>
void RetrainingDispatch::commit(Work work, Done done) {
  auto answer = [alive = std::weak_ptr<RetrainingDispatch*>(alive_), done = std::move(done)](auto result) mutable {
    if (!alive.expired()) done(std::move(result));
  };
  store_.async(io_.get_executor(), std::move(work), std::move(answer));
}

// ---- the daemon's side

void RetrainingDispatch::submit(QueuedRetraining retraining) {
  const RetrainingId id = retraining.job.retraining;
  const auto [at, fresh] = entries_.try_emplace(id);
  if (!fresh) return;
  at->second.priority = retraining.priority;
  at->second.paused = retraining.paused;
  if (retraining.recovered) at->second.not_before = clock_.steady() + options_.reconnect_grace;
  at->second.job = std::move(retraining.job);
  at->second.times = std::move(retraining.times);
  hooks_.changed();
}

void RetrainingDispatch::pause(RetrainingId id, const std::string& reason) {
  const auto found = entries_.find(id);
  if (found == entries_.end()) return;
  found->second.paused = true;
  for (auto& [worker, lease] : leases_) {
    if (lease.what.retraining == id && !lease.doomed) hand_back(worker, lease, reason);
  }
  hooks_.changed();
}

void RetrainingDispatch::resume(RetrainingId id) {
  const auto found = entries_.find(id);
  if (found == entries_.end()) return;
  found->second.paused = false;
  hooks_.changed();
}

void RetrainingDispatch::cancel(RetrainingId id, const std::string& reason) {
  entries_.erase(id);
  said_.erase(id);
  for (auto& [worker, lease] : leases_) {
    if (lease.what.retraining != id || std::exchange(lease.doomed, true)) continue;
    logger("dispatch")->info("retraining cancelled retraining={} worker={} attempt={} reason={}", id.value, worker, lease.what.attempt,
                             log_text(reason));
    hooks_.send(worker, protocol::Cancel{{}, reason, {lease.what}});
  }
  hooks_.changed();
}

nlohmann::json RetrainingDispatch::progress(RetrainingId id) const {
  const auto found = said_.find(id);
  if (found == said_.end()) return nullptr;
  nlohmann::json progress = found->second.progress.to_json();
  progress["age_s"] = std::chrono::duration<double>(clock_.steady() - found->second.at).count();
  return progress;
}

// ---- who gets what

bool RetrainingDispatch::before(RetrainingId a, RetrainingId b) const {
  return std::pair(-entries_.at(a).priority, a) < std::pair(-entries_.at(b).priority, b);
}

std::vector<RetrainingId> RetrainingDispatch::ready() const {
  std::vector<RetrainingId> ids;
  for (const auto& [id, entry] : entries_) {
    if (entry.place == Place::waiting && !entry.paused && entry.not_before <= clock_.steady()) ids.push_back(id);
  }
  std::ranges::sort(ids, [this](RetrainingId a, RetrainingId b) { return before(a, b); });
  return ids;
}

void RetrainingDispatch::assign(std::span<const Candidate> workers, bool study_runs, bool trials_wait) {
  const std::set<std::string> was_dry = std::exchange(dry_, {});
  if (clock_.steady() < retry_at_) return;
  std::vector<const Candidate*> free;
  for (const Candidate& worker : workers) {
    if (!involves(worker.name)) free.push_back(&worker);
  }
  const std::size_t busy = workers.size() - free.size();
  const std::size_t most = study_runs ? std::max<std::size_t>(1, workers.size() / 2) : workers.size();
  if (trials_wait && workers.size() > 1 && free.empty()) make_room(workers);
  const auto rank = [&](const Candidate* w) {
    return std::tuple(w->used > 0, !was_dry.contains(w->name), w->processes.value_or(std::numeric_limits<int>::max()),
                      static_cast<double>(w->used) / w->pack, w->name);
  };
  std::ranges::sort(free, [&](const Candidate* a, const Candidate* b) { return rank(a) < rank(b); });
  std::size_t room = most > busy ? most - busy : 0;
  for (const RetrainingId id : ready()) {
    if (room == 0) break;
    const auto worker = std::ranges::find_if(free, [&](const Candidate* w) { return can_take(*w, entries_.at(id)); });
    if (worker == free.end()) continue;  // nobody who is free can do it now
    if ((*worker)->used == 0) grant(**worker, id);
    else dry_.insert((*worker)->name);
    free.erase(worker);
    --room;
  }
}

// What the worker said is some seconds old, and its time went on.
bool RetrainingDispatch::has_time(const Candidate& worker, const Entry& entry) {
  if (worker.condition == nullptr || !worker.condition->longest_epoch_s) return true;
  const double epoch = entry.times.next(worker.device, entry.job.options).value_or(worker.condition->first_epoch_s.value_or(0));
  const double longest = *worker.condition->longest_epoch_s - worker.condition_age_s;
  return longest > 0 && epoch <= longest;
}

bool RetrainingDispatch::reads(const Candidate& worker, const Entry& entry) {
  const std::string& digest = entry.job.dataset_digest;
  return worker.condition == nullptr || (can_read(*worker.condition, digest) && can_read(*worker.condition, protocol::retraining_data(digest)));
}

bool RetrainingDispatch::can_take(const Candidate& worker, const Entry& entry) {
  const int processes = entry.job.options.processes;
  return !worker.blocked && processes <= worker.processes.value_or(processes) && reads(worker, entry) && has_time(worker, entry);
}

std::map<RetrainingId, std::string> RetrainingDispatch::why_waiting(std::span<const Candidate> workers) const {
  std::map<RetrainingId, std::string> reasons;
  for (const auto& [id, entry] : entries_) {
    if (entry.place != Place::waiting || entry.paused) continue;
    if (std::ranges::none_of(workers, [&entry = entry](const Candidate& worker) { return can_take(worker, entry); })) {
      reasons[id] = "waits for a worker" + what_is_missing(workers, entry);
    }
  }
  return reasons;
}

// One reason after the other, each of the workers that the one before does not concern.
std::string RetrainingDispatch::what_is_missing(std::span<const Candidate> workers, const Entry& entry) {
  if (workers.empty()) return "; none is connected";
  const int wanted = entry.job.options.processes;
  int largest = 0;
  std::vector<const Candidate*> able, readers;
  for (const Candidate& worker : workers) {
    const int most = worker.processes.value_or(wanted);
    largest = std::max(largest, most);
    if (most >= wanted && !worker.blocked) able.push_back(&worker);
  }
  std::ranges::copy_if(able, std::back_inserter(readers), [&](const Candidate* worker) { return reads(*worker, entry); });
  if (largest == 0) return " that retrains; those that are connected train trials only";
  if (largest < wanted) return " with " + std::to_string(wanted) + " GPUs; the largest connected has " + std::to_string(largest);
  if (able.empty()) return "; those that could take it take nothing now (fusionctl workers says why)";
  if (readers.empty()) return " that can read its data; " + unread_by(*able.front(), entry.job.dataset_digest);
  return " with more time: " + time_that_is_there(readers, entry);
}

std::string RetrainingDispatch::time_that_is_there(std::span<const Candidate* const> workers, const Entry& entry) {
  const auto longest = [](const Candidate* worker) { return worker->condition->longest_epoch_s.value_or(0) - worker->condition_age_s; };
  const Candidate* best = *std::ranges::max_element(workers, {}, longest);  // all of them have a limit, or they could take it
  const double epoch = entry.times.next(best->device, entry.job.options).value_or(best->condition->first_epoch_s.value_or(0));
  return "its next epoch takes about " + seconds_text(epoch) + ", and the most that a connected one has for it is " + seconds_text(longest(best));
}

// Every worker retrains, and trials wait: the last in the order makes room, unless one is on its way already.
void RetrainingDispatch::make_room(std::span<const Candidate> workers) {
  std::pair<const std::string, Lease>* last = nullptr;
  for (const Candidate& worker : workers) {
    const auto found = leases_.find(worker.name);
    if (found == leases_.end() || found->second.stopping || found->second.doomed) return;
    if (last == nullptr || before(last->second.what.retraining, found->second.what.retraining)) last = &*found;
  }
  if (last != nullptr) hand_back(last->first, last->second, "trials wait for a worker");
}

bool RetrainingDispatch::keeps_from_trials(const std::string& worker) const { return involves(worker) || dry_.contains(worker); }

std::optional<RetrainingId> RetrainingDispatch::held_by(const std::string& worker) const {
  const auto found = leases_.find(worker);
  if (found == leases_.end()) return std::nullopt;
  return found->second.what.retraining;
}

std::optional<std::string> RetrainingDispatch::holder(HeldRetraining what) const {
  const auto entry = entries_.find(what.retraining);
  if (entry == entries_.end() || entry->second.job.attempt != what.attempt) return std::nullopt;
  if (const std::string* worker = holder_of(what)) return *worker;
  if (entry->second.paused || entry->second.place == Place::granting) return std::nullopt;
  return "";
}

const RetrainingJob* RetrainingDispatch::job(RetrainingId id) const {
  const auto entry = entries_.find(id);
  return entry == entries_.end() ? nullptr : &entry->second.job;
}

std::vector<Workload::Retraining> RetrainingDispatch::waiting_unpaused() const {
  std::vector<Workload::Retraining> waiting;
  for (const auto& [id, entry] : entries_) {
    if (entry.paused || entry.place != Place::waiting) continue;
    const RetrainingOptions& options = entry.job.options;
    waiting.push_back({options.processes, entry.times.next("cpu", options), entry.times.next("cuda", options)});
  }
  return waiting;
}

bool RetrainingDispatch::involves(const std::string& worker) const {
  return leases_.contains(worker) || under_way_.contains(worker);
}

void RetrainingDispatch::grant(const Candidate& worker, RetrainingId id) {
  entries_.at(id).place = Place::granting;
  ++under_way_[worker.name];
  auto work = [id, connection = worker.id](Store& store) { return store.lease_retraining(id, connection); };
  auto done = [this, name = worker.name, connection = worker.id, id](StoreResult<std::optional<int>> attempt) {
    granted(name, connection, id, attempt);
  };
  commit(std::move(work), std::move(done));
}

void RetrainingDispatch::granted(const std::string& name, WorkerId connection, RetrainingId id, StoreResult<std::optional<int>>& attempt) {
  if (--under_way_[name] == 0) under_way_.erase(name);
  hooks_.changed();
  if (!attempt.ok()) {
    logger("dispatch")->error("retraining not leased retraining={} worker={}", id.value, name);
    retry_at_ = clock_.steady() + kRetryAfter;
    return wait_again(id);
  }
  const auto entry = entries_.find(id);
  if (!attempt.value() || entry == entries_.end()) return wait_again(id);  // paused or cancelled there, and here by now
  Lease lease;
  lease.what = {id, *attempt.value()};
  lease.until = clock_.steady() + options_.lease;
  entry->second.job.attempt = lease.what.attempt;
  entry->second.place = Place::leased;
  if (hooks_.connection(name) != connection || leases_.contains(name)) {
    return lose(name, lease, "the worker left before the retraining reached it");
  }
  leases_[name] = lease;
  logger("dispatch")->info("retraining leased retraining={} head={} worker={} attempt={}", id.value,
                           name_of(entry->second.job.options.head), name, lease.what.attempt);
  hooks_.send(name, protocol::RetrainingLease{entry->second.job});
}

void RetrainingDispatch::hand_back_all(const std::string& reason) {
  for (auto& [worker, lease] : leases_) {
    if (!lease.doomed) hand_back(worker, lease, reason);
  }
}

std::size_t RetrainingDispatch::waiting() const {
  return static_cast<std::size_t>(std::ranges::count_if(entries_, [](const auto& entry) { return entry.second.place == Place::waiting; }));
}

void RetrainingDispatch::hand_back(const std::string& worker, Lease& lease, const std::string& reason) {
  lease.stopping = true;
  logger("dispatch")->info("retraining to be handed back retraining={} worker={} attempt={} reason={}", lease.what.retraining.value, worker,
                           lease.what.attempt, log_text(reason));
  hooks_.send(worker, protocol::HandBack{{lease.what}, reason});
}

/// Queued in the store, or paused, as the entry knows.
void RetrainingDispatch::wait_again(RetrainingId id) {
  said_.erase(id);
  const auto found = entries_.find(id);
  if (found != entries_.end()) found->second.place = Place::waiting;
  hooks_.changed();
}

// ---- leases

void RetrainingDispatch::extend(Lease& lease) {
  lease.until = clock_.steady() + options_.lease;
  lease.named = true;
  lease.missed = 0;
}

RetrainingDispatch::Lease* RetrainingDispatch::lease_of(const std::string& worker, HeldRetraining what) {
  const auto found = leases_.find(worker);
  return found == leases_.end() || found->second.what != what ? nullptr : &found->second;
}

const std::string* RetrainingDispatch::holder_of(HeldRetraining what) const {
  for (const auto& [worker, lease] : leases_) {
    if (lease.what == what) return &worker;
  }
  return nullptr;
}

std::optional<RetrainingDispatch::Lease> RetrainingDispatch::release(const std::string& worker, HeldRetraining what) {
  if (lease_of(worker, what) == nullptr) return std::nullopt;
  std::optional<Lease> lease = std::move(leases_.at(worker));
  leases_.erase(worker);
  hooks_.changed();
  return lease;
}

void RetrainingDispatch::tick() {
  std::vector<std::string> expired;
  for (const auto& [worker, lease] : leases_) {
    if (lease.until <= clock_.steady()) expired.push_back(worker);
  }
  for (const std::string& worker : expired) {
    lose(worker, *release(worker, leases_.at(worker).what), "the worker was silent for " +
                     nlohmann::json(std::chrono::duration<double>(options_.lease).count()).dump() + " s");
  }
}

void RetrainingDispatch::lose(const std::string& worker, Lease lease, const std::string& why) {
  if (lease.doomed) return;
  logger("dispatch")->warn("retraining lost retraining={} worker={} attempt={} reason={}", lease.what.retraining.value, worker,
                           lease.what.attempt, log_text(why));
  end_attempt(worker, outcome_without_score(lease.what, Outcome::lost, why), lease, false);
}

void RetrainingDispatch::lose_unnamed(const std::string& worker, std::span<const HeldRetraining> named, bool patient, const std::string& why) {
  const auto found = leases_.find(worker);
  if (found == leases_.end() || is_named(named, found->second.what)) return;
  Lease& lease = found->second;
  if (patient && !lease.named && ++lease.missed < 2) return;
  lose(worker, *release(worker, lease.what), why);
}

// ---- what a worker names

std::optional<HeldRetraining> RetrainingDispatch::sort_held(const std::string& worker, std::span<const HeldRetraining> held,
                                                            std::vector<HeldRetraining>& refused) {
  std::optional<HeldRetraining> candidate;
  for (const HeldRetraining& what : held) {
    if (Lease* lease = lease_of(worker, what)) {
      extend(*lease);
      // What it was told may have been lost with a connection.
      if (lease->doomed) refused.push_back(what);
      else if (lease->stopping) hooks_.send(worker, protocol::HandBack{{what}, "it was told so before"});
      continue;
    }
    const auto entry = entries_.find(what.retraining);
    const bool waits = entry != entries_.end() && entry->second.place == Place::waiting && !entry->second.paused;
    // Its end is being committed, or its lease: the answer will find it.
    if (entry != entries_.end() && under_way_.contains(worker) && entry->second.place != Place::waiting) continue;
    if (!waits || candidate || involves(worker)) {
      refused.push_back(what);
      continue;
    }
    entry->second.place = Place::adopting;
    ++under_way_[worker];
    candidate = what;
  }
  return candidate;
}

bool RetrainingDispatch::adopted(const std::string& worker, HeldRetraining what, bool yes) {
  if (--under_way_[worker] == 0) under_way_.erase(worker);
  hooks_.changed();
  const auto entry = entries_.find(what.retraining);
  if (!yes || entry == entries_.end()) {
    if (!yes) wait_again(what.retraining);
    return false;
  }
  entry->second.place = Place::leased;
  Lease lease;
  lease.what = what;
  extend(lease);
  leases_[worker] = lease;
  logger("dispatch")->info("retraining readopted retraining={} worker={} attempt={}", what.retraining.value, worker, what.attempt);
  if (entry->second.paused) hand_back(worker, leases_[worker], "the retraining was paused");
  return true;
}

// ---- messages

void RetrainingDispatch::on(const std::string& worker, const protocol::RetrainingEpochReport& message) {
  const HeldRetraining what = message.what;
  protocol::RetrainingAck ack{"epoch", what, message.epoch.epoch, false};
  const std::string* holder = holder_of(what);
  if (Lease* lease = lease_of(worker, what)) extend(*lease);
  const auto entry = entries_.find(what.retraining);
  if (holder != nullptr && *holder == worker && entry != entries_.end()) entry->second.times.note(hooks_.device(worker), message.epoch);
  if (holder != nullptr && (*holder != worker || leases_.at(worker).doomed)) return hooks_.send(worker, ack);
  auto work = [message, claimed_by = holder != nullptr ? std::string() : worker](Store& store) {
    return store.add_retraining_epoch(message.what.retraining, message.what.attempt, message.epoch, claimed_by);
  };
  auto done = [this, worker, ack](StoreResult<bool> stored) mutable {
    if (!stored.ok()) {
      logger("dispatch")->error("epoch not stored retraining={} attempt={} epoch={}", ack.held.retraining.value, ack.held.attempt, ack.epoch);
      return;
    }
    ack.accepted = stored.value();
    hooks_.send(worker, ack);
  };
  commit(std::move(work), std::move(done));
}

void RetrainingDispatch::on(const std::string& worker, const protocol::RetrainingProgressReport& message) {
  Lease* lease = lease_of(worker, message.what);
  if (lease == nullptr) return;
  extend(*lease);
  if (!lease->doomed) said_[message.what.retraining] = {message.progress, clock_.steady()};
}

void RetrainingDispatch::on(const std::string& worker, const protocol::RetrainingResult& message) {
  const HeldRetraining what{message.outcome.retraining, message.outcome.attempt};
  const std::string* holder = holder_of(what);
  if (holder != nullptr && *holder != worker) {
    logger("dispatch")->warn("result dropped retraining={} attempt={} worker={} reason=\"it is leased to {}\"", what.retraining.value,
                             what.attempt, worker, *holder);
    return hooks_.send(worker, protocol::RetrainingAck{"result", what, 0, false});
  }
  if (const auto entry = entries_.find(what.retraining); entry != entries_.end()) check_artifacts(message.outcome, entry->second.job.folder);
  end_attempt(worker, message.outcome, release(worker, what), true);
}

void RetrainingDispatch::give_back(const std::string& worker, std::span<const HeldRetraining> held, const std::string& reason) {
  for (const HeldRetraining& what : held) {
    auto lease = release(worker, what);
    if (!lease || lease->doomed) continue;
    end_attempt(worker, outcome_without_score(what, Outcome::preempted, reason), std::move(lease), false);
  }
}

// ---- ends

// If the store cannot take it everything is as before, and the worker is made to come again.
void RetrainingDispatch::end_attempt(const std::string& worker, RetrainingOutcome outcome, std::optional<Lease> lease, bool acknowledge) {
  ++under_way_[worker];
  if (const auto entry = entries_.find(outcome.retraining); entry != entries_.end() && lease && !lease->doomed) {
    entry->second.place = Place::ending;
  }
  const std::string claimed_by = acknowledge && !lease ? worker : std::string();
  auto work = [outcome, claimed_by, id = hooks_.connection(worker)](Store& store) {
    const RetrainingFinish finish = store.finish_retraining(outcome, claimed_by);
    if (finish.accepted) store.add_event(event_of(outcome, finish.state, id));
    return finish;
  };
  auto done = [this, worker, outcome, lease, acknowledge](StoreResult<RetrainingFinish> finish) {
    if (--under_way_[worker] == 0) under_way_.erase(worker);
    hooks_.changed();
    const HeldRetraining what{outcome.retraining, outcome.attempt};
    if (!finish.ok()) {
      logger("dispatch")->error("result not stored retraining={} attempt={} worker={}", what.retraining.value, what.attempt, worker);
      if (lease) {
        leases_[worker] = *lease;
        leases_[worker].until = clock_.steady() + options_.lease;
        if (const auto entry = entries_.find(what.retraining); entry != entries_.end()) entry->second.place = Place::leased;
      }
      return hooks_.close(worker, "the daemon could not store a result");
    }
    if (acknowledge) hooks_.send(worker, protocol::RetrainingAck{"result", what, 0, finish.value().accepted});
    ended(worker, outcome, finish.value());
  };
  commit(std::move(work), std::move(done));
}

void RetrainingDispatch::ended(const std::string& worker, const RetrainingOutcome& outcome, const RetrainingFinish& finish) {
  const RetrainingId id = outcome.retraining;
  if (!finish.accepted) {
    logger("dispatch")->info("result not wanted retraining={} attempt={} worker={} outcome={} state={}", id.value, outcome.attempt, worker,
                             name_of(outcome.outcome), name_of(finish.state));
    const auto entry = entries_.find(id);
    if (entry == entries_.end() || entry->second.place != Place::ending) return;
    return is_final(finish.state) ? cancel(id, "retraining " + to_string(id) + " has ended") : wait_again(id);
  }
  logger("dispatch")->info("retraining ended retraining={} attempt={} worker={} outcome={} state={}", id.value, outcome.attempt, worker,
                           name_of(outcome.outcome), name_of(finish.state));
  if (!is_final(finish.state)) return wait_again(id);
  cancel(id, "retraining " + to_string(id) + " has ended");
}

}  // namespace fusion
