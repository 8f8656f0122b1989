#include "search/expansion.h"

namespace fusion {

std::vector<Architecture> expand(std::span<const Architecture> previous, std::span<const FusionStep> choices,
                                 std::size_t level) {
  const std::vector<Architecture> nothing(level == 0 ? 1 : 0);
  if (previous.empty()) previous = nothing;
  std::vector<Architecture> expanded;
  expanded.reserve(previous.size() * choices.size());
  for (const Architecture& network : previous) {
    for (const FusionStep& choice : choices) {
      Architecture next = network;
      if (level < next.steps.size()) {
        next.steps[level] = choice;
      } else {
        next.steps.push_back(choice);
      }
      expanded.push_back(std::move(next));
    }
  }
  return expanded;
}

}  // namespace fusion
