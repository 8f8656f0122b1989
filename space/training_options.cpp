#include "space/training_options.h"

#include <nlohmann/json.hpp>

namespace fusion {

TrainingOptions TrainingOptions::read(JsonReader& reader) {
  TrainingOptions o;
  o.epochs = static_cast<int>(reader.integer("epochs", 1, 10'000, o.epochs));
  o.batch = static_cast<int>(reader.integer("batch", 1, 1 << 20, o.batch));
  o.width = static_cast<int>(reader.integer("width", 1, 65'536, o.width));
  o.dropout = reader.number("dropout", 0, 0.99, o.dropout);
  o.batchnorm = reader.boolean("batchnorm", o.batchnorm);
  o.alphas = reader.boolean("alphas", o.alphas);
  o.multitask = reader.boolean("multitask", o.multitask);
  o.weight_decay = reader.number("weight_decay", 0, 1, o.weight_decay);
  o.eta_max = reader.number("eta_max", 1e-12, 10, o.eta_max);
  o.eta_min = reader.number("eta_min", 0, 10, o.eta_min);
  if (o.eta_min > o.eta_max) reader.fail("eta_min", "is larger than eta_max");
  o.restart_epochs = static_cast<int>(reader.integer("restart_epochs", 1, 10'000, o.restart_epochs));
  o.restart_factor = static_cast<int>(reader.integer("restart_factor", 1, 100, o.restart_factor));
  o.restart_rule = reader.choice<RestartRule>("restart_rule", o.restart_rule);
  o.shuffle = reader.boolean("shuffle", o.shuffle);
  o.weight_sharing = reader.boolean("weight_sharing", o.weight_sharing);
  o.metric = reader.choice<Metric>("metric", o.metric);
  o.evaluate_test = reader.boolean("evaluate_test", o.evaluate_test);
  reader.finish();
  return o;
}

nlohmann::json TrainingOptions::to_json() const {
  return {{"epochs", epochs},
          {"batch", batch},
          {"width", width},
          {"dropout", dropout},
          {"batchnorm", batchnorm},
          {"alphas", alphas},
          {"multitask", multitask},
          {"weight_decay", weight_decay},
          {"eta_max", eta_max},
          {"eta_min", eta_min},
          {"restart_epochs", restart_epochs},
          {"restart_factor", restart_factor},
          {"restart_rule", name_of(restart_rule)},
          {"shuffle", shuffle},
          {"weight_sharing", weight_sharing},
          {"metric", name_of(metric)},
          {"evaluate_test", evaluate_test}};
}

}  // namespace fusion
