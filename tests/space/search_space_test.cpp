#include "space/search_space.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "space/encoding.h"
#include "tests/space/spaces.h"

namespace fusion {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

SearchSpace read_space(const std::string& text, const DatasetSpec& spec) {
  const auto json = parse_json(text, "space");
  JsonProblems problems;
  JsonReader reader(json, "space", problems);
  SearchSpace space = SearchSpace::read(reader, spec);
  problems.throw_if_any();
  return space;
}

TEST(SearchSpaceTest, CountsTheReferenceSpaces) {
  const SearchSpace space = SearchSpace::whole(testing::avmnist_spec(), 4);
  EXPECT_EQ(space.step_choices().size(), 30u);
  EXPECT_EQ(space.count(), "837930");
  EXPECT_EQ(space.count_of_length(3), "27000");
  EXPECT_EQ(space.count_of_length(5), "0");
  // first modality slowest, activation fastest
  EXPECT_EQ(space.step_choices()[0], (FusionStep{{0, 0}, FusionOp::concat_fc, Activation::relu}));
  EXPECT_EQ(space.step_choices()[1], (FusionStep{{0, 0}, FusionOp::concat_fc, Activation::sigmoid}));
  EXPECT_EQ(space.step_choices()[2], (FusionStep{{0, 1}, FusionOp::concat_fc, Activation::relu}));
  EXPECT_EQ(space.step_choices()[29], (FusionStep{{4, 2}, FusionOp::concat_fc, Activation::sigmoid}));
}

TEST(SearchSpaceTest, CountsExactlyPast64Bits) {
  DatasetSpec spec = testing::avmnist_spec();
  for (ModalitySpec& modality : spec.modalities) {
    modality.taps.clear();
    for (int i = 0; i < 100; ++i) modality.taps.push_back({"t" + std::to_string(i), 1});
  }
  const SearchSpace space = read_space(
      R"({"steps": {"min": 8, "max": 8}, "operations": ["concat_fc", "glu"], "activations": ["relu", "sigmoid", "leaky_relu", "identity"]})",
      spec);
  EXPECT_EQ(space.count(), "1677721600000000000000000000000000000000");  // (100 * 100 * 2 * 4)^8 = 80000^8
  EXPECT_EQ(space.count_saturated(), UINT64_MAX);
}

TEST(SearchSpaceTest, EveryMemberOfATinySpaceIsLegalUniqueAndRoundTrips) {
  const SearchSpace space = read_space(
      R"({"steps": {"min": 1, "max": 3}, "operations": ["concat_fc", "glu"], "activations": ["relu", "identity"], "taps": {"a": ["y"]}})",
      testing::tiny_spec());
  const Encoding encoding(space);
  EXPECT_EQ(space.count(), "584");  // 8 + 64 + 512
  EXPECT_EQ(encoding.width(), 5u);
  std::set<std::string> texts;
  std::set<std::vector<float>> sequences;
  std::set<std::vector<double>> one_hots;
  Architecture previous;
  for (std::uint64_t i = 0; i < space.count_saturated(); ++i) {
    const Architecture architecture = space.at(i);
    EXPECT_NO_THROW(space.check(architecture));
    EXPECT_EQ(architecture_from_text(canonical_text(architecture)), architecture);
    const auto sequence = encoding.sequence(architecture);
    EXPECT_EQ(encoding.from_sequence(sequence), architecture);
    EXPECT_EQ(encoding.one_hot(architecture).size(), encoding.one_hot_width());
    texts.insert(canonical_text(architecture));
    sequences.insert(sequence);
    one_hots.insert(encoding.one_hot(architecture));
    if (i > 0) {
      EXPECT_TRUE(previous.steps.size() < architecture.steps.size() || previous < architecture);
    }
    previous = architecture;
  }
  EXPECT_EQ(texts.size(), 584u);
  EXPECT_EQ(sequences.size(), 584u);
  EXPECT_EQ(one_hots.size(), 584u);
  EXPECT_THROW(space.at(584), SpaceError);
}

TEST(SearchSpaceTest, EncodesTheRawTriplet) {
  const SearchSpace space = SearchSpace::whole(testing::avmnist_spec(), 4);
  EXPECT_THAT(Encoding(space).sequence(architecture_from_text("[[4,2,1],[0,1,0]]")), ElementsAre(4, 2, 1, 0, 1, 0));
}

TEST(SearchSpaceTest, ExtendsInCanonicalOrderAndStopsAtTheLongest) {
  const SearchSpace space = SearchSpace::whole(testing::avmnist_spec(), 2);
  const auto longer = space.extensions(architecture_from_text("[[1,1,0]]"));
  ASSERT_EQ(longer.size(), 30u);
  EXPECT_EQ(canonical_text(longer[29]), "[[1,1,0],[4,2,1]]");
  EXPECT_TRUE(space.extensions(longer[0]).empty());
}

TEST(SearchSpaceTest, SamplesEveryLengthAndOnlyMembers) {
  const SearchSpace space = SearchSpace::whole(testing::avmnist_spec(), 4);
  Rng rng(11);
  std::vector<int> lengths(5, 0);
  for (int i = 0; i < 4'000; ++i) {
    const Architecture architecture = space.sample(rng);
    EXPECT_TRUE(space.contains(architecture));
    ++lengths[architecture.steps.size()];
  }
  for (int n = 1; n <= 4; ++n) EXPECT_NEAR(lengths[static_cast<std::size_t>(n)], 1'000, 150);
}

TEST(SearchSpaceTest, MutationStaysInTheSpaceAndChangesSomething) {
  const SearchSpace space = read_space(R"({"steps": {"min": 2, "max": 3}})", testing::avmnist_spec());
  Rng rng(12);
  Architecture architecture = space.sample(rng);
  std::set<std::size_t> lengths;
  for (int i = 0; i < 500; ++i) {
    const Architecture child = space.mutate(architecture, rng);
    EXPECT_NE(child, architecture);
    EXPECT_TRUE(space.contains(child));
    architecture = child;
    lengths.insert(child.steps.size());
  }
  EXPECT_EQ(lengths.size(), 2u);
}

TEST(SearchSpaceTest, MutationOfASpaceOfOneSaysSo) {
  DatasetSpec spec = testing::tiny_spec();
  const SearchSpace space =
      read_space(R"({"steps": {"min": 1, "max": 1}, "activations": ["relu"], "taps": {"a": [0], "c": ["v"]}})", spec);
  Rng rng(1);
  EXPECT_THROW(space.mutate(space.at(0), rng), SpaceError);
}

TEST(SearchSpaceTest, ReportsEveryWrongFieldAtOnce) {
  try {
    read_space(R"({"steps": {"min": 5, "max": 3}, "operations": [], "activations": ["relu", "tanh"],
                   "taps": {"audio": ["tap9", 7, 1], "image": [], "smell": [0]}, "stpes": 1})",
               testing::avmnist_spec());
    FAIL() << "no error";
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(), HasSubstr("/steps: min 5 is larger than max 3"));
    EXPECT_THAT(error.what(), HasSubstr("/operations: expected at least one"));
    EXPECT_THAT(error.what(), HasSubstr("got \"tanh\""));
    EXPECT_THAT(error.what(), HasSubstr("there is no tap \"tap9\""));
    EXPECT_THAT(error.what(), HasSubstr("there is no tap 7"));
    EXPECT_THAT(error.what(), HasSubstr("/taps/image"));
    EXPECT_THAT(error.what(), HasSubstr("/taps/smell: is not a known key"));
    EXPECT_THAT(error.what(), HasSubstr("did you mean \"steps\""));
  }
}

TEST(SearchSpaceTest, DigestFollowsTheContent) {
  const DatasetSpec spec = testing::avmnist_spec();
  EXPECT_EQ(read_space("{}", spec).digest(), SearchSpace::whole(spec, 4).digest());
  EXPECT_NE(read_space(R"({"steps": {"max": 3}})", spec).digest(), SearchSpace::whole(spec, 4).digest());
}

TEST(SearchSpaceTest, EffectiveDocumentReadsBackTheSame) {
  const DatasetSpec spec = testing::avmnist_spec();
  const SearchSpace space = read_space(R"({"taps": {"audio": ["tap1", "tap4"]}, "activations": ["identity"]})", spec);
  EXPECT_EQ(read_space(space.to_json().dump(), spec).to_json(), space.to_json());
}

}  // namespace
}  // namespace fusion
