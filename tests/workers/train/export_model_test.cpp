#include "workers/train/export_model.h"

#include <ATen/ops/rand.h>
#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/serialization/import.h>

#include <cstdlib>

#include "base/error.h"
#include "base/tensor_files.h"
#include "model/tensor_io.h"
#include "tests/end_to_end/process.h"
#include "tests/workers/train/export_models.h"

namespace fusion {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using testing::shake;
using testing::two_inputs;
using testing::two_modalities;

/// A name, and the options and the architecture behind it.
struct Case {
  std::string name;
  std::string options;
  std::string architecture = "[[2,1,0],[0,0,1,\"glu\"],[1,1,2]]";
};

std::vector<Case> cases() {
  std::vector<Case> all{
      {"linear", R"({"head": "linear", "width": 8})"},
      {"linear_all", R"({"head": "linear", "width": 8, "alphas": true, "batchnorm": true, "multitask": false})", "[[0,0,3],[2,0,2],[1,1,1,\"glu\"],[1,0,0]]"},
      {"mmtm", R"({"head": "mmtm", "width": 8})"},
      {"mmtm_reference", R"({"head": "mmtm", "width": 8, "mmtm_gate": "reference", "mmtm_ratio": 2})", "[[1,1,0],[2,0,1],[0,0,2]]"},
      {"mean", R"({"head": "mean", "width": 8, "batchnorm": true, "l2_normalise": true})"},
      {"concatenation", R"({"head": "concatenation", "width": 8})"},
      {"lstm", R"({"head": "lstm", "width": 8})"},
      {"nonlocal", R"({"head": "nonlocal", "width": 8})"},
      {"bert_frab", R"({"head": "bert", "width": 16, "reduction": "frab", "reduced_width": 8, "bert_heads": 2, "bert_layers": 2})"},
      {"mean_frab", R"({"head": "mean", "width": 16, "reduction": "frab"})"}};
  for (const char* variant : {"BERT", "BERT2", "BERT3", "BERT4", "BERT5", "BERT6", "BERT7"}) {
    all.push_back({variant, std::string(R"({"head": "bert", "width": 16, "bert_heads": 4, "bert_variant": ")") + variant + "\"}"});
  }
  return all;
}

RetrainingOptions options_of(const std::string& text) {
  const json document = json::parse(text);
  JsonProblems problems;
  JsonReader reader(document, "options", problems);
  RetrainingOptions options = RetrainingOptions::read(reader);
  problems.throw_if_any();
  return options;
}

/// What architecture.json says of a model, as far as it is needed to rebuild it.
json document_of(const RetrainedModel& model) {
  json document = {{"options", model.options().to_json()}, {"architecture", {{"triplets", to_triplets(model.architecture())}}}};
  for (const ModelModality& modality : model.modalities()) {
    document["modalities"].push_back({{"name", modality.name}, {"time_axis", *modality.time_axis}, {"backbone", modality.backbone->describe()}});
  }
  return document;
}

c10::IValue inputs_of(const std::vector<at::Tensor>& inputs) {
  c10::Dict<std::string, at::Tensor> dict;
  dict.insert("audio", inputs[0]);
  dict.insert("video clip", inputs[1]);
  return dict;
}

class ExportTest : public ::testing::Test {
 protected:
  RetrainedModel make(const Case& of) const {
    RetrainedModel model(architecture_from_text(of.architecture), options_of(of.options), 3, two_modalities(folder_), 11);
    shake(model);
    return model;
  }

