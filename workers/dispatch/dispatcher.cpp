#include "workers/dispatch/dispatcher.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "workers/dispatch/log_text.h"
#include "workers/dispatch/worker_session.h"
#include "workers/protocol/codec.h"

// Where a trial is, as seen from here:
//
//   queued    in queues_ (ready or aside)                    entry.queued
//   granting  taken out, its lease is being committed        Worker::granting
//   leased    a Lease in leases_                             Worker's slot is taken
//   ending    the lease is taken out, its end is committed   Worker::unacked
//   adopting  queued, but a worker says that it has it       adopting_
//   doomed    final or cancelled, yet a worker may still train it: no entry any more, the lease only fills a slot
//
// A trial that a worker came back with before it was submitted has a lease and no entry; `submit` finds the lease.

namespace fusion {

using protocol::Held;
using protocol::Message;

namespace {

constexpr std::chrono::seconds kRetryAfter{1};

std::string seconds_text(std::chrono::milliseconds time) {
  return nlohmann::json(std::chrono::duration<double>(time).count()).dump();
}

double seconds_between(SteadyTime from, SteadyTime to) { return std::chrono::duration<double>(to - from).count(); }

WorkerRecord record_of(const protocol::Hello& hello) {
  WorkerRecord record;
  record.name = hello.name;
  record.host = hello.host;
  record.device = hello.device;
  record.code_version = hello.code_version;
  record.torch_version = hello.torch_version;
  record.pid = hello.pid;
  record.slots = hello.slots;
  return record;
}

Event worker_event(std::string kind, WorkerId worker, std::string text) {
  Event event;
  event.kind = std::move(kind);
  event.worker = worker;
  event.text = std::move(text);
  return event;
}

/// What the log of events says of an attempt whose trial is queued again.
Event requeue_event(const TrialOutcome& outcome, const FinishResult& result, WorkerId worker) {
  Event event = worker_event(outcome.outcome == Outcome::lost ? "trial_lost" : "trial_requeued", worker,
                             "attempt " + std::to_string(outcome.attempt) + " ended " +
                                 std::string(name_of(outcome.outcome)) + (outcome.error.empty() ? "" : ": " + outcome.error));
  event.study = result.study;
  event.trial = outcome.trial;
  return event;
}

/// What may pause its study (StudySpec::pause_on).
bool is_failure(Outcome outcome) { return outcome == Outcome::failed || outcome == Outcome::oom; }

TrialOutcome outcome_without_score(Held what, Outcome kind, std::string error) {
  TrialOutcome outcome;
  outcome.trial = what.trial;
  outcome.attempt = what.attempt;
  outcome.outcome = kind;
  outcome.error = std::move(error);
  return outcome;
}

}  // namespace

Dispatcher::Dispatcher(asio::io_context& io, GroupCommit& store, const Clock& clock, DispatchOptions options)
    : io_(io),
      store_(store),
      clock_(clock),
      options_(std::move(options)),
      leases_(clock, options_.lease),
      timer_(io),
      alive_(std::make_shared<Dispatcher*>(this)),
      retrainings_(io, store, clock, {options_.lease, options_.reconnect_grace}, retraining_hooks()) {
  start_timer();
}

Dispatcher::~Dispatcher() = default;

RetrainingDispatch::Hooks Dispatcher::retraining_hooks() {
  RetrainingDispatch::Hooks hooks;
  hooks.send = [this](const std::string& worker, Message message) { send(worker, std::move(message)); };
  hooks.close = [this](const std::string& name, const std::string& reason) {
    const Worker* worker = find_worker(name);
    if (worker != nullptr && worker->session) worker->session->close(reason);
  };
  hooks.connection = [this](const std::string& name) {
    const Worker* worker = find_worker(name);
    return worker != nullptr && worker->session ? worker->id : WorkerId{};
  };
  hooks.device = [this](const std::string& name) {
    const Worker* worker = find_worker(name);
    return worker != nullptr ? worker->hello.device : std::string();
  };
  hooks.changed = [this] { schedule_pump(); };
  return hooks;
}

// Work at the store, and its answer here, unless we are gone by then.
template <typename Work, typename Done>
void Dispatcher::commit(Work work, Done done) {
  auto answer = [alive = std::weak_ptr<Dispatcher*>(alive_), done = std::move(done)](auto result) mutable {
    if (!alive.expired()) done(std::move(result));
  };
  store_.async(io_.get_executor(), std::move(work), std::move(answer));
}

void Dispatcher::start_timer() {
  timer_.expires_after(options_.tick);
  timer_.async_wait([this, alive = std::weak_ptr<Dispatcher*>(alive_)](boost::system::error_code error) {
    if (error || alive.expired() || stopped_) return;
    tick();
    start_timer();
  });
}

void Dispatcher::tick() {
  for (Lease& lease : leases_.take_expired()) {
    const bool died = died_with(lease);
    lose(std::move(lease), "the worker was silent for " + seconds_text(options_.lease) + " s", died);
  }
  retrainings_.tick();
  if (queues_.admit(clock_.steady())) schedule_pump();
  forget_gone_workers();
  schedule_pump();
}

// ---- the daemon's side

void Dispatcher::add_study(DispatchStudy study) {
  const StudyId id = study.id;
  const EarlyStopping stopping(study.early_stopping, study.training.epochs);
  update_study(std::move(study));
  if (stopping.rungs().empty()) return;
  early_stopping_.insert_or_assign(id, stopping);
  auto work = [id, rungs = stopping.rungs()](Store& store) { return store.epoch_scores(id, rungs); };
  auto done = [this, id](StoreResult<std::vector<EpochScore>> scores) {
    const auto found = early_stopping_.find(id);
    if (found == early_stopping_.end()) return;
    if (!scores.ok()) {
      logger("dispatch")->error("epochs not read study={}", id.value);
      return;
    }
    for (const EpochScore& score : scores.value()) found->second.note(score.trial, score.epoch, score.dev_score);
  };
  commit(std::move(work), std::move(done));
}

void Dispatcher::update_study(DispatchStudy study) {
  queues_.put(std::move(study));
  schedule_pump();
}

void Dispatcher::set_paused(StudyId study, bool paused) {
  queues_.set_paused(study, paused);
  schedule_pump();
}

void Dispatcher::cancel_study(StudyId study, const std::string& reason) { drop_study(study, reason, true); }

void Dispatcher::remove_study(StudyId study) { drop_study(study, "study " + to_string(study) + " was stopped", false); }

// `over`: its trials are final in the store.
void Dispatcher::drop_study(StudyId study, const std::string& reason, bool over) {
  queues_.remove(study);
  early_stopping_.erase(study);
  entry_counts_.erase(study);
  std::map<std::string, std::vector<Held>> told;
  for (auto at = entries_.begin(); at != entries_.end();) {
    const auto here = at++;
    if (here->second.study != study) continue;
    doom_leases(here->first, reason, told);
    entries_.erase(here);
  }
  tell_cancelled(told, reason);
  if (over) return;
  for (const auto& [worker, held] : told) {
    for (const Held& what : held) return_to_store(what, worker);
  }
}

void Dispatcher::submit(StudyId study, std::vector<QueuedTrial> trials) {
  if (queues_.find(study) == nullptr) return refuse_study(study, trials);
  const SteadyTime admitted = clock_.steady() + options_.reconnect_grace;
  for (QueuedTrial& job : trials) {
    const TrialId trial = job.trial;
    const std::int64_t ask_index = job.ask_index;
    const bool recovered = job.recovered;
    const auto [at, fresh] = entries_.try_emplace(trial);
    if (!fresh) continue;
    ++entry_counts_[study];
    at->second.study = study;
    at->second.job = std::move(job);
    at->second.queued = !adopting_.contains(trial) && std::ranges::all_of(leases_.of_trial(trial), &Lease::doomed);
    if (!at->second.queued) continue;
    if (recovered) {
      queues_.hold_back(study, trial, ask_index, admitted, at->second.job.alone);
    } else if (at->second.job.alone) {
      queues_.push_alone(study, trial, ask_index);
    } else {
      queues_.push(study, trial);
    }
  }
  schedule_pump();
}

void Dispatcher::refuse_study(StudyId study, const std::vector<QueuedTrial>& trials) {
  const std::string reason = "study " + to_string(study) + " does not run any more";
  std::map<std::string, std::vector<Held>> told;
  for (const QueuedTrial& job : trials) {
    if (entries_.contains(job.trial)) continue;
    if (adopting_.contains(job.trial)) unwanted_.insert(job.trial);
    doom_leases(job.trial, reason, told);
  }
  tell_cancelled(told, reason);
  for (const auto& [worker, held] : told) {
    for (const Held& what : held) return_to_store(what, worker);
  }
}

void Dispatcher::drain_workers(const std::string& reason) {
  draining_ = reason;
  for (const auto& [name, worker] : workers_) send(name, protocol::Drain{reason});
  schedule_pump();
}

void Dispatcher::hold(const std::string& reason) {
  held_ = true;
  retrainings_.hand_back_all(reason);
}

bool Dispatcher::busy() const {
  const auto holds = [this](const auto& entry) {
    const Worker& worker = entry.second;
    return worker.granting > 0 || worker.adopting > 0 || !worker.unacked.empty() || (worker.session && leases_.count(entry.first) > 0) ||
           (worker.session && retrainings_.involves(entry.first));
  };
  return std::ranges::any_of(workers_, holds);
}

// It is given nothing from now on; should the word be lost with the connection, the worker comes back as one that may be.
bool Dispatcher::drain_worker(const std::string& name, const std::string& reason) {
  Worker* worker = find_worker(name);
  if (worker == nullptr || !worker->session || !worker->id) return false;
  worker->leaving = true;
  send(name, protocol::Drain{reason});
  return true;
}

void Dispatcher::stop() {
  stopped_ = true;
  timer_.cancel();
}

Dispatcher::Outstanding Dispatcher::outstanding(StudyId study) const {
  const auto found = entry_counts_.find(study);
  Outstanding counts;
  counts.queued = queues_.waiting(study);
  if (found != entry_counts_.end()) counts.leased = found->second - counts.queued;
  return counts;
}

std::size_t Dispatcher::connected_workers() const {
  return static_cast<std::size_t>(
      std::count_if(workers_.begin(), workers_.end(), [](const auto& entry) { return entry.second.session != nullptr; }));
}

Workload Dispatcher::workload() const {
  Workload load;
  load.queued = queues_.waiting();
  load.retrainings = retrainings_.waiting_unpaused();
  for (const auto& [name, worker] : workers_) {
    if (!worker.session || !worker.id) continue;
    const std::size_t held = used_slots(worker);
    const protocol::Condition& condition = worker.hello.condition;
    load.workers.push_back({name, worker.hello.job, worker.hello.pack, held, held > 0 || retrainings_.involves(name), worker.leaving,
                            worker.hello.processes, condition.longest_epoch_s, condition.first_epoch_s});
  }
  return load;
}

std::size_t Dispatcher::free_slots() const {
  std::size_t free = 0;
  for (const auto& [name, worker] : workers_) free += free_slots(worker, used_slots(worker));
  return free;
}

DispatchLoad Dispatcher::load() const {
  DispatchLoad load;
  for (const StudyId study : queues_.studies()) {
    const Outstanding trials = outstanding(study);
    load.studies[study] = {trials.queued, trials.leased};
  }
  load.leases = leases_.size();
  load.workers = connected_workers();
  for (const auto& [name, worker] : workers_) load.slots += worker.session ? static_cast<std::size_t>(worker.hello.slots) : 0;
  load.free_slots = free_slots();
  load.retrainings_waiting = retrainings_.waiting();
  load.retrainings_leased = retrainings_.leased();
  return load;
}

nlohmann::json Dispatcher::workers_json() const {
  nlohmann::json list = nlohmann::json::array();
  const SteadyTime now = clock_.steady();
  for (const auto& [name, worker] : workers_) {
    if (!worker.session || !worker.id) continue;
    std::set<std::int64_t> held;
    for (const Held& what : leases_.of_worker(name)) held.insert(what.trial.value);
    for (const Held& what : worker.unacked) held.insert(what.trial.value);
    const std::optional<RetrainingId> retraining = retrainings_.held_by(name);
    list.push_back({{"id", worker.id.value},
                    {"name", name},
                    {"host", worker.hello.host},
                    {"pid", worker.hello.pid},
                    {"device", worker.hello.device},
                    {"pack", worker.hello.pack},
                    {"slots", worker.hello.slots},
                    {"processes", worker.hello.processes ? nlohmann::json(*worker.hello.processes) : nlohmann::json()},
                    {"code_version", worker.hello.code_version},
                    {"torch_version", worker.hello.torch_version},
                    {"held", held},
                    {"job", worker.hello.job},
                    {"node", worker.hello.node},
                    {"condition", protocol::condition_json(worker.hello.condition)},
                    {"retraining", retraining ? nlohmann::json(retraining->value) : nlohmann::json()},
                    {"connected_s", seconds_between(worker.connected, now)},
                    {"silent_s", seconds_between(worker.heard, now)}});
  }
  return list;
}

// ---- granting

// Later, so that the answers of one commit are all heard before anything is granted: then the trials of a pack that end
// together make room for one new pack instead of many small ones.
void Dispatcher::schedule_pump() {
  if (std::exchange(pump_posted_, true)) return;
  asio::post(io_, [this, alive = std::weak_ptr<Dispatcher*>(alive_)] {
    if (alive.expired()) return;
    pump_posted_ = false;
    pump();
  });
}

// Each turn gives the worker that has least before it an equal share of what is queued, at most what fills its pack or, when that is full,
// its slots. All that one worker gets of one study goes out as one pack.
void Dispatcher::pump() {
  std::map<std::pair<std::string, StudyId>, std::vector<TrialId>> packs;
  std::set<StudyId> passed_over;
  const bool granting = !stopped_ && !held_ && !draining_ && clock_.steady() >= retry_at_;
  if (granting) {
    assign_retrainings();
    assign_alone();
  }
  while (granting) {
    const auto study = queues_.next(passed_over);
    if (!study) break;
    std::size_t candidates = 0;
    Worker* worker = least_loaded(queues_.find(*study)->dataset_digest, candidates);
    if (worker == nullptr) {
      passed_over.insert(*study);
      continue;
    }
    const std::size_t share = (queues_.ready(*study) + candidates - 1) / candidates;
    const std::vector<TrialId> taken = queues_.take(*study, std::min(room(*worker), share));
    worker->granting += taken.size();
    worker->served = ++turn_;
    auto& pack = packs[{worker->hello.name, *study}];
    pack.insert(pack.end(), taken.begin(), taken.end());
  }
  for (auto& [key, trials] : packs) grant(*find_worker(key.first), key.second, std::move(trials));
  if (const std::size_t free = free_slots(); std::exchange(told_free_, free) != free && options_.on_slots_changed) {
    options_.on_slots_changed();
  }
}

// Before the trials: who runs dry for a retraining gets none.
void Dispatcher::assign_retrainings() {
  std::vector<RetrainingDispatch::Candidate> candidates;
  if (retrainings_.waiting() == 0 && retrainings_.leased() == 0) return retrainings_.assign(candidates, false, false);
  for (const auto& [name, worker] : workers_) {
    if (!worker.session || !worker.id || worker.leaving || clock_.steady() - worker.heard >= options_.lease) continue;
    if (most_held(worker) > 0) candidates.push_back(candidate_of(worker));
  }
  retrainings_.assign(candidates, queues_.any_running(), queues_.next() || queues_.next_alone());
}

RetrainingDispatch::Candidate Dispatcher::candidate_of(const Worker& worker) const {
  RetrainingDispatch::Candidate candidate{worker.hello.name, worker.id, used_slots(worker), worker.hello.pack, worker.hello.device,
                                          worker.hello.processes};
  candidate.condition = &worker.hello.condition;
  candidate.condition_age_s = seconds_between(worker.conditioned, clock_.steady());
  candidate.blocked = most_held(worker) == 0;
  return candidate;
}

std::map<RetrainingId, std::string> Dispatcher::why_retrainings_wait() const {
  std::vector<RetrainingDispatch::Candidate> candidates;
  for (const auto& [name, worker] : workers_) {
    if (worker.session && worker.id && !worker.leaving) candidates.push_back(candidate_of(worker));
  }
  return retrainings_.why_waiting(candidates);
}

void Dispatcher::assign_alone() {
  drying_.clear();
  std::size_t busy = 0;
  for (auto& [name, worker] : workers_) {
    if (used_slots(worker) == 0) worker.alone = false;
    busy += worker.alone ? 1 : 0;
  }
  const std::size_t most = std::max<std::size_t>(1, connected_workers() / 8);
  std::set<StudyId> passed_over;
  while (busy < most) {
    const auto study = queues_.next_alone(passed_over);
    if (!study) return;
    Worker* worker = choose_for_alone(queues_.find(*study)->dataset_digest);
    if (worker == nullptr) {
      passed_over.insert(*study);
      continue;
    }
    if (used_slots(*worker) > 0) {
      drying_ = worker->hello.name;
      return;
    }
    const TrialId trial = *queues_.take_alone(*study);
    worker->alone = true;
    ++worker->granting;
    worker->served = ++turn_;
    ++busy;
    grant(*worker, *study, {trial});
  }
}

// The one with least to train; one that runs dry already has less by and by.
Dispatcher::Worker* Dispatcher::choose_for_alone(const std::string& dataset_digest) {
  Worker* best = nullptr;
  for (auto& [name, worker] : workers_) {
    const bool usable = worker.session && worker.id && !worker.leaving && !worker.alone && !retrainings_.keeps_from_trials(name) &&
                        clock_.steady() - worker.heard < options_.lease && most_held(worker) > 0 &&
                        can_read(worker.hello.condition, dataset_digest);
    if (usable && (best == nullptr || used_slots(worker) < used_slots(*best))) best = &worker;
  }
  return best;
}

std::size_t Dispatcher::free_slots(const Worker& worker, std::size_t used) const {
  if (!worker.session || !worker.id || worker.leaving || worker.alone || draining_) return 0;
  if (worker.hello.name == drying_ || retrainings_.keeps_from_trials(worker.hello.name)) return 0;
  const std::size_t most = most_held(worker);
  return used >= most ? 0 : most - used;
}

/// What it wants to hold, or less where its wall time is too short for that or its device cannot be used.
std::size_t Dispatcher::most_held(const Worker& worker) const {
  const int fits = worker.hello.condition.fits.value_or(worker.hello.slots);
  return static_cast<std::size_t>(std::min(fits, worker.hello.slots));
}

std::size_t Dispatcher::used_slots(const Worker& worker) const {
  return leases_.count(worker.hello.name) + worker.granting + worker.adopting + worker.unacked.size();
}

// Slots taken, as far as the next pack goes. A worker that handed in all it had has nothing to do from now on: what it trained is not in the
// way of its next pack, which is leased by the transaction that stores its last result. One that handed in a failure waits for the
// store's word, which may be that the study is paused.
std::size_t Dispatcher::to_train(const Worker& worker) const {
  const std::size_t used = used_slots(worker);
  return used == worker.unacked.size() && worker.unacked_failures == 0 ? 0 : used;
}

// What it could begin at once; if that is nothing, what it could hold.
std::size_t Dispatcher::room(const Worker& worker) const {
  const auto pack = static_cast<std::size_t>(worker.hello.pack);
  const std::size_t used = to_train(worker), free = free_slots(worker, used);
  return used < pack ? std::min(pack - used, free) : free;
}

// A worker that is silent gets nothing new; one that just handed in most of a pack soon has more room than now.
bool Dispatcher::may_grant(const Worker& worker) const {
  const std::size_t free = free_slots(worker, to_train(worker));
  return free > 0 && free >= worker.unacked.size() && clock_.steady() - worker.heard < options_.lease;
}

// Fewest packs to train, then smallest pack, then served longest ago.
Dispatcher::Worker* Dispatcher::least_loaded(const std::string& dataset_digest, std::size_t& candidates) {
  Worker* best = nullptr;
  const auto rank = [this](const Worker& worker) {
    return std::tuple(static_cast<double>(to_train(worker)) / worker.hello.pack, worker.hello.pack, worker.served);
  };
  for (auto& [name, worker] : workers_) {
    if (!may_grant(worker) || !can_read(worker.hello.condition, dataset_digest)) continue;
    ++candidates;
    if (best == nullptr || rank(worker) < rank(*best)) best = &worker;
  }
  return best;
}

void Dispatcher::grant(Worker& worker, StudyId study, std::vector<TrialId> trials) {
  for (const TrialId trial : trials) entries_.at(trial).queued = false;
  auto work = [trials, id = worker.id](Store& store) {
    std::vector<std::optional<int>> attempts;
    for (const TrialId trial : trials) attempts.push_back(store.lease(trial, id));
    return attempts;
  };
  auto done = [this, name = worker.hello.name, session = std::weak_ptr(worker.session), study, trials,
               begun = clock_.steady()](StoreResult<std::vector<std::optional<int>>> attempts) {
    granted(name, session, study, trials, attempts);
    figures_.grant.add(clock_.steady() - begun);
  };
  commit(std::move(work), std::move(done));
}

void Dispatcher::granted(const std::string& name, const std::weak_ptr<WorkerSession>& session, StudyId study,
                         const std::vector<TrialId>& trials, StoreResult<std::vector<std::optional<int>>>& attempts) {
  Worker& worker = *find_worker(name);  // stays while it is granted something
  worker.granting -= trials.size();
  schedule_pump();
  if (!attempts.ok()) {
    logger("dispatch")->error("pack not leased study={} worker={} trials={}", study.value, name, trials.size());
    retry_at_ = clock_.steady() + kRetryAfter;
    put_back(trials);
    return;
  }
  const bool here = worker.session && worker.session == session.lock();
  std::vector<TrialJob> jobs;
  for (std::size_t i = 0; i < trials.size(); ++i) {
    const std::optional<int> attempt = attempts.value()[i];
    const auto entry = entries_.find(trials[i]);
    if (!attempt) {  // final in the store: cancelled there, and about to be here
      forget(trials[i]);
      continue;
    }
    if (entry == entries_.end()) {  // its study was removed meanwhile
      return_to_store(Held{trials[i], *attempt}, name);
      continue;
    }
    leases_.grant(Held{trials[i], *attempt}, name);
    figures_.granted.add();
    entry->second.job.attempts = *attempt;
    jobs.push_back({trials[i], *attempt, entry->second.job.architecture, entry->second.job.seed});
  }
  if (here && !worker.leaving) {
    deliver(worker, study, std::move(jobs));
    return;
  }
  const bool said_goodbye = worker.leaving;
  for (const TrialJob& job : jobs) {
    auto lease = leases_.release(Held{job.trial, job.attempt}, name);
    if (!lease) continue;
    if (said_goodbye) return_crossed(std::move(*lease));
    else lose(std::move(*lease), "the worker left before the trial reached it");
  }
}

// What was on its way to a worker that said good-bye, and never was in its hands, uses up no retry.
void Dispatcher::return_crossed(Lease lease) {
  if (lease.doomed) return;
  const std::string name = lease.worker;
  TrialOutcome outcome = outcome_without_score(lease.what, Outcome::preempted, "the worker left before the trial reached it");
  end_attempt(name, std::move(outcome), std::move(lease), false);
}

void Dispatcher::deliver(Worker& worker, StudyId study, std::vector<TrialJob> jobs) {
  const DispatchStudy* known = queues_.find(study);
  if (jobs.empty() || known == nullptr) return;
  for (const TrialJob& job : jobs) {
    logger("dispatch")->debug("trial leased trial={} study={} worker={} attempt={} lease_s={}", job.trial.value, study.value,
                              worker.hello.name, job.attempt, seconds_text(options_.lease));
  }
  const protocol::PackHeader header{study, known->dataset_path, known->dataset_digest, known->training, known->order_seed};
  send(worker.hello.name, protocol::Pack{header, std::move(jobs)});
}

void Dispatcher::put_back(const std::vector<TrialId>& trials) {
  for (const TrialId trial : trials) requeue(trial);
}

// The name is its token's as long as it is connected, so the token says whose worker it is.
Dispatcher::Claim Dispatcher::claim_of(protocol::HeldRetraining what, const std::string& token_id) const {
  const std::optional<std::string> holder = retrainings_.holder(what);
  if (!holder) return Claim::over;
  const auto worker = workers_.find(*holder);
  if (worker == workers_.end() || !worker->second.session) return Claim::awaited;
  return worker->second.session->token_id() == token_id ? Claim::own : Claim::anothers;
}

// ---- joining and leaving

void Dispatcher::join(const std::shared_ptr<WorkerSession>& session, const protocol::Hello& hello) {
  if (const Worker* known = find_worker(hello.name); known != nullptr && known->session && known->session->token_id() != session->token_id()) {
    session->refuse("a worker \"" + hello.name + "\" is connected, with another token; choose another --name");
    return;
  }
  Worker& worker = workers_[hello.name];
  const bool another_process = worker.hello.pid != hello.pid || worker.hello.host != hello.host;
  if (worker.session) {
    logger("dispatch")->warn("worker replaced worker={} old={} new={}", hello.name, worker.session->peer(), session->peer());
    const std::shared_ptr<WorkerSession> old = worker.session;
    leave(*old, "another connection of that name replaced it");
    old->close("another connection of this name replaced this one");
  }
  worker.hello = hello;
  worker.id = WorkerId{};
  worker.session = session;
  worker.connected = worker.heard = worker.conditioned = clock_.steady();
  worker.leaving = false;
  ++worker.joining;
  if (another_process) lose_unnamed(worker, hello.held, "the worker died, another process came under its name", true);
  lose_unnamed(worker, hello.held, "the worker came back without it");
  worker.at_work.clear();
  retrainings_.lose_unnamed(hello.name, hello.retrainings, false, "the worker came back without it");
  protocol::Cancel refused{{}, "the trial ended, or went to another worker", {}};
  const std::vector<Candidate> candidates = sort_held(worker, hello.held, refused.held);
  const auto retraining = retrainings_.sort_held(hello.name, hello.retrainings, refused.retrainings);
  auto work = [record = record_of(hello), candidates, retraining](Store& store) {
    Adopted answer;
    answer.worker = store.join_worker(record);
    store.add_event(worker_event("worker_joined", answer.worker, record.name + " on " + record.host + ", device " + record.device));
    for (const Candidate& c : candidates) answer.trials.push_back(store.readopt(c.what.trial, c.what.attempt, answer.worker));
    if (retraining) answer.retraining = store.readopt_retraining(retraining->retraining, retraining->attempt, answer.worker);
    return answer;
  };
  auto done = [this, name = hello.name, session, candidates, retraining, cancel = refused](StoreResult<Adopted> result) mutable {
    Worker& w = *find_worker(name);  // stays while it joins
    --w.joining;
    const bool ok = result.ok();
    const std::vector<Held> not_adopted = adopted(w, candidates, ok ? result.value().trials : std::vector<bool>(candidates.size()));
    cancel.held.insert(cancel.held.begin(), not_adopted.begin(), not_adopted.end());
    if (retraining && !retrainings_.adopted(name, *retraining, ok && result.value().retraining)) cancel.retrainings.push_back(*retraining);
    if (!ok) {
      logger("dispatch")->error("worker not recorded worker={}", name);
      session->close("the daemon could not record this worker");
      return;
    }
    joined(name, session, result.value().worker);
    if (!cancel.held.empty() || !cancel.retrainings.empty()) send(name, std::move(cancel));
  };
  worker.adopting += candidates.size();
  commit(std::move(work), std::move(done));
}

// What it was sent over an older connection and does not name has not arrived, or was dropped by it.
void Dispatcher::lose_unnamed(const Worker& worker, const std::vector<Held>& held, const std::string& why, bool died) {
  const std::set<Held> named(held.begin(), held.end());
  for (const Held& what : leases_.of_worker(worker.hello.name)) {
    if (named.contains(what)) continue;
    auto lease = leases_.release(what, worker.hello.name);
    lose(std::move(*lease), why, died && worker.at_work.contains(what));
  }
}

void Dispatcher::joined(const std::string& name, const std::shared_ptr<WorkerSession>& session, WorkerId id) {
  Worker& worker = *find_worker(name);
  if (worker.session != session) {
    note_left(name, id, "the connection ended at once");
    return;
  }
  worker.id = id;
  const protocol::Hello& hello = worker.hello;
  logger("dispatch")->info("worker joined worker={} id={} host={} device={} pack={} slots={} held={}", name, id.value,
                           hello.host, hello.device, hello.pack, hello.slots, leases_.count(name));
  const auto seconds = [](std::chrono::milliseconds time) { return std::chrono::duration<double>(time).count(); };
  send(name, protocol::Welcome{id, seconds(options_.lease), seconds(options_.heartbeat), FUSION_VERSION});
  if (draining_) send(name, protocol::Drain{*draining_});
  schedule_pump();
}

// What is leased to the worker goes on; what is queued is a candidate; the rest is refused.
std::vector<Dispatcher::Candidate> Dispatcher::sort_held(Worker& worker, std::span<const Held> held,
                                                         std::vector<Held>& refused) {
  std::vector<Candidate> candidates;
  for (const Held& what : held) {
    if (leases_.extend(what, worker.hello.name)) {
      if (leases_.find(what)->doomed) refused.push_back(what);  // the first Cancel may have been lost
      continue;
    }
    if (worker.unacked.contains(what) || adopting_.contains(what.trial)) continue;
    const auto entry = entries_.find(what.trial);
    const bool known = entry != entries_.end();
    if (leases_.find(what) != nullptr || (known && !entry->second.queued)) {
      refused.push_back(what);
      continue;
    }
    if (known) {
      queues_.erase(entry->second.study, what.trial);
      entry->second.queued = false;
    }
    adopting_.insert(what.trial);
    candidates.push_back({what, known});
  }
  return candidates;
}

// The store's answer to the candidates. Returns which the worker must stop.
std::vector<Held> Dispatcher::adopted(Worker& worker, const std::vector<Candidate>& candidates, const std::vector<bool>& yes) {
  std::vector<Held> refused;
  worker.adopting -= candidates.size();
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    const auto& [what, known] = candidates[i];
    adopting_.erase(what.trial);
    const bool unwanted = unwanted_.erase(what.trial) > 0;
    const bool cancelled = (known || unwanted) && !entries_.contains(what.trial);
    if (yes[i]) {
      leases_.grant(what, worker.hello.name, true);
      logger("dispatch")->info("trial readopted trial={} worker={} attempt={}", what.trial.value, worker.hello.name, what.attempt);
    } else {
      requeue(what.trial);
    }
    if (yes[i] && cancelled) {  // its study was removed meanwhile
      leases_.doom(what);
      return_to_store(what, worker.hello.name);
    }
    if (!yes[i] || cancelled) refused.push_back(what);
  }
  schedule_pump();
  return refused;
}

