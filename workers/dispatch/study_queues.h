#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/id.h"
#include "space/early_stopping_options.h"
#include "space/training_options.h"

namespace fusion {

/// What the dispatcher has to know of a study.
struct DispatchStudy {
  StudyId id;
  int priority = 0;     ///< higher first; equal ones take turns, pack by pack
  bool paused = false;  ///< nothing new is leased; what runs may end
  std::string dataset_path, dataset_digest;
  TrainingOptions training;
  std::uint64_t order_seed = 0;  ///< of the order of rows
  EarlyStoppingOptions early_stopping;
};

/// Which trial is next: per study first those that were leased before, by ask_index, then new ones in the order they came.
/// Pure; one thread. A trial stands in here at most once (the caller sees to that).
class StudyQueues {
 public:
  /// Adds a study, or changes priority, pause, data and training of one that is known.
  void put(DispatchStudy study);
  void set_paused(StudyId study, bool paused);
  void remove(StudyId study);
  const DispatchStudy* find(StudyId study) const;
  std::vector<StudyId> studies() const;  ///< all that are known

  /// All four drop the trial if the study is not known.
  void push(StudyId study, TrialId trial);
  void push_again(StudyId study, TrialId trial, std::int64_t ask_index);
  /// Waits for a worker of its own: `next`, `ready` and `take` pass it over.
  void push_alone(StudyId study, TrialId trial, std::int64_t ask_index);
  /// Stands aside until `until`, then joins those that were leased before, or those that wait alone.
  void hold_back(StudyId study, TrialId trial, std::int64_t ask_index, SteadyTime until, bool alone = false);
  bool erase(StudyId study, TrialId trial);
  /// What stood aside until now may be taken. True if there was any.
  bool admit(SteadyTime now);

  /// The study whose turn it is: not paused, something ready, highest priority, served longest ago.
  /// Those of `passed_over` have no worker that may train them.
  std::optional<StudyId> next(const std::set<StudyId>& passed_over = {}) const;
  /// The study whose trial is trained alone next: as `next`, of those with such a trial; none while a study of higher priority has others.
  std::optional<StudyId> next_alone(const std::set<StudyId>& passed_over = {}) const;
  std::optional<TrialId> take_alone(StudyId study);
  /// A study that is not paused has trials now, or may have some soon.
  bool any_running() const;
  std::size_t ready(StudyId study) const;
  std::size_t waiting() const;  ///< of all studies that are not paused
  std::size_t waiting(StudyId study) const;  ///< ready, alone or standing aside
  /// Up to `count` trials from the front; the study's turn is over.
  std::vector<TrialId> take(StudyId study, std::size_t count);

 private:
  using Place = std::pair<std::int64_t, TrialId>;  // ask_index, trial
  struct Queue {
    DispatchStudy study;
    struct Aside {
      std::int64_t ask_index = 0;
      SteadyTime until;
      bool alone = false;
    };
    std::set<Place> again, alone;
    std::deque<TrialId> fresh;
    std::map<TrialId, Aside> aside;
    std::uint64_t served = 0;  // turn at which it was served last
  };
  template <typename Wanted>
  const Queue* first(Wanted wanted) const;

  std::map<StudyId, Queue> queues_;
  std::uint64_t turn_ = 0;
};

}  // namespace fusion
