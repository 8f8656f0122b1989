#include "search/study_strategy.h"

#include "base/error.h"
#include "search/forked_strategy.h"

namespace fusion {

namespace {

/// What was inherited that is of no use in another space is not learned from.
void observe(Strategy& strategy, const SearchSpace& space, std::span<const Trial> known) {
  for (const Trial& trial : known) {
    if (trial.score && space.contains(trial.architecture)) strategy.observe(trial.architecture, trial.score->dev_score);
  }
}

}  // namespace

std::unique_ptr<Strategy> make_study_strategy(const StudyRecord& study, std::span<const Trial> trials) {
  const std::string source = "study " + to_string(study.id);
  JsonProblems problems;
  JsonReader space_reader(study.spec.space, source, problems, "/space");
  const SearchSpace space = SearchSpace::read(space_reader, study.dataset);
  JsonReader strategy_reader(study.spec.strategy, source, problems, "/strategy");
  auto strategy = make_strategy(strategy_reader, space, study.spec.seed);
  problems.throw_if_any();
  if (!study.fork) return strategy;
  if (std::cmp_less(trials.size(), study.fork->at)) {
    throw StoreError(source + ": it inherited " + std::to_string(study.fork->at) + " trials, the database has " + std::to_string(trials.size()));
  }
  observe(*strategy, space, trials.first(static_cast<std::size_t>(study.fork->observed)));
  return std::make_unique<ForkedStrategy>(std::move(strategy), trials.first(static_cast<std::size_t>(study.fork->at)), study.fork->observed == 0);
}

}  // namespace fusion