void Dispatcher::leave(const WorkerSession& session, const std::string& reason) {
  Worker* worker = find_worker(session);
  if (worker == nullptr) return;
  const WorkerId id = worker->id;
  worker->session = nullptr;
  worker->gone = clock_.steady();
  const std::vector<Held> at_work = leases_.oldest(worker->hello.name, static_cast<std::size_t>(worker->hello.pack));
  worker->at_work = {at_work.begin(), at_work.end()};
  logger("dispatch")->info("worker left worker={} id={} held={} reason={}", worker->hello.name, id.value,
                           leases_.count(worker->hello.name), log_text(reason));
  if (id) note_left(worker->hello.name, id, reason);
  // One that said good-bye does not come back: what crossed its word on the way is queued again at once.
  if (worker->leaving) {
    for (const Held& what : leases_.of_worker(worker->hello.name)) {
      if (!leases_.find(what)->named) return_crossed(*leases_.release(what, worker->hello.name));
    }
    lose_unnamed(*worker, {}, "the worker left");
    retrainings_.lose_unnamed(worker->hello.name, {}, false, "the worker left");
  }
  schedule_pump();
}

void Dispatcher::note_left(const std::string& name, WorkerId id, const std::string& reason) {
  auto work = [name, id, reason](Store& store) {
    store.leave_worker(id, reason);
    store.add_event(worker_event("worker_left", id, name + ": " + reason));
    return std::monostate{};
  };
  auto done = [name](StoreResult<std::monostate> result) {
    if (!result.ok()) logger("dispatch")->error("worker's leaving not recorded worker={}", name);
  };
  commit(std::move(work), std::move(done));
}

