#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/asio.h"
#include "base/clock.h"
#include "space/architecture.h"
#include "space/trial.h"
#include "store/group_commit.h"
#include "workers/dispatch/dispatch_figures.h"
#include "workers/dispatch/early_stopping.h"
#include "workers/dispatch/lease_table.h"
#include "workers/dispatch/retraining_dispatch.h"
#include "workers/dispatch/study_queues.h"
#include "workers/dispatch/workload.h"
#include "workers/protocol/messages.h"

namespace fusion {

class WorkerSession;

/// A trial that stands in the store as queued and is to be trained.
struct QueuedTrial {
  TrialId trial;
  std::int64_t ask_index = 0;
  Architecture architecture;
  std::uint64_t seed = 0;
  int attempts = 0;        ///< begun so far
  bool recovered = false;  ///< it was leased when the last daemon ended: its worker may come back with it
  bool alone = false;      ///< Trial::alone
};

/// A trial that ended for good.
struct Ended {
  StudyId study;
  TrialId trial;
  std::int64_t ask_index = 0;
  std::int64_t told_index = 0;  ///< place in the order of ends as committed
  Architecture architecture;
  TrialState state = TrialState::completed;  ///< completed, failed or cancelled
  double score = 0;                          ///< dev_score where completed
};

struct DispatchOptions {
  std::chrono::milliseconds lease{60'000};           ///< a worker silent this long loses its trials
  std::chrono::milliseconds heartbeat{10'000};       ///< how often a worker is asked to name what it holds
  std::chrono::milliseconds reconnect_grace{3'000};  ///< how long recovered trials wait for their workers
  std::chrono::milliseconds tick{100};               ///< how often leases are looked at
  /// Each trial that became final by a worker's doing, in the order of commits (told_index, per study). Not called for
  /// trials of a study that is cancelled as a whole.
  std::function<void(const Ended&)> on_ended;
  /// A study was paused because it fails and fails (StudySpec::pause_on): it stands so in the store, and nothing of it is leased any more.
  std::function<void(StudyId, const std::string& why)> on_paused;
  /// The number of free slots is another (`free_slots()`).
  std::function<void()> on_slots_changed;
};

/// Hands queued trials to connected workers and takes back what becomes of them.
///
/// A worker says how many trials it trains at once (`pack`) and how many it wants to hold (`slots`): what waits there begins without a
/// word to the daemon. Nobody is given a trial to hold while another worker could begin it, and what is left is shared so that each has
/// equally many packs to train. Few trials at the end of a step are thus spread over all workers with room. A worker that comes free when
/// nothing is queued any more idles no longer than the others take for what they were given: `slots` trials each, two packs by default.
///
/// A worker that has handed in all it had does not wait for the store twice: its next pack is leased by the transaction that stores its last
/// result, and leaves right behind the acknowledgement.
///
/// A worker with a wall time is given no more than it says that it can still finish, one that cannot read a study's features none of its trials
/// (protocol::Condition). Pack and slots may follow the memory that it has.
///
/// A worker that retrains, or runs dry for a retraining, is given no trials (workers/dispatch/retraining_dispatch.h).
///
/// Poison. An architecture may kill the worker that trains it (a crash in a driver, the kernel's out-of-memory killer), and would kill one
/// worker after the other with all that these train beside it. A worker is dead if its connection ended without a good-bye and it did not
/// come back within its lease, or a process of another id came back under its name. Who of a dead worker's trials did it nobody knows, so:
/// - All that were in training (the first `pack` of what it holds, in the order they were granted) are suspected; what waited there is not.
/// - A suspect is trained alone: a pack of its own, on a worker that holds nothing else. If none is idle, the one with least to do gets
///   nothing new until it is. At most one worker in eight, and always one, is so employed: a space full of poison takes down no fleet.
/// - Who survives that is cleared. Who does not has proven something; after RetryBudget::lost such deaths the trial is failed.
/// A lease that ran out says nothing where the worker is connected (it stalls), was away for less than a third of a lease (then the daemon
/// was), gave the trial back, or where the daemon was restarted. A trial that ran out of memory among others is trained alone likewise.
///
/// Nothing is sent before it is on disk: a pack leaves after its leases are committed, an acknowledgement after the result.
/// Every change of a trial is one function of the store, posted in the order things happened; answers come back in that order,
/// so whatever this class believes is at worst older than the store, never different.
///
/// Lives on the I/O thread: every function is called there, every callback is made there. Must be destroyed before the
/// GroupCommit and the io_context; work that is then under way at the store is finished, its answers are dropped.
class Dispatcher {
 public:
  Dispatcher(asio::io_context& io, GroupCommit& store, const Clock& clock, DispatchOptions options);
  ~Dispatcher();
  Dispatcher(const Dispatcher&) = delete;
  Dispatcher& operator=(const Dispatcher&) = delete;

  // ---- the daemon's side
  /// With early stopping, the rungs are filled with what the store has of the study.
  void add_study(DispatchStudy study);
  /// Priority and pause take effect at once, data and training from the next pack on; early stopping stays as it was added.
  void update_study(DispatchStudy study);
  void set_paused(StudyId study, bool paused);
  /// Drops the study's queue, and tells workers to stop what they train of it. The store's part (`set_study_state`) is the
  /// caller's, and comes first.
  void cancel_study(StudyId study, const std::string& reason);
  /// Forgets a study that is over, or that cannot go on now. Should anything of it still run, workers are told to stop and the
  /// trials are queued again in the store: a study that is added once more finds them there.
  void remove_study(StudyId study);
  /// Queues trials of a study that was added, in this order. After a start: all that are not final, also those that a worker was
  /// faster to come back with; they are left to it. What is known already is ignored. Trials of a study that is not known (it was cancelled
  /// or failed while it was taken up) are not queued: workers that came back with them are told to stop, and the store has them back.
  void submit(StudyId study, std::vector<QueuedTrial> trials);
  /// No more packs; workers finish what they hold, then leave; said again, they give it back. Holds for workers that come later too.
  void drain_workers(const std::string& reason);
  /// No more packs; what is held may end, and workers stay: they come back to the next daemon. Retrainings are handed back after their epoch.
  void hold(const std::string& reason);
  /// A worker that is connected holds something, or something of it is on its way to disk. What is held by workers that are gone is not
  /// waited for.
  bool busy() const;
  /// The same for one that is connected; false if there is none of that name.
  bool drain_worker(const std::string& name, const std::string& reason);
  /// No more packs, no more timer: what comes in is still recorded. For the end of the daemon.
  void stop();

  /// A sentence for each retraining that waits and that no connected worker can do, as they are now: what it waits for.
  std::map<RetrainingId, std::string> why_retrainings_wait() const;

  RetrainingDispatch& retrainings() { return retrainings_; }
  const RetrainingDispatch& retrainings() const { return retrainings_; }

  struct Outstanding {
    std::size_t queued = 0, leased = 0;
  };
  Outstanding outstanding(StudyId study) const;
  std::size_t free_slots() const;
  std::size_t connected_workers() const;
  const DispatchFigures& figures() const { return figures_; }
  DispatchLoad load() const;
  Workload workload() const;
  /// docs/protocol.md, "worker": those that are connected.
  nlohmann::json workers_json() const;

  /// Whether the bearer of a token may send what belongs to an attempt of a retraining, beside its worker's connection.
  enum class Claim {
    own,       ///< it is leased to a worker that is connected with this token
    awaited,   ///< its worker is not connected, and may come back for it
    anothers,  ///< it is leased to a worker that is connected with another token
    over,      ///< it has ended, or another attempt was begun
  };
  /// `token_id` empty: the daemon's own user, as in WorkerSession.
  Claim claim_of(protocol::HeldRetraining what, const std::string& token_id) const;

  // ---- the sessions' side
  /// A worker said hello (of our version). Refused where another session has that name and showed another token: a name is its owner's while
  /// it is connected.
  void join(const std::shared_ptr<WorkerSession>& session, const protocol::Hello& hello);
  /// Anything it said after that.
  void on_message(WorkerSession& session, const protocol::Message& message);
  /// The connection is gone. Its leases run on, for the worker may come back; unless it said that it leaves: they are lost then.
  void leave(const WorkerSession& session, const std::string& reason);

  /// Calls `done` when all that was said so far is on disk, on the I/O thread; not if this is gone by then.
  void after_commits(std::function<void()> done);

  /// Takes back what has run out, lets go what stood aside. Called by a timer; tests with a ManualClock call it too.
  void tick();

 private:
  struct Entry {
    StudyId study;
    QueuedTrial job;
    bool queued = false;  // stands in queues_; else it is on its way to a worker, or with one
  };
  struct Worker {
    protocol::Hello hello;
    WorkerId id;                             // none until the store knows the connection
    std::shared_ptr<WorkerSession> session;  // null while not connected
    SteadyTime connected, heard;
    SteadyTime conditioned;                  // when it said its condition
    bool leaving = false;
    std::size_t joining = 0;                 // hellos that are being committed
    std::size_t granting = 0, adopting = 0;  // trials whose lease is being committed
    std::set<protocol::Held> unacked;        // results that are being committed
    std::size_t unacked_failures = 0;        // of these: outcomes that may pause their study
    std::uint64_t served = 0;
    SteadyTime gone;                         // when the connection ended
    std::set<protocol::Held> at_work;        // what it had in training then
    bool alone = false;                      // what it holds is a trial that is trained alone
  };
  struct Candidate {  // held by a worker, but not leased to it
    protocol::Held what;
    bool known = false;
  };
  struct Adopted {  // the store's answer to candidates
    WorkerId worker;
    std::vector<bool> trials;
    bool retraining = false;
  };
  struct Finished {
    FinishResult result;
    std::optional<Trial> trial;  // if it was never submitted
    std::optional<std::string> paused;  // why its study is paused now
  };

  template <typename Work, typename Done>
  void commit(Work work, Done done);

  // granting
  void schedule_pump();
  void pump();
  void assign_retrainings();
  RetrainingDispatch::Candidate candidate_of(const Worker& worker) const;
  void assign_alone();
  Worker* choose_for_alone(const std::string& dataset_digest);
  RetrainingDispatch::Hooks retraining_hooks();
  std::size_t free_slots(const Worker& worker, std::size_t used) const;
  std::size_t used_slots(const Worker& worker) const;
  std::size_t to_train(const Worker& worker) const;
  std::size_t room(const Worker& worker) const;
  bool may_grant(const Worker& worker) const;
  std::size_t most_held(const Worker& worker) const;
  Worker* least_loaded(const std::string& dataset_digest, std::size_t& candidates);
  void grant(Worker& worker, StudyId study, std::vector<TrialId> trials);
  void granted(const std::string& worker, const std::weak_ptr<WorkerSession>& session, StudyId study,
               const std::vector<TrialId>& trials, StoreResult<std::vector<std::optional<int>>>& attempts);
  void return_crossed(Lease lease);
  void deliver(Worker& worker, StudyId study, std::vector<TrialJob> jobs);
  void put_back(const std::vector<TrialId>& trials);

  // adopting what a worker says it holds
  std::vector<Candidate> sort_held(Worker& worker, std::span<const protocol::Held> held, std::vector<protocol::Held>& refused);
  std::vector<protocol::Held> adopted(Worker& worker, const std::vector<Candidate>& candidates, const std::vector<bool>& yes);
  void lose_unnamed(const Worker& worker, const std::vector<protocol::Held>& held, const std::string& why, bool died = false);
  void joined(const std::string& name, const std::shared_ptr<WorkerSession>& session, WorkerId id);

  // messages
  void prune_if_behind(const std::string& worker, const protocol::Epoch& message);
  void on(Worker& worker, const protocol::Epoch& message);
  void on(Worker& worker, const protocol::Result& message);
  void on(Worker& worker, const protocol::Heartbeat& message);
  void take_condition(Worker& worker, const protocol::Condition& condition);
  void on(Worker& worker, const protocol::GiveBack& message);
  void on(Worker& worker, const protocol::Leaving& message);
  void on(Worker& worker, const protocol::RetrainingEpochReport& message);
  void on(Worker& worker, const protocol::RetrainingProgressReport& message);
  void on(Worker& worker, const protocol::RetrainingResult& message);

  // ends
  void end_attempt(const std::string& worker, TrialOutcome outcome, std::optional<Lease> lease, bool acknowledge, bool worker_died = false);
  void lose(Lease lease, const std::string& why, bool worker_died = false);
  bool died_with(const Lease& lease) const;
  void finished(const std::string& worker, const TrialOutcome& outcome, Finished finish);
  void requeue(TrialId trial);
  void forget(TrialId trial);
  void report_end(const TrialOutcome& outcome, const Finished& finish);
  void drop_study(StudyId study, const std::string& reason, bool over);
  void refuse_study(StudyId study, const std::vector<QueuedTrial>& trials);
  void return_to_store(protocol::Held what, const std::string& worker);
  void doom_leases(TrialId trial, const std::string& reason, std::map<std::string, std::vector<protocol::Held>>& told);
  void tell_cancelled(const std::map<std::string, std::vector<protocol::Held>>& told, const std::string& reason);

  Worker* find_worker(const std::string& name);
  Worker* find_worker(const WorkerSession& session);
  void send(const std::string& worker, protocol::Message message);
  void forget_gone_workers();
  void note_left(const std::string& name, WorkerId id, const std::string& reason);
  void start_timer();

  asio::io_context& io_;
  GroupCommit& store_;
  const Clock& clock_;
  DispatchOptions options_;
  LeaseTable leases_;
  StudyQueues queues_;
  std::unordered_map<TrialId, Entry> entries_;  // submitted and not final
  std::map<StudyId, std::size_t> entry_counts_;
  std::map<StudyId, EarlyStopping> early_stopping_;  // of the studies that want it
  std::set<TrialId> adopting_;
  std::set<TrialId> unwanted_;  // of these: their study is gone
  std::map<std::string, Worker> workers_;  // connected, or still holding something
  asio::steady_timer timer_;
  std::optional<std::string> draining_;
  std::string drying_;  // the worker that gets nothing new until it is idle, for a trial that is trained alone
  bool held_ = false;
  bool stopped_ = false;
  bool pump_posted_ = false;
  SteadyTime retry_at_{};  // after an error of the store
  std::uint64_t turn_ = 0;
  std::size_t told_free_ = 0;
  DispatchFigures figures_;
  std::shared_ptr<Dispatcher*> alive_;  // answers that find it gone are dropped
  RetrainingDispatch retrainings_;
};

}  // namespace fusion
