#include <gtest/gtest.h>

#include <cmath>

#include "base/random.h"
#include "search/expansion.h"
#include "search/temperature.h"
#include "space/search_space.h"
#include "tests/surrogate/golden_cases.h"

namespace fusion {
namespace {

/// [N, steps, width] integers as networks: taps, then the activation.
std::vector<Architecture> architectures_of(const GoldenCase& golden, const std::string& name) {
  std::vector<std::int64_t> shape = golden.shape(name);
  if (shape.size() == 2) shape.insert(shape.begin() + 1, 1);
  const std::vector<std::int64_t> values = golden.integers(name);
  std::vector<Architecture> architectures(static_cast<std::size_t>(shape.at(0)));
  const std::int64_t* numbers = values.data();
  for (Architecture& architecture : architectures) {
    for (std::int64_t step = 0; step < shape.at(1); ++step, numbers += shape.at(2)) {
      FusionStep next;
      next.taps.assign(numbers, numbers + shape.at(2) - 1);
      next.activation = static_cast<Activation>(numbers[shape.at(2) - 1]);
      architecture.steps.push_back(next);
    }
  }
  return architectures;
}

/// The space with as many taps and activations as the choices of the case use.
SearchSpace space_of(const std::vector<FusionStep>& choices) {
  DatasetSpec dataset;
  dataset.modalities.resize(choices.at(0).taps.size());
  int activations = 0;
  for (const FusionStep& choice : choices) {
    for (std::size_t m = 0; m < choice.taps.size(); ++m) {
      auto& taps = dataset.modalities[m].taps;
      while (static_cast<std::int32_t>(taps.size()) <= choice.taps[m]) {
        taps.push_back({"tap" + std::to_string(taps.size()), 1});
      }
      dataset.modalities[m].name = "m" + std::to_string(m);
    }
    activations = std::max(activations, static_cast<int>(choice.activation) + 1);
  }
  std::vector<Activation> used;
  for (int i = 0; i < activations; ++i) used.push_back(static_cast<Activation>(i));
  return SearchSpace::whole(dataset, 4, used);
}

void check_expansion(const GoldenCase& golden) {
  std::vector<FusionStep> choices;
  for (const Architecture& architecture : architectures_of(golden, "unfolded")) {
    choices.push_back(architecture.steps.at(0));
  }
  EXPECT_EQ(space_of(choices).step_choices(), choices);
  const std::vector<Architecture> previous = architectures_of(golden, "previous");
  int cases = 0;
  for (const auto& [name, tensor] : golden.tensors.tensors()) {
    std::vector<Architecture> expanded;
    const std::size_t level = name.find("level");
    if (level == std::string::npos) continue;
    const auto number = static_cast<std::size_t>(std::stoi(name.substr(level + 5)));
    expanded = name.ends_with("_from_nothing") ? expand({}, choices, number) : expand(previous, choices, number);
    EXPECT_EQ(expanded, architectures_of(golden, name)) << name;
    ++cases;
  }
  EXPECT_GT(cases, 0);
}

void check_inclusion(const GoldenCase& golden, const std::string& name, const std::vector<float>& probabilities) {
  constexpr int kRuns = 60'000;
  const std::size_t k = static_cast<std::size_t>(std::stoi(name.substr(name.find("_k") + 2)));
  const std::vector<float> expected = golden.floats(name);
  std::vector<int> drawn(expected.size(), 0);
  Rng rng(20190315);
  for (int run = 0; run < kRuns; ++run) {
    for (const std::size_t index : draw_without_replacement(probabilities, k, [&rng] { return rng.uniform(); })) {
      ++drawn[index];
    }
  }
  for (std::size_t i = 0; i < expected.size(); ++i) {
    EXPECT_NEAR(drawn[i] / static_cast<double>(kRuns), expected[i], golden.tolerance("atol", "inclusion_frequency"))
        << name << " " << i;
  }
}

void check_sampling(const GoldenCase& golden) {
  const auto temperatures = golden.sidecar.at("temperatures").get<std::vector<double>>();
  int cases = 0;
  for (const auto& [name, tensor] : golden.tensors.tensors()) {
    if (!name.ends_with(".accuracy")) continue;
    const std::string prefix = name.substr(0, name.find('.'));
    const std::vector<double> scores = tensor.to<double>();
    for (std::size_t t = 0; t < temperatures.size(); ++t) {
      const std::string suffix = ".p" + std::to_string(t);
      const std::vector<float> probabilities = draw_probabilities(scores, temperatures[t]);
      expect_close(probabilities, golden.floats(prefix + suffix), golden.tolerance("atol", "p"),
                   golden.tolerance("rtol", "p"), prefix + suffix);
      for (const auto& [other, frequencies] : golden.tensors.tensors()) {
        if (other.starts_with(prefix + ".inclusion_frequency_k") && other.ends_with(suffix)) {
          check_inclusion(golden, other, probabilities);
        }
      }
      ++cases;
    }
  }
  EXPECT_GT(cases, 0);
}

void check_temperature(const GoldenCase& golden) {
  const auto& cases = golden.sidecar.at("cases");
  for (std::size_t i = 0; i < cases.size(); ++i) {
    const nlohmann::json& options = cases[i];
    TemperatureSchedule schedule;
    schedule.initial = options.at("initial");
    schedule.final = options.at("final");
    schedule.decay = options.at("decay_sigma");
    schedule.iterations = options.at("search_iterations");
    schedule.levels = options.at("levels");
    TemperatureSchedule repaired = schedule;
    repaired.counter = TemperatureCounter::repaired;
    const std::string prefix = "case" + std::to_string(i) + ".";
    const auto indices = golden.integers(prefix + "iteration_index");
    std::vector<float> after, used, global;
    for (int step = 0; step < static_cast<int>(indices.size()); ++step) {
      const int iteration = step / schedule.levels, level = step % schedule.levels;
      EXPECT_EQ(schedule.index(iteration, level), indices[static_cast<std::size_t>(step)]) << prefix << step;
      after.push_back(static_cast<float>(schedule.after(iteration, level)));
      used.push_back(static_cast<float>(schedule.in_force(iteration, level)));
      global.push_back(static_cast<float>(repaired.after(iteration, level)));
    }
    const double rtol = golden.tolerance("rtol"), atol = golden.tolerance("atol");
    expect_close(after, golden.floats(prefix + "temperature_after"), atol, rtol, prefix + "temperature_after");
    expect_close(used, golden.floats(prefix + "temperature_used"), atol, rtol, prefix + "temperature_used");
    expect_close(global, golden.floats(prefix + "temperature_after_global_index"), atol, rtol, prefix + "global");
  }
  EXPECT_GT(cases.size(), 0u);
}

}  // namespace
}  // namespace fusion

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  return fusion::run_golden_tests("SearchGolden", {{"expansion", fusion::check_expansion},
                                                   {"sampling", fusion::check_sampling},
                                                   {"temperature", fusion::check_temperature}});
}