// ---- messages

void Dispatcher::after_commits(std::function<void()> done) {
  auto work = [](Store&) { return std::monostate{}; };
  commit(std::move(work), [done = std::move(done)](StoreResult<std::monostate>) { done(); });
}

void Dispatcher::on_message(WorkerSession& session, const Message& message) {
  Worker* worker = find_worker(session);
  if (worker == nullptr) return;  // replaced by a newer connection
  worker->heard = clock_.steady();
  const auto handle = [&](const auto& m) {
    if constexpr (requires { on(*worker, m); }) {
      on(*worker, m);
    } else {
      session.refuse("the daemon expects reports, heartbeat, give_back or leaving from a worker that joined, got " +
                     protocol::encode(m).substr(0, 80));
    }
  };
  std::visit(handle, message);
}

void Dispatcher::on(Worker& worker, const protocol::Epoch& message) {
  const Held what{message.trial, message.attempt};
  const std::string name = worker.hello.name;
  protocol::Ack ack{"epoch", message.trial, message.attempt, message.report.epoch, false};
  const Lease* lease = leases_.find(what);
  if (lease != nullptr && (lease->worker != name || lease->doomed)) {
    leases_.extend(what, name);
    send(name, ack);
    return;
  }
  leases_.extend(what, name);
  // With a lease the sender is known to hold the attempt; without one it only says so.
  auto work = [message, claimed_by = lease != nullptr ? std::string() : name](Store& store) {
    return store.add_epoch(message.trial, message.attempt, message.report, claimed_by);
  };
  auto done = [this, name, ack, message](StoreResult<bool> stored) mutable {
    if (!stored.ok()) {
      logger("dispatch")->error("epoch not stored trial={} attempt={} epoch={}", ack.trial.value, ack.attempt, ack.epoch);
      return;
    }
    ack.accepted = stored.value();
    if (ack.accepted) figures_.epochs.add();
    prune_if_behind(name, message);
    send(name, ack);
  };
  commit(std::move(work), std::move(done));
}

