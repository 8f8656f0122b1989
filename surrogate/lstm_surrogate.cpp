#include "surrogate/lstm_surrogate.h"

#include <chrono>
#include <map>

#include "surrogate/observation_set.h"

namespace fusion {

namespace {

LstmShape shape_for(const Encoding& encoding, const LstmSurrogateOptions& options) {
  return {encoding.width(), static_cast<std::size_t>(options.embedding), static_cast<std::size_t>(options.hidden)};
}

struct Bucket {
  SequenceBatch batch;
  std::vector<float> targets;
};

double sum_of_squared_errors(const LstmNetwork& network, const Bucket& bucket) {
  const std::vector<float> predictions = network.predict(bucket.batch);
  double sum = 0;
  for (std::size_t i = 0; i < predictions.size(); ++i) {
    const double error = static_cast<double>(predictions[i]) - static_cast<double>(bucket.targets[i]);
    sum += error * error;
  }
  return sum;
}

}  // namespace

LstmSurrogate::LstmSurrogate(const SearchSpace& space, const LstmSurrogateOptions& options)
    : encoding_(space), options_(options), network_(shape_for(encoding_, options), options.seed) {}

SequenceBatch LstmSurrogate::batch_of(std::size_t length, std::span<const Architecture> candidates) const {
  std::vector<float> values;
  values.reserve(candidates.size() * length * encoding_.width());
  for (const Architecture& candidate : candidates) {
    const std::vector<float> sequence = encoding_.sequence(candidate);
    values.insert(values.end(), sequence.begin(), sequence.end());
  }
  return SequenceBatch(encoding_.width(), length, values);
}

FitReport LstmSurrogate::fit(std::span<const Observation> observations) {
  const auto begin = std::chrono::steady_clock::now();
  const ObservationSet distinct(observations);
  FitReport report;
  report.observations = static_cast<std::int64_t>(distinct.size());
  report.epochs = options_.epochs;
  std::vector<Bucket> buckets;
  for (const ObservationSet::Bucket& bucket : distinct.buckets()) {
    std::vector<Architecture> architectures;
    std::vector<float> targets;
    for (const Observation& observation : bucket.observations) {
      architectures.push_back(observation.architecture);
      targets.push_back(static_cast<float>(observation.score));
    }
    buckets.push_back({batch_of(static_cast<std::size_t>(bucket.length), architectures), std::move(targets)});
    report.lengths.push_back(bucket.length);
  }
  AdamOptions adam;
  adam.lr = options_.lr;
  for (int epoch = 0; epoch < options_.epochs; ++epoch) {
    report.loss_by_length.clear();
    for (const Bucket& bucket : buckets) {
      report.loss_by_length.push_back(network_.train_step(bucket.batch, bucket.targets, adam));
    }
  }
  double squares = 0;
  for (const Bucket& bucket : buckets) squares += sum_of_squared_errors(network_, bucket);
  if (distinct.size() > 0) report.loss = squares / static_cast<double>(distinct.size());
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return report;
}

std::vector<double> LstmSurrogate::predict(std::span<const Architecture> candidates) const {
  std::map<std::size_t, std::vector<std::size_t>> by_length;
  for (std::size_t i = 0; i < candidates.size(); ++i) by_length[candidates[i].steps.size()].push_back(i);
  std::vector<double> scores(candidates.size());
  for (const auto& [length, places] : by_length) {
    std::vector<Architecture> group;
    for (const std::size_t place : places) group.push_back(candidates[place]);
    const std::vector<float> predictions = network_.predict(batch_of(length, group));
    for (std::size_t i = 0; i < places.size(); ++i) scores[places[i]] = static_cast<double>(predictions[i]);
  }
  return scores;
}

}  // namespace fusion
