#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "workers/launch/launcher.h"
#include "workers/launch/slurm_text.h"

namespace fusion {

/// The jobs of one pool as the launcher believes them to be: what it submitted, what squeue showed, what it told to end. Each element of an array
/// is a worker of its own, known by array and index, which never change ("4711_3").
///
/// Starts no command and asks no clock, so that every order of events can be tested. One thread.
///
///   sending     an sbatch runs                              counts as coming
///   unclear     it ended without a clear answer             counts as coming, until its jobs are seen, or until two polls that began
///                                                           later do not show them
///   waiting, running, closing                               as squeue says; from the answer of sbatch on, before any poll
///   leaving     told to end, or asked to leave              does not count; scancel is said again for those that do not go
///   gone        ended, or absent from two polls and old     told once by `take`
class SlurmLedger {
 public:
  struct Options {
    std::string identity;  ///< what the comments of this pool's jobs begin with; the rest is the launch id
    std::chrono::milliseconds absent{60'000};   ///< least age of a job that two polls did not show, to count as gone
    std::chrono::milliseconds connect{300'000};  ///< a job that runs so long without its worker having come is told of
  };
  explicit SlurmLedger(Options options) : options_(std::move(options)) {}

  // ---- launches
  void sending(const std::string& launch, int count);
  void submitted(const std::string& launch, std::int64_t array, SteadyTime now);
  void refused(const std::string& launch) { launches_.erase(launch); }
  void unclear(const std::string& launch, SteadyTime now);

  // ---- watching
  struct Ended {
    std::string name, state, launch;
    bool asked = false;   ///< it was told to end
    bool joined = false;  ///< its worker had come
    std::chrono::milliseconds lived{0};  ///< since it was seen to run
  };
  struct Polled {
    std::vector<Ended> ended;
    std::vector<std::string> adopted;        ///< jobs of ours that were not known: an earlier daemon's, or of an unclear launch
    std::vector<std::string> lost_launches;  ///< unclear ones that nobody has seen: nothing was submitted
  };
  /// All jobs that a good poll showed, other pools' too; `began` is when its command was started.
  Polled take(const std::vector<SlurmJob>& jobs, SteadyTime began, SteadyTime now);
  /// True if the worker of one came for the first time.
  bool connected(const std::set<std::string>& names);

  // ---- ending
  /// The last up to `count` that wait, now leaving: to be cancelled.
  std::vector<std::string> withdraw(int count, SteadyTime now);
  void retire(const std::string& name, SteadyTime until);
  /// Those that leave and should be gone by now; each again after `again`.
  std::vector<std::string> overdue(SteadyTime now, std::chrono::milliseconds again);
  std::vector<std::string> names() const;

  // ---- telling
  /// That which counts as coming or being there.
  int size() const;
  /// Those of them whose worker has never come.
  int untried() const;
  /// Something is to be seen soon.
  bool changing() const;
  /// It submits, or does not know whether it did.
  bool in_doubt() const { return !launches_.empty(); }
  /// Every one that waits does so in vain; and some do.
  bool all_held() const;
  std::vector<LaunchedWorker> workers(SteadyTime now) const;
  /// The first job that runs without its worker having come for too long; empty where there is none.
  std::string silent(SteadyTime now) const;
  /// "2 x PENDING (Resources)", or that a worker does not come; empty where all is well.
  std::string complaint(SteadyTime now, const std::string& url) const;

 private:
  using Key = std::pair<std::int64_t, int>;  // array, index
  struct Element {
    std::string launch;
    SlurmJob job;
    SlurmPhase phase = SlurmPhase::coming;
    SteadyTime since;
    std::optional<SteadyTime> ran;  // since when it was seen to run
    int absent = 0, preempted = 0;  // polls in a row
    bool joined = false, connected = false, leaving = false;
    SteadyTime leave_by;
    bool counts() const { return !leaving; }
  };
  struct Launch {
    int count = 0;
    bool unclear = false;
    SteadyTime since;
    int absent = 0;
  };

  static std::string name_of(const Key& key) { return std::to_string(key.first) + "_" + std::to_string(key.second); }
  std::optional<std::string> launch_of(const SlurmJob& job) const;
  void see(Element& element, const SlurmJob& job, SteadyTime now);
  bool is_silent(const Element& element, SteadyTime now) const;
  int seen_of(const std::string& launch) const;
  Ended end(const Key& key, const Element& element, const std::string& state, SteadyTime now) const;

  Options options_;
  std::map<Key, Element> elements_;
  std::map<std::string, Launch> launches_;  // sending and unclear
};

}  // namespace fusion