// Before the acknowledgement: a worker that has it has this too, and one that has not reports the epoch again.
void Dispatcher::prune_if_behind(const std::string& name, const protocol::Epoch& message) {
  const Held what{message.trial, message.attempt};
  const auto entry = entries_.find(message.trial);
  const Lease* lease = leases_.find(what);
  if (entry == entries_.end() || lease == nullptr || lease->worker != name || lease->doomed) return;
  const auto stopping = early_stopping_.find(entry->second.study);
  if (stopping == early_stopping_.end()) return;
  const auto why = stopping->second.report(message.trial, message.report.epoch, message.report.dev_score);
  if (!why) return;
  logger("dispatch")->debug("trial pruned trial={} study={} worker={} attempt={} reason={}", what.trial.value,
                            entry->second.study.value, name, what.attempt, log_text(*why));
  send(name, protocol::Prune{{what}, *why});
}

void Dispatcher::on(Worker& worker, const protocol::Result& message) {
  const TrialOutcome& outcome = message.outcome;
  const Held what{outcome.trial, outcome.attempt};
  const Lease* lease = leases_.find(what);
  if (lease != nullptr && lease->worker != worker.hello.name) {
    logger("dispatch")->warn("result dropped trial={} attempt={} worker={} reason=\"it is leased to {}\"", what.trial.value,
                             what.attempt, worker.hello.name, lease->worker);
    figures_.dropped.add();
    send(worker.hello.name, protocol::Ack{"result", what.trial, what.attempt, 0, false});
    return;
  }
  if (worker.unacked.insert(what).second && is_failure(outcome.outcome)) ++worker.unacked_failures;
  end_attempt(worker.hello.name, outcome, leases_.release(what, worker.hello.name), true);
  if (to_train(worker) == 0) pump();  // at once, so that the store finds both together
}

