#include "base/random.h"
#include "search/exhaustive_strategy.h"
#include "search/mfas_strategy.h"
#include "search/random_strategy.h"
#include "search/strategy.h"
#include "surrogate/make_surrogate.h"

namespace fusion {

namespace {

/// Reads everything, then builds if nothing was wrong.
class Problems {
 public:
  explicit Problems(JsonReader& reader) : reader_(reader), before_(reader.problems().list().size()) {}
  bool any() const { return reader_.problems().list().size() != before_; }

 private:
  JsonReader& reader_;
  const std::size_t before_;
};

std::unique_ptr<Strategy> make_mfas(JsonReader& reader, const SearchSpace& space, std::uint64_t seed) {
  const Problems problems(reader);
  const MfasOptions options = MfasOptions::read(reader, space);
  JsonReader surrogate_reader = reader.object("surrogate");
  std::unique_ptr<Surrogate> surrogate = make_surrogate(surrogate_reader, space, mix_text(seed, "surrogate"));
  reader.finish();
  if (problems.any()) return nullptr;
  return std::make_unique<MfasStrategy>(space, options, std::move(surrogate), seed);
}

std::unique_ptr<Strategy> make_random(JsonReader& reader, const SearchSpace& space, std::uint64_t seed) {
  const Problems problems(reader);
  const RandomOptions options = RandomOptions::read(reader);
  reader.finish();
  if (problems.any()) return nullptr;
  return std::make_unique<RandomStrategy>(space, options, seed);
}

std::unique_ptr<Strategy> make_exhaustive(JsonReader& reader, const SearchSpace& space) {
  const Problems problems(reader);
  const ExhaustiveOptions options = ExhaustiveOptions::read(reader, space);
  reader.finish();
  if (problems.any()) return nullptr;
  return std::make_unique<ExhaustiveStrategy>(space, options);
}

}  // namespace

std::unique_ptr<Strategy> make_strategy(JsonReader& reader, const SearchSpace& space, std::uint64_t seed) {
  const Problems problems(reader);
  const std::string name = reader.text("name");
  if (problems.any()) return nullptr;
  if (name == "mfas") return make_mfas(reader, space, seed);
  if (name == "random") return make_random(reader, space, seed);
  if (name == "exhaustive") return make_exhaustive(reader, space);
  reader.fail("name", "there is no strategy \"" + name + "\"; expected one of mfas, random, exhaustive");
  return nullptr;
}

}  // namespace fusion
