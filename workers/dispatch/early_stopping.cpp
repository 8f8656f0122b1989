#include "workers/dispatch/early_stopping.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <iterator>
#include <utility>

namespace fusion {

EarlyStopping::EarlyStopping(const EarlyStoppingOptions& options, int epochs) : reduction_(options.reduction) {
  if (options.policy == EarlyStoppingPolicy::none) return;
  for (std::int64_t rung = options.min_epochs; rung < epochs; rung *= options.reduction) rungs_.push_back(static_cast<int>(rung));
}

EarlyStopping::Rung* EarlyStopping::rung_at(int epoch) {
  return std::ranges::binary_search(rungs_, epoch) ? &seen_[epoch] : nullptr;
}

void EarlyStopping::put(Rung& rung, TrialId trial, double dev_score) const {
  const auto [known, fresh] = rung.scores.try_emplace(trial, dev_score);
  if (!fresh) {
    const double old = std::exchange(known->second, dev_score);
    const auto in_best = rung.best.find(old);
    if (in_best != rung.best.end()) {
      rung.best.erase(in_best);
    } else {
      rung.rest.erase(rung.rest.find(old));
    }
  }
  rung.rest.insert(dev_score);
  const std::size_t places = std::max<std::size_t>(1, rung.scores.size() / static_cast<std::size_t>(reduction_));
  while (rung.best.size() < places) rung.best.insert(rung.rest.extract(std::prev(rung.rest.end())));
  // At most the new score is better than one that has a place.
  if (!rung.rest.empty() && *rung.rest.rbegin() > *rung.best.begin()) {
    auto worst = rung.best.extract(rung.best.begin());
    rung.best.insert(rung.rest.extract(std::prev(rung.rest.end())));
    rung.rest.insert(std::move(worst));
  }
}

void EarlyStopping::note(TrialId trial, int epoch, double dev_score) {
  if (Rung* rung = rung_at(epoch)) put(*rung, trial, dev_score);
}

std::optional<std::string> EarlyStopping::report(TrialId trial, int epoch, double dev_score) {
  Rung* rung = rung_at(epoch);
  if (rung == nullptr) return std::nullopt;
  put(*rung, trial, dev_score);
  const double last = *rung->best.begin();
  if (dev_score >= last) return std::nullopt;
  char text[160];
  std::snprintf(text, sizeof text, "its dev score of %.4f after epoch %d is not among the best %zu of %zu; the last of these has %.4f",
                dev_score, epoch, rung->best.size(), rung->scores.size(), last);
  return text;
}

}  // namespace fusion