void Dispatcher::on(Worker& worker, const protocol::Heartbeat& message) {
  const std::string name = worker.hello.name;
  take_condition(worker, message.condition);
  for (Lease& lease : leases_.take_unnamed(name, message.held)) lose(std::move(lease), "the worker does not hold it any more");
  retrainings_.lose_unnamed(name, message.retrainings, true, "the worker does not hold it any more");
  const std::string reason = "the trial ended, or went to another worker";
  protocol::Cancel refused{{}, reason, {}};
  const std::vector<Candidate> candidates = sort_held(worker, message.held, refused.held);
  const auto retraining = retrainings_.sort_held(name, message.retrainings, refused.retrainings);
  if (!refused.held.empty() || !refused.retrainings.empty()) send(name, std::move(refused));
  if (candidates.empty() && !retraining) return;
  worker.adopting += candidates.size();
  auto work = [candidates, retraining, id = worker.id](Store& store) {
    Adopted answer;
    for (const Candidate& c : candidates) answer.trials.push_back(store.readopt(c.what.trial, c.what.attempt, id));
    if (retraining) answer.retraining = store.readopt_retraining(retraining->retraining, retraining->attempt, id);
    return answer;
  };
  auto done = [this, name, candidates, retraining, reason](StoreResult<Adopted> yes) {
    const bool ok = yes.ok();
    protocol::Cancel cancel{{}, reason, {}};
    if (Worker* w = find_worker(name)) cancel.held = adopted(*w, candidates, ok ? yes.value().trials : std::vector<bool>(candidates.size()));
    if (retraining && !retrainings_.adopted(name, *retraining, ok && yes.value().retraining)) cancel.retrainings.push_back(*retraining);
    if (!cancel.held.empty() || !cancel.retrainings.empty()) send(name, std::move(cancel));
  };
  commit(std::move(work), std::move(done));
}