  testing::TemporaryFolder folder_;
  const at::NoGradGuard no_grad_;
};

TEST_F(ExportTest, GivesTheModelsOwnScoresForEveryHead) {
  const std::vector<at::Tensor> inputs = two_inputs(5);
  for (const Case& of : cases()) {
    SCOPED_TRACE(of.name);
    const RetrainedModel model = make(of);
    export_model(model, json::object(), folder_ / "model.pt");
    const ModelOutput expected = model.forward(inputs, {});
    torch::jit::Module module = torch::jit::load((folder_ / "model.pt").string());
    module.train();  // changes nothing
    for (int run = 0; run < 3; ++run) {  // the JIT runs a program in other ways the second and third time
      EXPECT_TRUE(module.forward({inputs_of(inputs)}).toTensor().allclose(expected.scores(model.options().multitask), 1e-5, 1e-5));
    }
    auto parts = c10::impl::toTypedDict<std::string, at::Tensor>(module.get_method("parts")({inputs_of(inputs)}).toGenericDict());
    EXPECT_TRUE(parts.at("fusion").allclose(expected.fusion, 1e-5, 1e-5));
    EXPECT_TRUE(parts.at("backbone.audio").allclose(expected.logits[0], 1e-5, 1e-5));
    EXPECT_TRUE(parts.at("backbone.video clip").allclose(expected.logits[1], 1e-5, 1e-5));
  }
}

TEST_F(ExportTest, HoldsEveryNumberOfTheModel) {
  const std::vector<at::Tensor> inputs = two_inputs(4);
  for (const Case& of : cases()) {
    const RetrainedModel model = make(of);
    export_model(model, json::object(), folder_ / "model.pt");
    const torch::jit::Module module = torch::jit::load((folder_ / "model.pt").string());
    std::int64_t numbers = 0, expected = 0;
    for (const auto& tensor : module.named_parameters()) numbers += tensor.value.numel();
    for (const auto& tensor : module.named_buffers()) numbers += tensor.value.numel();
    for (const auto& [name, tensor] : model.tensors()) expected += tensor.numel();
    EXPECT_EQ(numbers, expected) << of.name;
  }
}

TEST_F(ExportTest, NamesItsTensorsAsTheModelDoes) {
  const RetrainedModel model = make(cases().back());
  export_model(model, json::object(), folder_ / "model.pt");
  std::map<std::string, at::Tensor> there;
  const torch::jit::Module module = torch::jit::load((folder_ / "model.pt").string());
  for (const auto& tensor : module.named_parameters()) there[tensor.name] = tensor.value;
  for (const auto& tensor : module.named_buffers()) there[tensor.name] = tensor.value;
  for (const auto& [name, tensor] : model.tensors()) {
    if (name.find("video clip") != std::string::npos) continue;  // no name in Python
    ASSERT_TRUE(there.contains(name)) << name;
    EXPECT_TRUE(there[name].equal(tensor)) << name;
  }
  EXPECT_TRUE(there.contains("backbone.modality1.k0"));
}

TEST_F(ExportTest, NormalisesRawRowsInsideUnlessToldNotTo) {
  const RetrainedModel model = make(cases().front());
  const std::vector<at::Tensor> inputs = two_inputs(3);
  const json document = json::parse(R"({"modalities": [{"mean": 127.5, "std": 127.5}, {"mean": 0, "std": 255}]})");
  export_model(model, document, folder_ / "model.pt");
  torch::jit::Module module = torch::jit::load((folder_ / "model.pt").string());
  const at::Tensor sound = inputs[0].mul(255).floor().to(at::kByte), picture = inputs[1].mul(255).floor().to(at::kByte);
  const std::vector<at::Tensor> seen{sound.to(at::kFloat).sub(127.5).div(127.5), picture.to(at::kFloat).div(255)};
  const at::Tensor expected = model.forward(seen, {}).scores(true);
  EXPECT_TRUE(module.forward({inputs_of({sound.flatten(1), picture})}).toTensor().allclose(expected, 1e-5, 1e-5));
  module.setattr("normalise", false);
  EXPECT_TRUE(module.forward({inputs_of(seen)}).toTensor().allclose(expected, 1e-5, 1e-5));
}

TEST_F(ExportTest, CarriesItsMetadata) {
  const json document = json::parse(R"({"class_names": ["a", "b", "c \"quoted\""], "lineage": {"study": {"id": 7}}, "scores": {"dev_score": 0.75}})");
  export_model(make(cases().front()), document, folder_ / "model.pt");
  torch::jit::ExtraFilesMap extra{{"metadata.json", ""}};
  torch::jit::Module module = torch::jit::load((folder_ / "model.pt").string(), compat::nullopt, extra);
  EXPECT_EQ(json::parse(extra.at("metadata.json")), document);
  EXPECT_EQ(json::parse(module.attr("metadata").toStringRef()), document);
  EXPECT_EQ(module.attr("modalities").toListRef().at(1).toStringRef(), "video clip");
  EXPECT_EQ(module.attr("classes").toListRef().at(2).toStringRef(), "c \"quoted\"");
  EXPECT_FALSE(module.attr("normalise").toBool());
}

