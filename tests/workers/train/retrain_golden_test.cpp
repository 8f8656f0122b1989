// Steps over whole models, backbones included, against the reference's own numbers: through the code that retrains.
#include "tests/workers/train/golden_step_model.h"

#include "model/device.h"
#include "model/retrained_model.h"
#include "tests/temporary_folder.h"
#include "workers/train/retrain_step.h"

namespace fusion {
namespace {

using golden::Case;
using golden::expect_close;
using golden::StepOptimiser;
using golden::Tolerance;

/// The case's backbones, written to files and opened as a retraining opens them.
std::vector<ModelModality> modalities_of(const Case& given, const testing::TemporaryFolder& folder, RetrainBatch& batch) {
  std::vector<ModelModality> modalities;
  for (const std::string name : {"audio", "image"}) {
    const at::Tensor input = given.tensor("input." + name);
    LeNet network(golden::lenet_options(given.tensors, "initial." + name + ".", input, name == "audio"), 0);
    load_tensors(given.tensors, golden::all_tensors(network), "initial." + name + ".");
    network.save(folder / (name + ".safetensors"));
    ModelModality& modality = modalities.emplace_back();
    modality.name = name;
    modality.row_shape = input.sizes().slice(1).vec();
    modality.tap_widths = network.options().tap_widths();
    modality.backbone = open_staged_backbone(folder / (name + ".safetensors"), modality.row_shape);
    batch.inputs.push_back(input);
  }
  return modalities;
}

RetrainingOptions options_of(const Case& given, const StepOptimiser& optimiser) {
  RetrainingOptions options;
  options.width = given.facts.at("inner_representation_size");
  options.batchnorm = given.facts.at("batchnorm");
  options.alphas = given.facts.at("alphas");
  options.multitask = given.facts.at("multitask");
  options.dropout = 0;
  options.weight_decay = optimiser.adam.weight_decay;
  options.finetune = given.facts.at("trainable").get<std::string>().rfind("all", 0) == 0 ? Finetune::all : Finetune::none;
  return options;
}

/// Our name of a tensor as the case calls it.
std::string case_name(const std::string& name) {
  return name.starts_with("fusion.") ? name.substr(7) : name.substr(std::string("backbone.").size());
}

/// The reference's search leaves backbones in training mode though their weights are frozen; a retraining never does, so its step is put
/// together here from the same parts.
double frozen_step(RetrainedModel& model, const RetrainBatch& batch, bool multitask) {
  const ModelOutput output = model.forward(batch.inputs, {true, true, 0, 0});
  const at::Tensor loss = output.loss(batch.labels, multitask);
  loss.backward();
  return loss.item<double>();
}

void train_step(const Case& given) {
  if (!given.has("input.audio")) GTEST_SKIP() << "this case has no backbones; train_golden_test checks it";
  ASSERT_EQ(given.facts.value("dropout", 0.0), 0.0) << "the masks of another generator cannot be drawn here";
  const testing::TemporaryFolder folder;
  StepOptimiser optimiser(given);
  const RetrainingOptions options = options_of(given, optimiser);
  const bool all = options.finetune == Finetune::all;
  RetrainBatch batch;
  batch.labels = given.tensor("labels");
  batch.rows = batch.labels.size(0);
  RetrainedModel model(architecture_from_triplets(given.facts.at("conf")), options, given.tensors.at("initial.classifier.bias").shape.at(0),
                       modalities_of(given, folder, batch), 0);
  for (const auto& [name, tensor] : model.tensors()) load_tensors(given.tensors, {{case_name(name), tensor}}, "initial.");
  RetrainStep step(model, 0, all);
  const auto& tolerances = given.facts.at("tolerance");
  const Tolerance exact = Tolerance::read(tolerances.at("logits/loss/grad"));
  const at::Tensor losses = given.tensor("losses");
  for (int i = 1; i <= given.facts.at("steps").get<int>(); ++i) {
    const std::string name = "step" + std::to_string(i);
    step.clear_gradients();
    const double loss = all ? step.accumulate(batch, 1, 0) : frozen_step(model, batch, options.multitask);
    const double expected = losses[i - 1].item<double>();
    EXPECT_NEAR(loss, expected, exact.atol + exact.rtol * std::abs(expected)) << name << ".loss";
    int compared = 0;
    for (const auto& [tensor_name, tensor] : model.parameters()) {
      const std::string grad = name + ".grad." + case_name(tensor_name);
      if (!given.has(grad)) continue;
      expect_close(tensor.grad(), given.tensor(grad), exact, grad);
      ++compared;
    }
    step.move(optimiser.schedule.next());
    for (const auto& [tensor_name, tensor] : model.tensors()) {
      const std::string after = name + ".after." + case_name(tensor_name);
      if (!given.has(after)) continue;
      expect_close(tensor, given.tensor(after), Tolerance::read(tolerances.at(name + ".after")), after);
      ++compared;
    }
    EXPECT_TRUE(compared > 0 || !tolerances.contains(name + ".after")) << name;
  }
}

}  // namespace
}  // namespace fusion

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  fusion::prepare_training_thread();
  fusion::golden::register_cases({{"train_step", fusion::train_step}});
  return RUN_ALL_TESTS();
}