/// What it cannot do is told once, where people look: in the log of events.
void Dispatcher::take_condition(Worker& worker, const protocol::Condition& condition) {
  std::vector<std::string> news;
  const protocol::Condition before = std::exchange(worker.hello.condition, condition);
  worker.conditioned = clock_.steady();
  const std::pair size_before(worker.hello.pack, worker.hello.slots);
  worker.hello.slots = condition.slots.value_or(worker.hello.slots);
  worker.hello.pack = std::min(condition.pack.value_or(worker.hello.pack), worker.hello.slots);
  if (condition.problem != before.problem && !condition.problem.empty()) news.push_back(condition.problem);
  for (const protocol::Unreadable& data : condition.unreadable) {
    if (can_read(before, data.dataset_digest)) news.push_back(data.why);
  }
  const bool more_or_less = condition.fits != before.fits || condition.longest_epoch_s != before.longest_epoch_s ||
                            size_before != std::pair(worker.hello.pack, worker.hello.slots);
  if (more_or_less || condition.problem != before.problem || condition.unreadable != before.unreadable) schedule_pump();
  if (news.empty()) return;
  auto work = [id = worker.id, name = worker.hello.name, news](Store& store) {
    for (const std::string& sentence : news) store.add_event(worker_event("worker_blocked", id, name + ": " + sentence));
    return std::monostate{};
  };
  auto done = [name = worker.hello.name](StoreResult<std::monostate> result) {
    if (!result.ok()) logger("dispatch")->error("worker's problem not recorded worker={}", name);
  };
  for (const std::string& sentence : news) logger("dispatch")->warn("worker blocked worker={} reason={}", worker.hello.name, log_text(sentence));
  commit(std::move(work), std::move(done));
}

