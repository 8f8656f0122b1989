#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "search/strategy.h"
#include "store/store_reader.h"

namespace fusion {

/// The first place where a database and the search that is made again from it tell different stories.
struct ReplayDifference {
  std::optional<std::int64_t> ask_index;  ///< of the proposal
  std::optional<std::int64_t> fit_index;  ///< of the surrogate's fit
  std::string what;        ///< "architecture", "replica", "seed", "facts", "loss", "told_index", ...
  std::string stored;      ///< as text; numbers so that they are read back exactly
  std::string recomputed;

  /// "proposal 31: architecture: stored [[3,2,0]], recomputed [[1,2,0]]"
  std::string sentence() const;
  bool operator==(const ReplayDifference&) const = default;
};

struct ReplayOptions {
  /// Off: only what workers are sent is compared (architecture, replica and seed), not what the strategy noted beside it, nor its fits.
  bool facts_and_fits = true;
  /// When the strategy is asked: as soon as it has proposals, as a study with many workers does, or only when the next trial that ended
  /// must have been asked for, as a study with one. It must not matter.
  enum class Asking { early, late } asking = Asking::early;
  std::function<void(std::int64_t told)> progress;  ///< called after each trial that was told
};

/// Makes a strategy go its way again: asks for the proposals that are stored, tells it those that ended in the order of `told_index`,
/// and compares each proposal and each surrogate fit with what is stored.
///
/// The strategy must be fresh (search/study_strategy.h), and has gone one proposal further afterwards if `facts_and_fits` were compared.
/// Trials are all of the study, by ask_index. Used by the controller on start (the strategy then stands where the database stands)
/// and by `fusionctl replay`.
class Replay {
 public:
  Replay(const StudyRecord& study, std::span<const Trial> trials, std::span<const FitRow> fits, Strategy& strategy, ReplayOptions options);

  /// Stops at the first difference; nullopt: there is none.
  std::optional<ReplayDifference> run();

  std::int64_t proposals() const { return asked_ - inherited_; }  ///< made again so far
  std::int64_t told() const { return told_ - inherited_; }
  std::int64_t inherited() const { return inherited_; }  ///< trials of another study in front of these; neither asked for nor told
  const std::vector<FitRecord>& fits() const { return made_fits_; }  ///< made again, whether stored or not

 private:
  std::vector<const Trial*> in_order_of_ends();
  bool ask_until(std::int64_t count);
  bool tell(const Trial& trial);
  bool compare(const Proposal& proposal);
  bool compare_fits();
  bool compare_fit(const FitRecord& made, const FitRow& stored);
  bool goes_no_further();
  bool all_fits_made();
  bool proposal_equals(std::string what, const std::string& stored, const std::string& recomputed);
  bool fit_equals(std::int64_t fit, std::string what, const std::string& stored, const std::string& recomputed);

  const StudyRecord& study_;
  const std::span<const Trial> trials_;
  const std::span<const FitRow> fits_;
  Strategy& strategy_;
  const ReplayOptions options_;
  const std::int64_t inherited_;
  std::int64_t asked_ = 0, told_ = 0;  ///< inherited ones included
  std::vector<FitRecord> made_fits_;
  std::size_t fits_before_ = 0;  ///< of these, made before the last proposal
  std::optional<ReplayDifference> difference_;
};

/// The first of a fork's inherited trials that is not what the parent's history says; nullopt: there is none. What is compared: whence it
/// was inherited, architecture, replica, seed, facts, state, score and order.
std::optional<ReplayDifference> compare_inherited(const StudyHistory& fork, const StudyHistory& parent);

}  // namespace fusion
