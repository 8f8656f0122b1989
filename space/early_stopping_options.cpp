#include "space/early_stopping_options.h"

#include <nlohmann/json.hpp>

namespace fusion {

EarlyStoppingOptions EarlyStoppingOptions::read(JsonReader& reader) {
  EarlyStoppingOptions o;
  o.policy = reader.choice<EarlyStoppingPolicy>("policy", o.policy);
  o.reduction = static_cast<int>(reader.integer("reduction", 2, 1'000, o.reduction));
  o.min_epochs = static_cast<int>(reader.integer("min_epochs", 1, 10'000, o.min_epochs));
  reader.finish();
  return o;
}

nlohmann::json EarlyStoppingOptions::to_json() const {
  return {{"policy", name_of(policy)}, {"reduction", reduction}, {"min_epochs", min_epochs}};
}

}  // namespace fusion