void Dispatcher::on(Worker& worker, const protocol::GiveBack& message) {
  for (const Held& what : message.held) {
    auto lease = leases_.release(what, worker.hello.name);
    if (!lease || lease->doomed) continue;
    end_attempt(worker.hello.name, outcome_without_score(what, Outcome::preempted, message.reason), std::move(lease), false);
  }
  retrainings_.give_back(worker.hello.name, message.retrainings, message.reason);
  schedule_pump();
}

void Dispatcher::on(Worker& worker, const protocol::RetrainingEpochReport& message) { retrainings_.on(worker.hello.name, message); }
void Dispatcher::on(Worker& worker, const protocol::RetrainingProgressReport& message) { retrainings_.on(worker.hello.name, message); }
void Dispatcher::on(Worker& worker, const protocol::RetrainingResult& message) { retrainings_.on(worker.hello.name, message); }

void Dispatcher::on(Worker& worker, const protocol::Leaving& message) {
  logger("dispatch")->info("worker leaving worker={} reason={}", worker.hello.name, log_text(message.reason));
  worker.leaving = true;
  schedule_pump();
}

// ---- ends

bool Dispatcher::died_with(const Lease& lease) const {
  const auto found = workers_.find(lease.worker);
  if (found == workers_.end() || found->second.session || found->second.leaving) return false;
  return clock_.steady() - found->second.gone >= options_.lease / 3 && found->second.at_work.contains(lease.what);
}

void Dispatcher::lose(Lease lease, const std::string& why, bool worker_died) {
  schedule_pump();
  if (lease.doomed) return;
  logger("dispatch")->warn("trial lost trial={} worker={} attempt={} reason={}", lease.what.trial.value, lease.worker,
                           lease.what.attempt, log_text(why));
  const std::string worker = lease.worker;
  TrialOutcome outcome = outcome_without_score(lease.what, Outcome::lost, why);
  end_attempt(worker, std::move(outcome), std::move(lease), false, worker_died);
}

/// Ends an attempt that nobody here waits for, so that the trial is queued in the store.
void Dispatcher::return_to_store(Held what, const std::string& worker) {
  end_attempt(worker, outcome_without_score(what, Outcome::preempted, "its study was stopped"), std::nullopt, false);
}

