#pragma once

#include <cstdint>
#include <memory>

#include "base/json_reader.h"
#include "space/search_space.h"
#include "surrogate/surrogate.h"

namespace fusion {

/// Reads a `surrogate` object and makes the surrogate:
///   {"name": "lstm", "hidden": 100, "embedding": 100, "lr": 0.001, "epochs": 50, "seed": 7}
///   {"name": "ridge", "lambda": 1.0}
/// Everything has a default: the lstm above, its seed the one given here. Problems go to the reader, unknown keys
/// included; nullptr if there were any.
std::unique_ptr<Surrogate> make_surrogate(JsonReader& reader, const SearchSpace& space, std::uint64_t seed);

}  // namespace fusion