TEST_F(ExportTest, HoldsSeveralNetworksOfOneClassAndOtherForms) {
  const auto save = [&](const std::string& name, double factor, const std::string& forward) {
    torch::jit::Module module("Net");
    module.register_parameter("w", at::rand({4, 3}).mul(factor), false);
    module.define(forward);
    module.save((folder_ / name).string());
    return open_staged_backbone(folder_ / name, {3, 5});
  };
  std::vector<ModelModality> modalities(3);
  modalities[0] = {"a", {3, 4}, {3, 5}, {}, save("a.pt", 1, "def forward(self, x):\n    return (x, torch.matmul(x.mean([2]), self.w.t()))\n")};
  modalities[1] = {"in", {4}, {3, 5}, {}, save("b.pt", 2, "def forward(self, x):\n    return torch.matmul(x.mean([2]), self.w.t())\n")};
  modalities[2] = {"c", {3, 4}, {3, 5}, {}, save("c.pt", 3, "def forward(self, x):\n    return [x.half(), torch.matmul(x.mean([2]), self.w.t())]\n")};
  const std::vector<at::Tensor> inputs{at::rand({2, 3, 5}), at::rand({2, 3, 5}), at::rand({2, 3, 5})};
  c10::Dict<std::string, at::Tensor> dict;
  for (std::size_t m = 0; m < 3; ++m) dict.insert(modalities[m].name, inputs[m]);
  const RetrainedModel model(architecture_from_text("[[0,0,1,0],[1,0,0,2]]"), options_of(R"({"width": 8})"), 3, std::move(modalities), 1);
  export_model(model, json::object(), folder_ / "model.pt");
  torch::jit::Module module = torch::jit::load((folder_ / "model.pt").string());
  EXPECT_TRUE(module.forward({dict}).toTensor().allclose(model.forward(inputs, {}).fusion, 1e-5, 1e-5));
}

TEST_F(ExportTest, SaysWhatCannotBeExported) {
  std::vector<ModelModality> modalities(2);
  modalities[0] = {"a", {3}, {}, {}, nullptr};
  modalities[1] = {"b", {2}, {}, {}, nullptr};
  const RetrainedModel model(architecture_from_text("[[0,0,0]]"), options_of(R"({"width": 4, "finetune": "none"})"), 3, std::move(modalities), 1);
  EXPECT_THAT([&] { export_model(model, json::object(), folder_ / "model.pt"); }, ::testing::ThrowsMessage<ModelError>(HasSubstr("the model has no backbones")));
}

const char* const kPython = R"(
import json, sys
import numpy, torch
torch.set_num_threads(1)
inputs = {name: torch.from_numpy(numpy.load(name + ".npy")) for name in ("audio", "video clip")}
found = {}
for name in sys.argv[1:]:
    extra = {"metadata.json": ""}
    model = torch.jit.load(name + ".pt", _extra_files=extra)
    model.eval()
    with torch.no_grad():
        found[name] = {"scores": model(inputs).tolist(), "parts": sorted(model.parts(inputs)),
                       "format": json.loads(extra["metadata.json"])["format"], "tensors": sorted(model.state_dict())}
print(json.dumps(found))
)";