// If the store cannot take it (its disk is full, say) everything is as before, and the worker is made to come again.
void Dispatcher::end_attempt(const std::string& name, TrialOutcome outcome, std::optional<Lease> lease, bool acknowledge, bool worker_died) {
  const Worker* worker = find_worker(name);
  const bool failure = worker_died || is_failure(outcome.outcome);
  const std::string claimed_by = acknowledge && !lease ? name : std::string();  // by a message, of what is not leased to it
  auto work = [outcome, worker_died, failure, claimed_by, known = entries_.contains(outcome.trial),
               id = worker != nullptr ? worker->id : WorkerId{}](Store& store) {
    Finished finish;
    finish.result = store.finish(outcome, worker_died, claimed_by);
    if (finish.result.requeued) store.add_event(requeue_event(outcome, finish.result, id));
    const bool changed = finish.result.told_index >= 0 || finish.result.requeued;
    if (!known && changed) finish.trial = store.trial(outcome.trial);
    if (failure && finish.result.accepted) finish.paused = store.pause_if_failing(finish.result.study);
    if (finish.paused) store.add_event({0, 0, "study_paused", finish.result.study, {}, {}, *finish.paused});
    return finish;
  };
  auto done = [this, name, outcome, lease, acknowledge](StoreResult<Finished> finish) {
    const Held what{outcome.trial, outcome.attempt};
    Worker* w = find_worker(name);
    if (acknowledge && w != nullptr && w->unacked.erase(what) > 0 && is_failure(outcome.outcome)) --w->unacked_failures;
    schedule_pump();
    if (!finish.ok()) {
      logger("dispatch")->error("result not stored trial={} attempt={} worker={}", what.trial.value, what.attempt, name);
      if (lease) leases_.restore(*lease);
      if (w != nullptr && w->session) w->session->close("the daemon could not store a result");
      return;
    }
    if (acknowledge) send(name, protocol::Ack{"result", what.trial, what.attempt, 0, finish.value().result.accepted});
    finished(name, outcome, std::move(finish.value()));
  };
  commit(std::move(work), std::move(done));
}

void Dispatcher::finished(const std::string& name, const TrialOutcome& outcome, Finished finish) {
  const FinishResult& result = finish.result;
  const TrialId trial = outcome.trial;
  if (result.accepted) figures_.outcomes[static_cast<std::size_t>(outcome.outcome)].add();
  if (finish.paused) {
    logger("dispatch")->warn("study paused study={} reason={}", result.study.value, log_text(*finish.paused));
    set_paused(result.study, true);
    if (options_.on_paused) options_.on_paused(result.study, *finish.paused);
  }
  if (const auto entry = entries_.find(trial); entry != entries_.end() && result.requeued) entry->second.job.alone = result.alone;
  if (result.accepted && is_final(result.state)) {
    logger("dispatch")->debug("trial ended trial={} study={} worker={} attempt={} state={}", trial.value, result.study.value,
                              name, outcome.attempt, name_of(result.state));
    std::map<std::string, std::vector<Held>> told;
    const std::string reason = "trial " + to_string(trial) + " was finished by another attempt";
    doom_leases(trial, reason, told);
    tell_cancelled(told, reason);
    report_end(outcome, finish);
    return;
  }
  if (is_final(result.state)) {
    forget(trial);
  } else if (result.requeued && finish.trial) {  // adopted before it was submitted
    const Trial& t = *finish.trial;
    submit(t.study, {{t.id, t.ask_index, t.architecture, t.seed, t.attempt, false, t.alone}});
  } else if (result.requeued) {
    requeue(trial);
  } else {
    figures_.dropped.add();
    logger("dispatch")->warn("result dropped trial={} attempt={} worker={} outcome={} reason=\"not the current attempt\"",
                             trial.value, outcome.attempt, name, name_of(outcome.outcome));
  }
}

void Dispatcher::report_end(const TrialOutcome& outcome, const Finished& finish) {
  Ended ended;
  ended.study = finish.result.study;
  ended.trial = outcome.trial;
  ended.ask_index = finish.result.ask_index;
  ended.told_index = finish.result.told_index;
  ended.state = finish.result.state;
  if (outcome.score) ended.score = outcome.score->dev_score;
  if (const auto entry = entries_.find(outcome.trial); entry != entries_.end()) {
    ended.architecture = entry->second.job.architecture;
  } else if (finish.trial) {
    ended.architecture = finish.trial->architecture;
  } else {
    return;  // its study was cancelled between the commit and now
  }
  forget(outcome.trial);
  figures_.ended[static_cast<std::size_t>(ended.state)].add();
  if (options_.on_ended) options_.on_ended(ended);
}

/// To the front of its queue, if it is submitted and not there already.
void Dispatcher::requeue(TrialId trial) {
  const auto found = entries_.find(trial);
  if (found == entries_.end() || std::exchange(found->second.queued, true)) return;
  if (found->second.job.alone) {
    queues_.push_alone(found->second.study, trial, found->second.job.ask_index);
  } else {
    queues_.push_again(found->second.study, trial, found->second.job.ask_index);
  }
  schedule_pump();
}

void Dispatcher::forget(TrialId trial) {
  const auto found = entries_.find(trial);
  if (found == entries_.end()) return;
  if (found->second.queued) queues_.erase(found->second.study, trial);
  if (const auto count = entry_counts_.find(found->second.study); count != entry_counts_.end()) --count->second;
  entries_.erase(found);
}

void Dispatcher::doom_leases(TrialId trial, const std::string& reason, std::map<std::string, std::vector<Held>>& told) {
  for (const Lease& lease : leases_.of_trial(trial)) {
    if (!leases_.doom(lease.what)) continue;
    logger("dispatch")->info("trial cancelled trial={} worker={} attempt={} reason={}", trial.value, lease.worker,
                             lease.what.attempt, log_text(reason));
    told[lease.worker].push_back(lease.what);
  }
}

void Dispatcher::tell_cancelled(const std::map<std::string, std::vector<Held>>& told, const std::string& reason) {
  for (const auto& [worker, held] : told) send(worker, protocol::Cancel{held, reason});
}

// ---- workers

Dispatcher::Worker* Dispatcher::find_worker(const std::string& name) {
  const auto found = workers_.find(name);
  return found == workers_.end() ? nullptr : &found->second;
}

Dispatcher::Worker* Dispatcher::find_worker(const WorkerSession& session) {
  Worker* worker = find_worker(session.worker_name());
  return worker != nullptr && worker->session.get() == &session ? worker : nullptr;
}

/// Nothing is said to a worker before it was welcomed: it will ask again for what it misses.
void Dispatcher::send(const std::string& name, Message message) {
  Worker* worker = find_worker(name);
  if (worker != nullptr && worker->session && worker->id) worker->session->send(message);
}

void Dispatcher::forget_gone_workers() {
  std::erase_if(workers_, [this](const auto& entry) {
    const Worker& worker = entry.second;
    return !worker.session && worker.joining == 0 && worker.granting == 0 && worker.adopting == 0 && worker.unacked.empty() &&
           leases_.count(entry.first) == 0 && !retrainings_.involves(entry.first);
  });
}

}  // namespace fusion
