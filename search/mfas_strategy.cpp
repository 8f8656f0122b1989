#include "search/mfas_strategy.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "base/error.h"
#include "base/random.h"
#include "search/expansion.h"
#include "search/rank_correlation.h"

namespace fusion {

MfasOptions MfasOptions::read(JsonReader& reader, const SearchSpace& space) {
  MfasOptions options;
  TemperatureSchedule& temperature = options.temperature;
  temperature.iterations = static_cast<int>(reader.integer("iterations", 1, 1000, temperature.iterations));
  temperature.levels = static_cast<int>(reader.integer("levels", 1, space.max_steps(), std::min(4, space.max_steps())));
  options.samples = static_cast<int>(reader.integer("samples", 1, 100'000, options.samples));
  temperature.initial = reader.number("initial_temperature", 0.01, 1e6, temperature.initial);
  temperature.final = reader.number("final_temperature", 0.01, 1e6, temperature.final);
  temperature.decay = reader.number("temperature_decay", 0.01, 1e6, temperature.decay);
  temperature.counter = reader.choice<TemperatureCounter>("temperature_counter", temperature.counter);
  options.duplicates = reader.choice<Duplicates>("duplicates", options.duplicates);
  if (space.min_steps() != 1) {
    reader.fail("name", "mfas grows networks from one step, so /space/steps/min must be 1; it is " +
                            std::to_string(space.min_steps()));
  }
  return options;
}

MfasStrategy::MfasStrategy(SearchSpace space, const MfasOptions& options, std::unique_ptr<Surrogate> surrogate,
                           std::uint64_t seed)
    : space_(std::move(space)),
      options_(options),
      seed_(mix_text(seed, "mfas")),
      steps_(options.temperature.iterations * options.temperature.levels),
      planned_(planned()),
      surrogate_(std::move(surrogate)) {
  for (const Architecture& architecture : expand({}, space_.step_choices(), 0)) add_trial(architecture, std::nullopt);
}

void MfasStrategy::add_trial(const Architecture& architecture, std::optional<double> prediction) {
  const int replica = times_proposed_[architecture]++;
  trials_.push_back({architecture, replica, prediction, std::nullopt});
}

std::vector<Proposal> MfasStrategy::ask(std::size_t count) {
  std::vector<Proposal> proposals;
  while (!ended_ && proposals.size() < count) {
    const auto next = static_cast<std::size_t>(ledger_.asked() - first_index_);
    if (next == trials_.size()) break;
    const StepTrial& trial = trials_[next];
    Proposal proposal{trial.architecture, {{"iteration", iteration()}, {"level", level()}}, trial.replica};
    if (trial.prediction) {
      proposal.facts["temperature"] = options_.temperature.in_force(iteration(), level());
      proposal.facts["prediction"] = *trial.prediction;
    }
    proposals.push_back(std::move(proposal));
    ledger_.ask();
  }
  return proposals;
}

void MfasStrategy::tell(const Told& ended) {
  ledger_.tell(ended);
  StepTrial& trial = trials_.at(static_cast<std::size_t>(ended.ask_index - first_index_));
  if (trial.architecture != ended.architecture) {
    throw Error("mfas: proposal " + std::to_string(ended.ask_index) + " is " + canonical_text(trial.architecture) +
                ", but its end was told for " + canonical_text(ended.architecture));
  }
  if (ended.state == TrialState::completed && std::isfinite(ended.score)) trial.score = ended.score;
  const bool all_asked = static_cast<std::size_t>(ledger_.asked() - first_index_) == trials_.size();
  if (all_asked && ledger_.none_outstanding()) finish_step();
}

void MfasStrategy::finish_step() {
  bool any = false;
  for (const StepTrial& trial : trials_) {
    if (!trial.score) continue;
    store_.add(trial.architecture, *trial.score);
    any = true;
  }
  if (any) {
    fit();
    choose_survivors();
  }
  first_index_ = ledger_.asked();
  trials_.clear();
  while (trials_.empty() && !ended_) {
    ++step_;
    if (step_ == steps_ || survivors_.empty()) {
      ended_ = true;
    } else {
      begin_step();
    }
  }
}

void MfasStrategy::fit() {
  const FitReport report = surrogate_->fit(store_.all());
  std::vector<double> predictions, scores;
  for (const StepTrial& trial : trials_) {
    if (!trial.prediction || !trial.score) continue;
    predictions.push_back(*trial.prediction);
    scores.push_back(*trial.score);
  }
  FitRecord record;
  record.fit_index = fits_++;
  record.surrogate = surrogate_->name();
  record.observations = report.observations;
  record.loss = report.loss;
  record.rank_correlation = rank_correlation(predictions, scores);
  record.mean_abs_error = mean_abs_error(predictions, scores);
  record.seconds = report.seconds;
  record.details = {{"iteration", iteration()},
                    {"level", level()},
                    {"epochs", report.epochs},
                    {"lengths", report.lengths},
                    {"loss_by_length", report.loss_by_length}};
  fit_records_.push_back(std::move(record));
}

std::vector<std::size_t> MfasStrategy::draw(std::span<const double> scores) const {
  Rng rng(seed_, static_cast<std::uint64_t>(step_));
  const double temperature = options_.temperature.in_force(iteration(), level());
  return draw_without_replacement(draw_probabilities(scores, temperature), static_cast<std::size_t>(options_.samples),
                                  [&rng] { return rng.uniform(); });
}

void MfasStrategy::choose_survivors() {
  std::vector<Architecture> scored;
  std::vector<double> scores;
  for (const StepTrial& trial : trials_) {
    if (!trial.score) continue;
    scored.push_back(trial.architecture);
    scores.push_back(*trial.score);
  }
  if (!first_step()) {
    survivors_ = std::move(scored);
    return;
  }
  survivors_.clear();
  for (const std::size_t index : draw(scores)) survivors_.push_back(scored[index]);
}

std::vector<Architecture> MfasStrategy::candidates() const {
  std::vector<Architecture> all = expand(survivors_, space_.step_choices(), static_cast<std::size_t>(level()));
  if (options_.duplicates == Duplicates::reference) return all;
  std::set<Architecture> seen;
  std::vector<Architecture> fresh;
  for (Architecture& candidate : all) {
    if (times_proposed_.contains(candidate) || !seen.insert(candidate).second) continue;
    fresh.push_back(std::move(candidate));
  }
  return fresh;
}

void MfasStrategy::begin_step() {
  const std::vector<Architecture> expanded = candidates();
  if (expanded.empty()) return;
  const std::vector<double> predictions = surrogate_->predict(expanded);
  for (const std::size_t index : draw(predictions)) add_trial(expanded[index], predictions[index]);
}

std::uint64_t MfasStrategy::planned() const {
  constexpr std::uint64_t kPlenty = std::uint64_t{1} << 40;  // no search is that long
  const std::uint64_t choices = space_.step_choices().size();
  const auto samples = static_cast<std::uint64_t>(options_.samples);
  const int levels = options_.temperature.levels;
  std::vector<std::uint64_t> left{1};  // networks of each length that are not yet proposed
  for (int length = 1; length <= levels; ++length) left.push_back(std::min(kPlenty, left.back() * choices));
  left[1] = 0;
  std::uint64_t total = choices, survivors = std::min(samples, choices);
  for (int step = 1; step < steps_; ++step) {
    std::uint64_t fresh = std::min(samples, survivors * choices);
    std::uint64_t& of_length = left[static_cast<std::size_t>(std::min(step + 1, levels))];
    if (options_.duplicates == Duplicates::distinct) fresh = std::min(fresh, of_length);
    of_length -= std::min(fresh, of_length);
    total += fresh;
    if (fresh > 0) survivors = fresh;
  }
  return total;
}

std::optional<std::uint64_t> MfasStrategy::total() const {
  return finished() ? static_cast<std::uint64_t>(ledger_.asked()) : planned_;
}

std::vector<FitRecord> MfasStrategy::take_fit_records() { return std::exchange(fit_records_, {}); }

}  // namespace fusion