TEST_F(ExportTest, RunsInPythonWithoutOurCode) {
  const std::string python = "/usr/bin/python3";
  const testing::Process::Options place{folder_.path(), {}};
  if (!std::filesystem::exists(python) || testing::run({python, "-c", "import torch, numpy"}, place).status != 0) {
    GTEST_SKIP() << "python3 with torch and numpy is not installed: Debian's are python3-torch and python3-numpy";
  }
  const std::vector<at::Tensor> inputs = two_inputs(4);
  write_npy(folder_ / "audio.npy", {DType::f32, inputs[0].sizes().vec(), inputs[0].data_ptr()});
  write_npy(folder_ / "video clip.npy", {DType::f32, inputs[1].sizes().vec(), inputs[1].data_ptr()});
  write_atomically(folder_ / "load.py", kPython);
  std::map<std::string, at::Tensor> expected;
  std::vector<std::string> command{python, "load.py"};
  for (const Case& of : cases()) {
    const RetrainedModel model = make(of);
    export_model(model, {{"format", "fusiond-retrained-1"}}, folder_ / (of.name + ".pt"));
    expected[of.name] = model.forward(inputs, {}).scores(model.options().multitask);
    command.push_back(of.name);
  }
  const testing::Finished finished = testing::run(command, place, std::chrono::seconds(500));
  ASSERT_EQ(finished.status, 0) << finished.err;
  const json found = json::parse(finished.out);
  for (const auto& [name, scores] : expected) {
    SCOPED_TRACE(name);
    const json& of = found.at(name);
    std::vector<double> numbers;
    for (const json& row : of.at("scores")) numbers.insert(numbers.end(), row.begin(), row.end());
    EXPECT_TRUE(at::tensor(numbers).view({4, 3}).to(at::kFloat).allclose(scores, 1e-4, 1e-4));
    EXPECT_EQ(of.at("parts"), (std::vector<std::string>{"backbone.audio", "backbone.video clip", "fusion"}));
    EXPECT_EQ(of.at("format"), "fusiond-retrained-1");
  }
}

const char* const kExample = R"(
import json, sys
import numpy, torch
sys.path.insert(0, sys.argv[1])
from load_retrained import load_retrained
torch.set_num_threads(1)
inputs = {name: torch.from_numpy(numpy.load(name + ".npy")) for name in ("audio", "video clip")}
found = {}
with torch.no_grad():
    for name in sys.argv[2:]:
        model = load_retrained(name + ".safetensors", name + ".json", {"video clip": "video.pt"})
        found[name] = model(inputs).tolist()
print(json.dumps(found))
)";

TEST_F(ExportTest, IsRebuiltByTheExampleInTheDocuments) {
  const std::string python = "/usr/bin/python3";
  const testing::Process::Options place{folder_.path(), {}};
  const char* const source = std::getenv("FUSION_SOURCE_DIR");
  if (!source) GTEST_SKIP() << "FUSION_SOURCE_DIR is not set: it names the folder of docs/examples";
  if (!std::filesystem::exists(python) || testing::run({python, "-c", "import torch, numpy"}, place).status != 0) {
    GTEST_SKIP() << "python3 with torch and numpy is not installed: Debian's are python3-torch and python3-numpy";
  }
  const std::vector<at::Tensor> inputs = two_inputs(4);
  write_npy(folder_ / "audio.npy", {DType::f32, inputs[0].sizes().vec(), inputs[0].data_ptr()});
  write_npy(folder_ / "video clip.npy", {DType::f32, inputs[1].sizes().vec(), inputs[1].data_ptr()});
  write_atomically(folder_ / "rebuild.py", kExample);
  std::map<std::string, at::Tensor> expected;
  std::vector<std::string> command{python, "rebuild.py", std::string(source) + "/docs/examples"};
  for (const Case& of : cases()) {
    if (of.name == "lstm" || of.name == "nonlocal" || of.name.ends_with("frab")) continue;
    const RetrainedModel model = make(of);
    write_tensors(folder_ / (of.name + ".safetensors"), model.tensors());
    write_atomically(folder_ / (of.name + ".json"), document_of(model).dump());
    expected[of.name] = model.forward(inputs, {}).scores(model.options().multitask);
    command.push_back(of.name);
  }
  const testing::Finished finished = testing::run(command, place, std::chrono::seconds(500));
  ASSERT_EQ(finished.status, 0) << finished.err;
  const json found = json::parse(finished.out);
  EXPECT_EQ(found.size(), expected.size());
  for (const auto& [name, scores] : expected) {
    std::vector<double> numbers;
    for (const json& row : found.at(name)) numbers.insert(numbers.end(), row.begin(), row.end());
    EXPECT_TRUE(at::tensor(numbers).view({4, 3}).to(at::kFloat).allclose(scores, 1e-4, 1e-4)) << name;
  }
}

}  // namespace
}  // namespace fusion
