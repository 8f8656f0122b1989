#include "search/study_strategy.h"

namespace fusion {

std::unique_ptr<Strategy> make_study_strategy(const StudyRecord& study) {
  const std::string source = "study " + to_string(study.id);
  JsonProblems problems;
  JsonReader space_reader(study.spec.space, source, problems, "/space");
  const SearchSpace space = SearchSpace::read(space_reader, study.dataset);
  JsonReader strategy_reader(study.spec.strategy, source, problems, "/strategy");
  auto strategy = make_strategy(strategy_reader, space, study.spec.seed);
  problems.throw_if_any();
  return strategy;
}

}  // namespace fusion
