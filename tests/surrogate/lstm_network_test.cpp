#include "surrogate/lstm_network.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "base/error.h"
#include "tests/surrogate/sequences.h"

namespace fusion {
namespace {

using testing::bits_of;
using testing::random_targets;
using testing::random_values;

/// The network in float64, written down as its formulas: no blocks, no lanes, no shared steps.
class PlainNetwork {
 public:
  explicit PlainNetwork(const LstmNetwork& network) : shape_(network.shape()) {
    for (const std::string_view name : LstmNetwork::tensor_names()) {
      const auto weights = network.weights(name);
      tensors_[std::string(name)].assign(weights.begin(), weights.end());
    }
  }
  double& weight(std::string_view name, std::size_t index) { return tensors_.at(std::string(name)).at(index); }

  double predict(std::span<const float> sequence) const {
    std::vector<double> h(shape_.hidden, 0.0), c(shape_.hidden, 0.0);
    for (std::size_t at = 0; at < sequence.size(); at += shape_.input) step(sequence.subspan(at, shape_.input), h, c);
    double logit = tensor("head.bias")[0];
    for (std::size_t k = 0; k < h.size(); ++k) logit += tensor("head.weight")[k] * h[k];
    return sigmoid(logit);
  }
  double loss(std::span<const float> values, std::span<const float> targets) const {
    const std::size_t size = values.size() / targets.size();
    double sum = 0;
    for (std::size_t b = 0; b < targets.size(); ++b) {
      const double error = predict(values.subspan(b * size, size)) - static_cast<double>(targets[b]);
      sum += error * error / static_cast<double>(targets.size());
    }
    return sum;
  }

 private:
  static double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
  const std::vector<double>& tensor(const std::string& name) const { return tensors_.at(name); }

  void step(std::span<const float> x, std::vector<double>& h, std::vector<double>& c) const {
    const auto &embedding = tensor("embedding.weight"), &w = tensor("lstm.weight_ih"), &u = tensor("lstm.weight_hh");
    std::vector<double> e = tensor("embedding.bias"), z(4 * shape_.hidden);
    for (std::size_t j = 0; j < e.size(); ++j) {
      for (std::size_t i = 0; i < x.size(); ++i) e[j] += embedding[j * x.size() + i] * static_cast<double>(x[i]);
      e[j] = sigmoid(e[j]);
    }
    for (std::size_t r = 0; r < z.size(); ++r) {
      z[r] = tensor("lstm.bias_ih")[r] + tensor("lstm.bias_hh")[r];
      for (std::size_t j = 0; j < e.size(); ++j) z[r] += w[r * e.size() + j] * e[j];
      for (std::size_t k = 0; k < h.size(); ++k) z[r] += u[r * h.size() + k] * h[k];
    }
    const std::size_t n = shape_.hidden;
    for (std::size_t k = 0; k < n; ++k) {
      c[k] = sigmoid(z[n + k]) * c[k] + sigmoid(z[k]) * std::tanh(z[2 * n + k]);
      h[k] = sigmoid(z[3 * n + k]) * std::tanh(c[k]);
    }
  }

