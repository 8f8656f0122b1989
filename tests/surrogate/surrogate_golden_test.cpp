#include <gtest/gtest.h>

#include <cmath>

#include "surrogate/lstm_network.h"
#include "surrogate/observation_set.h"
#include "tests/surrogate/golden_cases.h"

namespace fusion {
namespace {

/// The network whose weights stand under `prefix`; sizes come from the tensors.
LstmNetwork network_of(const GoldenCase& golden, const std::string& prefix) {
  const auto& embedding = golden.shape(prefix + "embedding.weight");
  const auto& recurrent = golden.shape(prefix + "lstm.weight_hh");
  LstmNetwork network({static_cast<std::size_t>(embedding.at(1)), static_cast<std::size_t>(embedding.at(0)),
                       static_cast<std::size_t>(recurrent.at(1))},
                      0);
  for (const std::string_view name : LstmNetwork::tensor_names()) {
    const std::vector<float> values = golden.floats(prefix + std::string(name));
    const std::span<float> weights = network.weights(name);
    if (values.size() != weights.size()) {
      throw Error("golden case: tensor " + std::string(name) + " has an unexpected size");
    }
    std::copy(values.begin(), values.end(), weights.begin());
  }
  return network;
}

SequenceBatch batch_of(const GoldenCase& golden, const std::string& name) {
  const auto& shape = golden.shape(name);
  return SequenceBatch(static_cast<std::size_t>(shape.at(2)), static_cast<std::size_t>(shape.at(1)),
                       golden.floats(name));
}

void check_forward(const GoldenCase& golden) {
  const LstmNetwork network = network_of(golden, "");
  int cases = 0;
  for (const auto& [name, tensor] : golden.tensors.tensors()) {
    const std::size_t at = name.rfind(".sequences");
    if (at == std::string::npos) continue;
    ++cases;
    const SequenceBatch batch = batch_of(golden, name);
    expect_close(network.predict(batch), golden.floats(name.substr(0, at) + ".expected"), golden.tolerance("atol"),
                 golden.tolerance("rtol"), name);
  }
  EXPECT_GT(cases, 0);
}

void check_train_step(const GoldenCase& golden) {
  LstmNetwork network = network_of(golden, "initial.");
  const SequenceBatch batch = batch_of(golden, "sequences");
  const std::vector<float> targets = golden.floats("targets");
  const double prediction_atol = golden.tolerance("atol", "prediction");
  expect_close(network.predict(batch), golden.floats("initial.prediction"), prediction_atol, 0, "initial.prediction");
  const double loss = network.train_step(batch, targets, {});
  EXPECT_NEAR(loss, golden.floats("loss").at(0), 1e-5);
  for (const std::string_view tensor : LstmNetwork::tensor_names()) {
    const std::string name(tensor);
    const std::vector<float> gradient = golden.floats("grad." + name);
    expect_close(network.gradient(name), gradient, golden.tolerance("atol", "grad"), golden.tolerance("rtol", "grad"),
                 "grad." + name);
    const std::vector<float> after = golden.floats("after." + name);
    for (std::size_t i = 0; i < after.size(); ++i) {
      if (std::abs(gradient[i]) <= 1e-6f) continue;  // Adam's first step is lr * sign of a rounding error there
      ASSERT_NEAR(network.weights(name)[i], after[i], golden.tolerance("atol", "after")) << name << " [" << i << "]";
    }
  }
  expect_close(network.predict(batch), golden.floats("after.prediction"), prediction_atol, 0, "after.prediction");
}

void check_train_epochs(const GoldenCase& golden) {
  LstmNetwork network = network_of(golden, "initial.");
  std::vector<SequenceBatch> batches;
  std::vector<std::vector<float>> targets;
  for (int i = 0; golden.tensors.contains("bucket" + std::to_string(i) + ".sequences"); ++i) {
    const std::string bucket = "bucket" + std::to_string(i);
    batches.push_back(batch_of(golden, bucket + ".sequences"));
    targets.push_back(golden.floats(bucket + ".targets"));
  }
  ASSERT_FALSE(batches.empty());
  int last_epoch = 1;
  for (const auto& [name, tensor] : golden.tensors.tensors()) {
    if (name.starts_with("epoch")) last_epoch = std::max(last_epoch, std::stoi(name.substr(5)));
  }
  for (int epoch = 1; epoch <= last_epoch; ++epoch) {
    const std::string prefix = "epoch" + std::to_string(epoch);
    double loss = 0;
    for (std::size_t i = 0; i < batches.size(); ++i) loss = network.train_step(batches[i], targets[i], {});
    for (const std::string_view name : LstmNetwork::tensor_names()) {
      const std::string tensor = prefix + "." + std::string(name);
      if (golden.tensors.contains(tensor)) {
        expect_close(network.weights(name), golden.floats(tensor), golden.tolerance("atol", prefix), 0, tensor);
      }
    }
    if (golden.tensors.contains(prefix + ".loss")) {
      const std::string group = golden.sidecar.at("tolerance").contains(prefix + ".loss") ? prefix + ".loss" : prefix;
      const double expected = golden.floats(prefix + ".loss").at(0);
      EXPECT_NEAR(loss, expected, golden.tolerance("atol", group) + golden.tolerance("rtol", group) * expected)
          << prefix;
    }
    for (std::size_t i = 0; i < batches.size(); ++i) {
      const std::string tensor = prefix + ".prediction" + std::to_string(i);
      if (!golden.tensors.contains(tensor)) continue;
      expect_close(network.predict(batches[i]), golden.floats(tensor), golden.tolerance("atol", prefix + ".prediction"),
                   0, tensor);
    }
  }
}

/// The first `length` rows of architecture number `index` of an integer tensor [N, rows, width]: taps, then the
/// activation.
Architecture architecture_of(const GoldenCase& golden, const std::string& name, std::size_t index, std::size_t length) {
  const auto& shape = golden.shape(name);
  const std::vector<std::int64_t> values = golden.integers(name);
  const auto rows = static_cast<std::size_t>(shape.at(1)), width = static_cast<std::size_t>(shape.at(2));
  Architecture architecture;
  for (std::size_t step = 0; step < length; ++step) {
    const std::int64_t* numbers = values.data() + (index * rows + step) * width;
    FusionStep next;
    next.taps.assign(numbers, numbers + width - 1);
    next.activation = static_cast<Activation>(numbers[width - 1]);
    architecture.steps.push_back(next);
  }
  return architecture;
}

void check_bucket(const GoldenCase& golden, const ObservationSet::Bucket& bucket, const std::string& name) {
  const auto& shape = golden.shape(name + ".sequences");
  EXPECT_EQ(bucket.length, shape.at(1)) << name;
  const std::vector<float> targets = golden.floats(name + ".targets");
  ASSERT_EQ(bucket.observations.size(), targets.size()) << name;
  for (std::size_t i = 0; i < targets.size(); ++i) {
    EXPECT_EQ(bucket.observations[i].architecture,
              architecture_of(golden, name + ".sequences", i, static_cast<std::size_t>(shape.at(1))))
        << name << " " << i;
    EXPECT_NEAR(bucket.observations[i].score, targets[i], golden.tolerance("atol")) << name << " " << i;
  }
}

void check_data(const GoldenCase& golden) {
  ObservationSet store;
  const std::vector<float> scores = golden.floats("inserts.accuracy");
  const std::vector<std::int64_t> lengths = golden.integers("inserts.length");
  for (std::size_t i = 0; i < scores.size(); ++i) {
    store.add(architecture_of(golden, "inserts.conf", i, static_cast<std::size_t>(lengths[i])),
              static_cast<double>(scores[i]));
  }
  const std::vector<ObservationSet::Bucket> buckets = store.buckets();
  for (std::size_t i = 0; i < buckets.size(); ++i) check_bucket(golden, buckets[i], "bucket" + std::to_string(i));
  EXPECT_FALSE(golden.tensors.contains("bucket" + std::to_string(buckets.size()) + ".sequences"));
  for (const auto& [name, tensor] : golden.tensors.tensors()) {
    if (!name.starts_with("top") || !name.ends_with(".accuracy_desc")) continue;
    const std::string confs = name.substr(0, name.find('.')) + ".conf_desc";
    const std::vector<float> expected = golden.floats(name);
    const std::vector<Observation> best = store.best(expected.size());
    ASSERT_EQ(best.size(), expected.size());
    for (std::size_t i = 0; i < best.size(); ++i) {
      EXPECT_NEAR(best[i].score, expected[i], golden.tolerance("atol")) << name << " " << i;
      EXPECT_EQ(best[i].architecture, architecture_of(golden, confs, i, best[i].architecture.steps.size()))
          << confs << " " << i;
    }
  }
}

}  // namespace
}  // namespace fusion

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  return fusion::run_golden_tests("SurrogateGolden", {{"surrogate_forward", fusion::check_forward},
                                                      {"surrogate_train_step", fusion::check_train_step},
                                                      {"surrogate_train_epochs", fusion::check_train_epochs},
                                                      {"surrogate_data", fusion::check_data}});
}
