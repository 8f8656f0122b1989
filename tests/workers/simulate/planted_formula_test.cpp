#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <vector>

#include "base/error.h"
#include "space/search_space.h"
#include "tests/space/spaces.h"
#include "workers/simulate/planted_formula.h"

namespace fusion {
namespace {

std::vector<Architecture> small_space() {
  const SearchSpace space = SearchSpace::whole(testing::avmnist_spec(), 2);
  std::vector<Architecture> all;
  for (std::uint64_t i = 0; i < space.count_saturated(); ++i) all.push_back(space.at(i));
  return all;
}

TEST(PlantedFormulaTest, GivesTheSameBitsEverywhere) {
  const PlantedFormula formula(0);
  const Architecture architecture = architecture_from_text("[[3,2,0],[1,1,1]]");
  EXPECT_EQ(formula.truth(architecture), PlantedFormula(0).truth(architecture));
  EXPECT_EQ(formula.score(architecture, 7), PlantedFormula(0).score(architecture, 7));
  EXPECT_NE(formula.truth(architecture), PlantedFormula(1).truth(architecture));
  // Taken from this code on x86-64: a change of these is a change of every dry run.
  EXPECT_EQ(*formula.truth(architecture), 0x1.82d02be0d7fb1p-1);
  EXPECT_EQ(*formula.score(architecture, 7), 0x1.85414ac1ad413p-1);
}

TEST(PlantedFormulaTest, ScoresOfAWholeSpaceAreLegalAndDistinct) {
  const PlantedFormula formula(3);
  std::vector<double> truths;
  for (const Architecture& architecture : small_space()) {
    truths.push_back(*formula.truth(architecture));
    const double score = *formula.score(architecture, 5);
    EXPECT_GE(score, 0.25 - 0.01);
    EXPECT_LE(score, 0.95 + 0.01);
    EXPECT_NEAR(score, truths.back(), 0.004 * 2.45 + 1e-12);
  }
  std::sort(truths.begin(), truths.end());
  EXPECT_EQ(std::adjacent_find(truths.begin(), truths.end()), truths.end());
  EXPECT_GT(truths.back() - truths[truths.size() / 2], 0.05) << "the best must stand out";
}

// What a good strategy can use: a tap that is good in one place is good in others.
TEST(PlantedFormulaTest, TheFirstStepTellsOfTheWhole) {
  const PlantedFormula formula(2);
  std::map<std::string, std::pair<double, int>> by_first;
  double mean = 0;
  const std::vector<Architecture> all = small_space();
  std::vector<const Architecture*> two;
  for (const Architecture& architecture : all) {
    if (architecture.steps.size() == 2) two.push_back(&architecture);
  }
  for (const Architecture* architecture : two) {
    const double truth = *formula.truth(*architecture);
    mean += truth / static_cast<double>(two.size());
    auto& [sum, count] = by_first[canonical_text({{architecture->steps[0]}})];
    sum += truth;
    ++count;
  }
  double between = 0, whole = 0;
  for (const auto& [first, sums] : by_first) between += sums.second * std::pow(sums.first / sums.second - mean, 2);
  for (const Architecture* architecture : two) whole += std::pow(*formula.truth(*architecture) - mean, 2);
  EXPECT_GT(between / whole, 0.5);
}

TEST(PlantedFormulaTest, CurvesRiseToTheScoreAndCross) {
  const PlantedFormula formula(0);
  int leads_lost = 0;
  const std::vector<Architecture> all = small_space();
  for (std::size_t i = 0; i + 1 < 200; ++i) {
    const std::vector<double> curve = formula.curve(all[i], 1, 5), next = formula.curve(all[i + 1], 1, 5);
    ASSERT_EQ(curve.size(), 5u);
    EXPECT_TRUE(std::is_sorted(curve.begin(), curve.end()));
    EXPECT_EQ(curve.back(), *formula.score(all[i], 1));
    EXPECT_GT(curve.front(), 0);
    leads_lost += (curve.front() < next.front()) != (curve.back() < next.back());
  }
  EXPECT_GT(leads_lost, 10);
  EXPECT_EQ(formula.curve(all[0], 1, 1), std::vector<double>{*formula.score(all[0], 1)});
}

TEST(PlantedFormulaTest, IsChosenByName) {
  EXPECT_EQ(make_objective("formula", std::nullopt, "--study")->name(), "formula 0");
  EXPECT_EQ(make_objective("formula:12", std::nullopt, "--study")->name(), "formula 12");
  EXPECT_THROW(make_objective("formula:x", std::nullopt, "--study"), ConfigError);
  EXPECT_THROW(make_objective("formula:", std::nullopt, "--study"), ConfigError);
  EXPECT_THROW(make_objective("formula", StudyId{1}, "--study"), ConfigError);
  EXPECT_THROW(make_objective("/nowhere/table.db", std::nullopt, "--study"), StoreError);
}

}  // namespace
}  // namespace fusion