  LstmShape shape_;
  std::map<std::string, std::vector<double>> tensors_;
};

struct Sizes {
  LstmShape shape;
  std::size_t count, length;
};

/// Odd sizes, one row, one step, a whole block, several blocks.
const std::vector<Sizes> kSizes{
    {{3, 5, 7}, 4, 3}, {{2, 16, 16}, 1, 1}, {{4, 9, 33}, 64, 2}, {{3, 20, 18}, 150, 5}, {{1, 1, 1}, 2, 8}};

TEST(LstmNetworkTest, AgreesWithTheFormulasInFloat64) {
  Rng rng(21);
  for (const Sizes& sizes : kSizes) {
    const LstmNetwork network(sizes.shape, 3);
    const PlainNetwork plain(network);
    const auto values = random_values(rng, sizes.count, sizes.length, sizes.shape.input);
    const auto predictions = network.predict(SequenceBatch(sizes.shape.input, sizes.length, values));
    const std::size_t size = sizes.length * sizes.shape.input;
    for (std::size_t b = 0; b < sizes.count; ++b) {
      EXPECT_NEAR(predictions[b], plain.predict(std::span(values).subspan(b * size, size)), 1e-6);
    }
  }
}

TEST(LstmNetworkTest, GradientsAgreeWithFiniteDifferencesInFloat64) {
  Rng rng(22);
  for (const Sizes& sizes : kSizes) {
    LstmNetwork network(sizes.shape, 4);
    const auto values = random_values(rng, sizes.count, sizes.length, sizes.shape.input);
    const auto targets = random_targets(rng, sizes.count);
    PlainNetwork plain(network);
    EXPECT_NEAR(network.backpropagate(SequenceBatch(sizes.shape.input, sizes.length, values), targets),
                plain.loss(values, targets), 1e-6);
    for (const std::string_view name : LstmNetwork::tensor_names()) {
      const auto gradient = network.gradient(name);
      for (int probe = 0; probe < 6; ++probe) {
        const std::size_t index = rng.below(gradient.size());
        double& weight = plain.weight(name, index);
        const double kept = weight, step = 1e-5;
        weight = kept + step;
        const double above = plain.loss(values, targets);
        weight = kept - step;
        const double below = plain.loss(values, targets);
        weight = kept;
        const double expected = (above - below) / (2 * step);
        EXPECT_NEAR(gradient[index], expected, 1e-7 + 1e-4 * std::abs(expected)) << name << " [" << index << "]";
      }
    }
  }
}

TEST(LstmNetworkTest, EveryKernelSetGivesTheSameBits) {
  for (const Sizes& sizes : kSizes) {
    std::vector<std::uint64_t> hashes;
    for (const LstmKernels* kernels : all_lstm_kernels()) {
      Rng rng(23);
      LstmNetwork network(sizes.shape, 5);
      network.use(*kernels);
      const SequenceBatch batch(sizes.shape.input, sizes.length,
                                random_values(rng, sizes.count, sizes.length, sizes.shape.input));
      const auto targets = random_targets(rng, sizes.count);
      for (int step = 0; step < 10; ++step) network.train_step(batch, targets, {});
      hashes.push_back(mix(bits_of(network.all_weights()), bits_of(network.predict(batch))));
    }
    for (const std::uint64_t hash : hashes) EXPECT_EQ(hash, hashes[0]);
  }
}

TEST(LstmNetworkTest, BitsAreWhatTheyWere) {
  // A changed constant means that stored studies no longer replay: only on purpose.
  Rng rng(24);
  LstmNetwork network({3, 100, 100}, 6);
  const auto values = random_values(rng, 90, 4, 3);
  const auto targets = random_targets(rng, 90);
  const SequenceBatch whole(3, 4, values), part(3, 2, std::span(values).first(90));
  for (int step = 0; step < 20; ++step) {
    network.train_step(whole, targets, {});
    network.train_step(part, std::span(targets).first(15), {});
  }
  EXPECT_EQ(bits_of(network.all_weights()), 9213784616037329359u);
  EXPECT_EQ(bits_of(network.predict(whole)), 9427266013840080611u);
}

TEST(LstmNetworkTest, APredictionDoesNotDependOnItsCompany) {
  Rng rng(25);
  const LstmNetwork network({3, 20, 18}, 7);
  const auto values = random_values(rng, 130, 4, 3);
  const auto together = network.predict(SequenceBatch(3, 4, values));
  for (std::size_t b = 0; b < 130; ++b) {
    EXPECT_EQ(network.predict(SequenceBatch(3, 4, std::span(values).subspan(b * 12, 12))).at(0), together[b]);
  }
}

TEST(LstmNetworkTest, StartsAsTheReferenceDoes) {
  const LstmNetwork network({3, 100, 100}, 8);
  const std::map<std::string, float> bounds{{"embedding.weight", 0.1f}, {"lstm.weight_ih", 0.1f},
                                            {"lstm.weight_hh", 0.1f},   {"lstm.bias_ih", 0.1f},
                                            {"lstm.bias_hh", 0.1f},     {"head.weight", 0.1f}};
  for (const auto& [name, bound] : bounds) {
    const auto weights = network.weights(name);
    const auto [low, high] = std::minmax_element(weights.begin(), weights.end());
    EXPECT_GE(*low, -bound) << name;
    EXPECT_LE(*high, bound) << name;
    EXPECT_GT(*high - *low, 1.8f * bound) << name;
  }
  for (const char* name : {"embedding.bias", "head.bias"}) {
    for (const float bias : network.weights(name)) EXPECT_EQ(bias, 1.8f);
  }
  Rng rng(26);
  for (const float score : network.predict(SequenceBatch(3, 4, random_values(rng, 50, 4, 3)))) EXPECT_GT(score, 0.8f);
}

TEST(LstmNetworkTest, ExtremeNumbersStayFinite) {
  LstmNetwork network({2, 8, 8}, 9);
  const std::vector<float> values{1e6f, -1e6f, 1e6f, 1e6f, -1e6f, -1e6f, 0, 1e6f};
  const SequenceBatch batch(2, 2, values);
  const std::vector<float> targets{0, 1};
  for (int step = 0; step < 50; ++step) EXPECT_TRUE(std::isfinite(network.train_step(batch, targets, {})));
  for (const float weight : network.all_weights()) ASSERT_TRUE(std::isfinite(weight));
}

TEST(LstmNetworkTest, ACopyGoesOnByItself) {
  Rng rng(27);
  LstmNetwork network({3, 6, 6}, 10);
  const SequenceBatch batch(3, 2, random_values(rng, 9, 2, 3));
  const auto targets = random_targets(rng, 9);
  network.train_step(batch, targets, {});
  LstmNetwork copy = network;
  const auto before = bits_of(network.all_weights());
  copy.train_step(batch, targets, {});
  EXPECT_EQ(bits_of(network.all_weights()), before);
  network.train_step(batch, targets, {});
  EXPECT_EQ(bits_of(network.all_weights()), bits_of(copy.all_weights()));
}

TEST(LstmNetworkTest, RefusesWhatDoesNotFit) {
  LstmNetwork network({3, 4, 4}, 1);
  EXPECT_THROW(LstmNetwork({0, 4, 4}, 1), Error);
  EXPECT_THROW(network.weights("lstm.bias"), Error);
  EXPECT_THROW(SequenceBatch(3, 2, std::vector<float>(7)), Error);
  EXPECT_THROW(network.predict(SequenceBatch(2, 1, std::vector<float>(4))), Error);
  EXPECT_THROW(network.train_step(SequenceBatch(3, 1, std::vector<float>(6)), std::vector<float>(1), {}), Error);
  EXPECT_TRUE(network.predict(SequenceBatch(3, 1, {})).empty());
}

TEST(SequenceBatchTest, KeepsEqualStepsOnce) {
  const SequenceBatch batch(2, 2, std::vector<float>{1, 2, 3, 4, 3, 4, 3, 4});
  EXPECT_EQ(batch.count(), 2u);
  EXPECT_EQ(batch.different_steps(), 2u);
  EXPECT_EQ(std::vector<float>(batch.steps().begin(), batch.steps().end()), (std::vector<float>{1, 2, 3, 4}));
  EXPECT_EQ(batch.places(0)[0], 0u);
  EXPECT_EQ(batch.places(0)[1], 1u);
  EXPECT_EQ(batch.places(1)[0], 1u);
  EXPECT_EQ(batch.places(1)[1], 1u);
}

}  // namespace
}  // namespace fusion
