#include "surrogate/make_surrogate.h"

#include "surrogate/lstm_surrogate.h"
#include "surrogate/ridge_surrogate.h"

namespace fusion {

namespace {

LstmSurrogateOptions read_lstm(JsonReader& reader, std::uint64_t seed) {
  LstmSurrogateOptions options;
  options.hidden = static_cast<int>(reader.integer("hidden", 1, 4096, options.hidden));
  options.embedding = static_cast<int>(reader.integer("embedding", 1, 4096, options.embedding));
  options.epochs = static_cast<int>(reader.integer("epochs", 1, 100'000, options.epochs));
  options.lr = reader.number("lr", 1e-8, 1, options.lr);
  options.seed = reader.seed("seed", seed);
  return options;
}

}  // namespace

std::unique_ptr<Surrogate> make_surrogate(JsonReader& reader, const SearchSpace& space, std::uint64_t seed) {
  const std::size_t problems = reader.problems().list().size();
  const std::string name = reader.text("name", "lstm");
  if (reader.problems().list().size() != problems) return nullptr;
  LstmSurrogateOptions lstm;
  RidgeSurrogateOptions ridge;
  if (name == "lstm") {
    lstm = read_lstm(reader, seed);
  } else if (name == "ridge") {
    ridge.lambda = reader.number("lambda", 1e-9, 1e9, ridge.lambda);
  } else {
    reader.fail("name", "there is no surrogate \"" + name + "\"; expected one of lstm, ridge");
    return nullptr;
  }
  reader.finish();
  if (reader.problems().list().size() != problems) return nullptr;
  if (name == "lstm") return std::make_unique<LstmSurrogate>(space, lstm);
  return std::make_unique<RidgeSurrogate>(space, ridge);
}

}  // namespace fusion
