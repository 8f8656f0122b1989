#include "surrogate/observation_set.h"

#include <algorithm>

namespace fusion {

ObservationSet::ObservationSet(std::span<const Observation> observations) {
  for (const Observation& observation : observations) add(observation.architecture, observation.score);
}

void ObservationSet::add(const Architecture& architecture, double score) {
  const auto [found, fresh] = places_.try_emplace(architecture, observations_.size());
  if (fresh) {
    observations_.push_back({architecture, score});
  } else {
    double& known = observations_[found->second].score;
    known = std::max(known, score);
  }
}

std::vector<ObservationSet::Bucket> ObservationSet::buckets() const {
  std::vector<Bucket> buckets;
  for (const Observation& observation : observations_) {
    const auto length = static_cast<int>(observation.architecture.steps.size());
    auto bucket =
        std::find_if(buckets.begin(), buckets.end(), [length](const Bucket& b) { return b.length == length; });
    if (bucket == buckets.end()) bucket = buckets.insert(buckets.end(), Bucket{length, {}});
    bucket->observations.push_back(observation);
  }
  return buckets;
}

std::vector<Observation> ObservationSet::best(std::size_t count) const {
  std::vector<Observation> sorted = observations_;
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const Observation& a, const Observation& b) { return a.score > b.score; });
  sorted.resize(std::min(count, sorted.size()));
  return sorted;
}

}  // namespace fusion
