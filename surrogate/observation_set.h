#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <vector>

#include "surrogate/surrogate.h"

namespace fusion {

/// The best score of each architecture known so far: the reference's store.
///
/// An architecture that is added again keeps its place and the larger score. One thread at a time.
class ObservationSet {
 public:
  ObservationSet() = default;
  explicit ObservationSet(std::span<const Observation> observations);

  void add(const Architecture& architecture, double score);
  /// In the order in which architectures first came.
  std::span<const Observation> all() const { return observations_; }
  std::size_t size() const { return observations_.size(); }
  bool contains(const Architecture& architecture) const { return places_.contains(architecture); }

  /// The observations of one length, in their order.
  struct Bucket {
    int length = 0;
    std::vector<Observation> observations;
  };
  /// Grouped by length, lengths in the order in which they first came.
  std::vector<Bucket> buckets() const;
  /// The `count` best, highest first, equal scores in their order; fewer if there are fewer.
  std::vector<Observation> best(std::size_t count) const;

 private:
  std::vector<Observation> observations_;
  std::map<Architecture, std::size_t> places_;
};

}  // namespace fusion
