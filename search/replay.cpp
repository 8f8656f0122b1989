#include "search/replay.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

namespace fusion {

namespace {

/// The shortest text that is read back as the same number.
std::string text_of(double value) { return std::isfinite(value) ? nlohmann::json(value).dump() : "not a number"; }
std::string text_of(const std::optional<double>& value) { return value ? text_of(*value) : "none"; }

}  // namespace

std::string ReplayDifference::sentence() const {
  std::string subject;
  if (ask_index) subject = "proposal " + std::to_string(*ask_index) + ": ";
  if (fit_index) subject = "surrogate fit " + std::to_string(*fit_index) + ": ";
  return subject + what + ": stored " + stored + ", recomputed " + recomputed;
}

Replay::Replay(const StudyRecord& study, std::span<const Trial> trials, std::span<const FitRow> fits, Strategy& strategy,
               ReplayOptions options)
    : study_(study),
      trials_(trials),
      fits_(fits),
      strategy_(strategy),
      options_(std::move(options)),
      inherited_(study.fork ? study.fork->at : 0),
      asked_(inherited_),
      told_(inherited_) {}

std::optional<ReplayDifference> Replay::run() {
  const std::vector<const Trial*> ended = in_order_of_ends();
  const auto stored = static_cast<std::int64_t>(trials_.size());
  const bool early = options_.asking == ReplayOptions::Asking::early;
  if (difference_ || (early && !ask_until(stored))) return difference_;
  for (const Trial* trial : ended) {
    if (!early && !ask_until(trial->ask_index + 1)) return difference_;
    if (!tell(*trial)) return difference_;
    if (early && !ask_until(stored)) return difference_;
  }
  if (!ask_until(stored)) return difference_;
  if (asked_ < stored) {
    const Trial& next = trials_[static_cast<std::size_t>(asked_)];
    return ReplayDifference{asked_, {}, "architecture", canonical_text(next.architecture),
                            strategy_.finished() ? "none: the search has ended" : "none: the search waits for trials that did not end"};
  }
  if (options_.facts_and_fits && goes_no_further()) all_fits_made();
  return difference_;
}

/// A daemon asks once more when all has ended: a fork then still meets what it inherited, and fits are made. A completed study has no
/// proposal left.
bool Replay::goes_no_further() {
  const std::vector<Proposal> next = strategy_.ask(1);
  if (!compare_fits()) return false;
  if (study_.state == StudyState::completed && !next.empty()) {
    difference_ = {asked_, {}, "architecture", "none: the study is completed", canonical_text(next[0].architecture)};
    return false;
  }
  return true;
}

/// Also sees to it that both orders are without gaps.
std::vector<const Trial*> Replay::in_order_of_ends() {
  std::vector<const Trial*> ended;
  for (std::size_t i = 0; i < trials_.size() && !difference_; ++i) {
    const Trial& trial = trials_[i];
    const auto place = static_cast<std::int64_t>(i);
    if (trial.ask_index != place) difference_ = {place, {}, "ask_index", std::to_string(trial.ask_index), std::to_string(place)};
    if (is_final(trial.state)) ended.push_back(&trial);
  }
  std::sort(ended.begin(), ended.end(), [](const Trial* a, const Trial* b) { return a->told_index < b->told_index; });
  for (std::size_t i = 0; i < ended.size() && !difference_; ++i) {
    const auto place = static_cast<std::int64_t>(i);
    if (ended[i]->told_index == place) continue;
    difference_ = {ended[i]->ask_index, {}, "told_index", std::to_string(ended[i]->told_index), std::to_string(place)};
  }
  ended.erase(ended.begin(), ended.begin() + std::min(inherited_, static_cast<std::int64_t>(ended.size())));
  return ended;
}

/// Asks until so many proposals were made, or the strategy waits for trials to end. False at a difference.
bool Replay::ask_until(std::int64_t count) {
  while (asked_ < count) {
    const std::vector<Proposal> proposals = strategy_.ask(static_cast<std::size_t>(count - asked_));
    if (!compare_fits()) return false;
    if (proposals.empty()) return true;
    for (const Proposal& proposal : proposals) {
      if (!compare(proposal)) return false;
      ++asked_;
    }
    fits_before_ = made_fits_.size();
  }
  return true;
}

bool Replay::compare(const Proposal& proposal) {
  const Trial& trial = trials_[static_cast<std::size_t>(asked_)];
  const std::uint64_t seed = trial_seed(study_.spec.seed, proposal.architecture, proposal.replica);
  if (trial.architecture != proposal.architecture) {  // texts only where they are shown: a start compares every trial
    return proposal_equals("architecture", canonical_text(trial.architecture), canonical_text(proposal.architecture));
  }
  return proposal_equals("replica", std::to_string(trial.replica), std::to_string(proposal.replica)) &&
         proposal_equals("seed", std::to_string(trial.seed), std::to_string(seed)) &&
         (!options_.facts_and_fits || proposal_equals("facts", trial.facts, proposal.facts.dump()));
}

bool Replay::tell(const Trial& trial) {
  if (trial.ask_index >= asked_) {
    difference_ = {trial.ask_index, {}, "architecture", canonical_text(trial.architecture) + ", told as number " + std::to_string(told_),
                   "none: the search waits for other trials then"};
    return false;
  }
  strategy_.tell({trial.ask_index, trial.architecture, trial.state, trial.score ? trial.score->dev_score : 0});
  ++told_;
  if (options_.progress) options_.progress(told_);
  return compare_fits();
}

bool Replay::compare_fits() {
  for (FitRecord& fit : strategy_.take_fit_records()) {
    made_fits_.push_back(std::move(fit));
    const std::size_t place = made_fits_.size() - 1;
    if (options_.facts_and_fits && place < fits_.size() && !compare_fit(made_fits_.back(), fits_[place])) return false;
  }
  return true;
}

bool Replay::compare_fit(const FitRecord& made, const FitRow& stored) {
  const std::int64_t fit = made.fit_index;
  return fit_equals(fit, "fit_index", std::to_string(stored.fit_index), std::to_string(made.fit_index)) &&
         fit_equals(fit, "surrogate", stored.surrogate, made.surrogate) &&
         fit_equals(fit, "observations", std::to_string(stored.observations), std::to_string(made.observations)) &&
         fit_equals(fit, "loss", text_of(stored.loss), text_of(made.loss)) &&
         fit_equals(fit, "rank_correlation", text_of(stored.rank_correlation), text_of(made.rank_correlation)) &&
         fit_equals(fit, "mean_abs_error", text_of(stored.mean_abs_error), text_of(made.mean_abs_error)) &&
         fit_equals(fit, "details", stored.details.dump(), made.details.dump());
}

/// A completed study has all fits. In any other those behind the last proposal may be missing: the daemon was killed in between, or the
/// study was cancelled. Versions that stored a fit behind the proposals that came of it may have lost that one too.
bool Replay::all_fits_made() {
  const std::size_t made = made_fits_.size(), stored = fits_.size();
  const std::size_t needed = study_.state == StudyState::completed ? made : std::max<std::size_t>(fits_before_, 1) - 1;
  if (stored > made) return fit_equals(static_cast<std::int64_t>(made), "fit", "one of " + std::to_string(stored), "none");
  if (stored < needed) return fit_equals(static_cast<std::int64_t>(stored), "fit", "none", "one of " + std::to_string(made));
  return true;
}

bool Replay::proposal_equals(std::string what, const std::string& stored, const std::string& recomputed) {
  if (stored == recomputed) return true;
  difference_ = {asked_, {}, std::move(what), stored, recomputed};
  return false;
}

bool Replay::fit_equals(std::int64_t fit, std::string what, const std::string& stored, const std::string& recomputed) {
  if (stored == recomputed) return true;
  difference_ = {{}, fit, std::move(what), stored, recomputed};
  return false;
}

namespace {

std::string story_of(const Trial& trial, TrialId original) {
  return "trial " + to_string(original) + ", " + canonical_text(trial.architecture) + " replica " + std::to_string(trial.replica) + ", seed " +
         std::to_string(trial.seed) + ", " + std::string(name_of(trial.state)) + ", dev_score " +
         text_of(trial.score ? std::optional(trial.score->dev_score) : std::nullopt) + ", facts " + trial.facts;
}

}  // namespace

std::optional<ReplayDifference> compare_inherited(const StudyHistory& fork, const StudyHistory& parent) {
  std::vector<const Trial*> originals;
  for (const Trial& trial : parent.trials) {
    if (is_final(trial.state)) originals.push_back(&trial);
  }
  std::sort(originals.begin(), originals.end(), [](const Trial* a, const Trial* b) { return a->told_index < b->told_index; });
  const auto inherited = static_cast<std::size_t>(fork.study.fork->at);
  for (std::size_t i = 0; i < inherited; ++i) {
    const std::string stored = i < fork.trials.size() ? story_of(fork.trials[i], fork.trials[i].inherited_from) : "none";
    const std::string original = i < originals.size() ? story_of(*originals[i], originals[i]->id) : "none";
    if (stored != original) return ReplayDifference{static_cast<std::int64_t>(i), {}, "inherited", stored, original};
  }
  return std::nullopt;
}

}  // namespace fusion
