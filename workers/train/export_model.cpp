#include "workers/train/export_model.h"

#include <ATen/ops/zeros.h>
#include <torch/csrc/jit/api/compilation_unit.h>
#include <torch/csrc/jit/api/module.h>

#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "base/error.h"
#include "base/files.h"
#include "model/staged_script.h"
#include "model/time_axis.h"
#include "model/torch_compat.h"
#include "workers/train/script_text.h"

namespace fusion {

using nlohmann::json;

namespace {

std::string text_of(std::size_t n) { return std::to_string(n); }
std::string quoted(const std::string& text) { return json(text).dump(); }  // JSON's escapes are Python's

std::string list_of(const std::vector<std::int64_t>& numbers) {
  std::string text;
  for (const std::int64_t n : numbers) text += (text.empty() ? "" : ", ") + std::to_string(n);
  return "[" + text + "]";
}

/// The text that makes a tensor float32; types are numbers in TorchScript's own texts.
std::string as_float(const std::string& x) { return "torch.to(" + x + ", " + std::to_string(static_cast<int>(c10::kFloat)) + ")"; }

/// A name that Python and TorchScript take for a member: the modality's own where it is one.
std::string member_name(const std::string& modality, std::size_t index) {
  static const std::set<std::string> kWords{
      "False", "None", "True", "and", "as", "assert", "break", "class", "continue", "def", "del", "elif", "else", "for", "from", "global",
      "if", "in", "import", "is", "lambda", "not", "nonlocal", "or", "pass", "raise", "return", "try", "while", "with", "yield", "training"};
  const bool plain = !modality.empty() && modality[0] != '_' && (modality[0] < '0' || modality[0] > '9') &&
                     modality.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") == std::string::npos;
  return plain && !kWords.contains(modality) ? modality : "modality" + text_of(index);
}

/// Builds the modules and the text that joins them.
class Exporter {
 public:
  Exporter(const RetrainedModel& model, const json& document)
      : model_(model), document_(document), unit_(std::make_shared<torch::jit::CompilationUnit>()), root_(make_module("RetrainedModel")) {}

  torch::jit::Module build() {
    const at::NoGradGuard no_grad;
    add_backbones();
    add_fusion();
    for (std::size_t k = 0; k < model_.mmtm_modules().size(); ++k) {
      torch::jit::Module module = make_module("Mmtm");
      const Mmtm& mmtm = model_.mmtm_modules()[k];
      add_tensors(module, mmtm.parameters().named(), {});
      module.define(mmtm_text(mmtm));
      root_.register_module("mmtm" + text_of(model_.mmtm_places()[k].step), module);
    }
    if (const TemporalHead* const head = model_.head()) {
      torch::jit::Module module = make_module("Head");
      add_tensors(module, head->parameters().named(), head->buffers().named());
      module.define(head_text(*head));
      root_.register_module("head", module);
    }
    root_.register_attribute("normalise", c10::BoolType::get(), all_normalise());
    root_.define(pool_text() + parts_text() + forward_text());
    return root_;
  }

 private:
  torch::jit::Module make_module(const std::string& name) const {
    torch::jit::Module module(c10::QualifiedName("__torch__.fusiond." + name), unit_, true);
    module.register_attribute("training", c10::BoolType::get(), false);
    return module;
  }

  /// Registers "a.0.weight" as the tensor `weight` of nested modules.
  void add_tensor(const torch::jit::Module& root, const std::string& name, const at::Tensor& tensor, bool is_buffer) const {
    torch::jit::Module module = root;
    std::size_t at = 0;
    for (std::size_t dot = name.find('.'); dot != std::string::npos; at = dot + 1, dot = name.find('.', at)) {
      const std::string part = name.substr(at, dot - at);
      if (!module.hasattr(part)) module.register_module(part, make_module("Part"));
      module = module.attr(part).toModule();
    }
    at::Tensor own = tensor.detach().to(c10::kCPU).clone();
    if (!is_buffer) own.requires_grad_(true);
    module.register_parameter(name.substr(at), own, is_buffer);
  }

  void add_tensors(const torch::jit::Module& module, const NamedTensors& parameters, const NamedTensors& buffers) const {
    for (const auto& [name, tensor] : parameters) add_tensor(module, name, tensor, false);
    for (const auto& [name, tensor] : buffers) add_tensor(module, name, tensor, true);
  }

  void add_backbones() {
    torch::jit::Module all = make_module("Backbones");
    for (std::size_t m = 0; m < model_.modalities().size(); ++m) {
      const ModelModality& modality = model_.modalities()[m];
      members_.push_back("backbone." + member_name(modality.name, m));
      if (const auto* const script = dynamic_cast<const StagedScript*>(modality.backbone.get())) {
        torch::jit::Module copy = script->module().deepcopy();
        copy.to(at::Device(at::kCPU));
        all.register_module(member_name(modality.name, m), copy);
        continue;
      }
      torch::jit::Module module = make_module("LeNet");
      add_tensors(module, modality.backbone->parameters(), modality.backbone->buffers());
      module.define(lenet_text(lenet_options(modality)));
      all.register_module(member_name(modality.name, m), module);
    }
    root_.register_module("backbone", all);
  }

  static LeNetOptions lenet_options(const ModelModality& modality) {
    const json description = modality.backbone->describe();
    if (description.at("kind") != "lenet") {
      throw ModelError("export: modality \"" + modality.name + "\": a backbone of kind " + description.at("kind").dump() + " cannot be exported");
    }
    JsonProblems problems;
    JsonReader reader(description.at("arch"), "arch", problems);
    LeNetOptions options = LeNetOptions::read(reader);
    problems.throw_if_any();
    return options;
  }

  void add_fusion() {
    torch::jit::Module module = make_module("Fusion");
    const FusionNetwork& network = model_.fusion();
    NamedTensors parameters;
    for (const auto& [name, tensor] : network.parameters().named()) {
      if (!model_.head() || name.rfind("classifier.", 0) != 0) parameters.emplace_back(name, tensor);
    }
    add_tensors(module, parameters, network.buffers().named());
    std::vector<std::int64_t> first_widths;
    for (const FusionStep& step : network.architecture().steps) {
      first_widths.push_back(model_.modalities().front().tap_widths[static_cast<std::size_t>(step.taps.front())]);
    }
    module.define(fusion_text(network, first_widths));
    if (!model_.head()) {
      module.define("def classify(self, h: Tensor) -> Tensor:\n"
                    "    return torch.addmm(self.classifier.bias, h, torch.t(self.classifier.weight))\n");
    }
    root_.register_module("fusion", module);
  }

  // ------------------------------------------------------------------------------------------------ the text that joins them

  std::string backbone(std::size_t m) const { return script_path("self", members_[m]); }
  bool is_script(std::size_t m) const { return dynamic_cast<const StagedScript*>(model_.modalities()[m].backbone.get()) != nullptr; }
  static std::string map_name(std::size_t m, std::size_t i) { return "m" + text_of(m) + "_" + text_of(i); }
  void line(const std::string& text) { parts_ += "    " + text + "\n"; }

  static std::string pool_text() {
    return "def pool(self, x: Tensor) -> Tensor:\n"
           "    if x.dim() == 1:\n"
           "        return torch.unsqueeze(x, 1)\n"
           "    if x.dim() == 2:\n"
           "        return x\n"
           "    return torch.mean(torch.flatten(x, 2), [2])\n";
  }

  /// mean and std of modality m, if the document has them.
  const json* normalisation(std::size_t m) const {
    if (!document_.contains("modalities") || m >= document_["modalities"].size()) return nullptr;
    const json& modality = document_["modalities"][m];
    return modality.contains("mean") && modality.contains("std") ? &modality : nullptr;
  }

  bool all_normalise() const {
    for (std::size_t m = 0; m < model_.modalities().size(); ++m) {
      if (!normalisation(m)) return false;
    }
    return true;
  }

  void write_inputs() {
    for (std::size_t m = 0; m < model_.modalities().size(); ++m) {
      const ModelModality& modality = model_.modalities()[m];
      const std::string x = "x" + text_of(m);
      line(x + " = inputs[" + quoted(modality.name) + "]");
      if (!all_normalise()) continue;
      std::vector<std::int64_t> shape{-1};
      shape.insert(shape.end(), modality.row_shape.begin(), modality.row_shape.end());
      std::ostringstream numbers;
      numbers.precision(17);
      numbers << std::showpoint << "- " << normalisation(m)->at("mean").get<double>() << ") / " << normalisation(m)->at("std").get<double>();
      line("if self.normalise:");
      line("    " + x + " = (torch.reshape(" + as_float(x) + ", " + list_of(shape) + ") " + numbers.str());
    }
  }

  std::string stage(std::size_t m, std::size_t i) const {
    const std::string before = i == 0 ? "x" + text_of(m) : map_name(m, i - 1);
    if (is_script(m)) return as_float(backbone(m) + ".stage(" + text_of(i) + ", " + before + ")");
    return backbone(m) + ".stage" + text_of(i) + "(" + before + ")";
  }

  void advance(std::size_t m, std::size_t last) {
    for (; stages_[m] <= last; ++stages_[m]) line(map_name(m, stages_[m]) + " = " + stage(m, stages_[m]));
  }

  void write_gates() {
    for (std::size_t k = 0; k < model_.mmtm_places().size(); ++k) {
      const MmtmPlace& place = model_.mmtm_places()[k];
      std::string maps;
      for (std::size_t m = 0; m < place.taps.size(); ++m) {
        const auto tap = static_cast<std::size_t>(place.taps[m]);
        advance(m, tap);
        maps += (m == 0 ? "" : ", ") + map_name(m, tap);
      }
      const std::string module = "self.mmtm" + text_of(place.step);
      line("gates = " + module + ".gates([" + maps + "])");
      for (std::size_t m = 0; m < place.taps.size(); ++m) {
        const std::string map = map_name(m, static_cast<std::size_t>(place.taps[m]));
        if (place.gates[m]) line(map + " = " + module + ".scale(gates[" + text_of(m) + "], " + map + ")");
      }
    }
  }

  /// The maps of a TorchScript network from its forward: dict, tuple, list or tensor.
  void write_script_forward(std::size_t m) {
    const auto& taps = model_.modalities()[m].backbone->taps();
    const auto* const script = dynamic_cast<const StagedScript*>(model_.modalities()[m].backbone.get());
    const c10::TypePtr type = script->module().get_method("forward").function().getSchema().returns().at(0).type();
    const std::string out = "out" + text_of(m);
    line(out + " = " + backbone(m) + ".forward(x" + text_of(m) + ")");
    for (std::size_t i = 0; i < taps.size(); ++i) {
      std::string tap = out;
      if (type->kind() == c10::TypeKind::DictType) tap += "[" + quoted(taps[i].name) + "]";
      else if (type->kind() != c10::TypeKind::TensorType) tap += "[" + text_of(i) + "]";
      line(map_name(m, i) + " = " + as_float(tap));
    }
    if (has_logits(m)) line("l" + text_of(m) + " = self.pool(" + as_float(out + "[\"logits\"]") + ")");
  }

  bool has_logits(std::size_t m) const {
    if (model_.modalities()[m].backbone->classes() == 0) return false;
    if (model_.options().head != HeadKind::mmtm || !is_script(m)) return true;
    const auto* const script = dynamic_cast<const StagedScript*>(model_.modalities()[m].backbone.get());
    return script->module().find_method("classify").has_value();
  }

  void write_backbones() {
    const bool gated = model_.options().head == HeadKind::mmtm;
    stages_.assign(model_.modalities().size(), 0);
    if (gated) write_gates();
    for (std::size_t m = 0; m < model_.modalities().size(); ++m) {
      const std::size_t taps = model_.modalities()[m].backbone->taps().size();
      if (is_script(m) && !gated) {
        write_script_forward(m);
        continue;
      }
      advance(m, taps - 1);
      if (has_logits(m)) {
        const std::string logits = backbone(m) + ".classify(" + map_name(m, taps - 1) + ")";
        line("l" + text_of(m) + " = " + (is_script(m) ? as_float(logits) : logits));
      }
      for (std::size_t i = 0; i < taps && !is_script(m); ++i) {
        line(map_name(m, i) + " = " + backbone(m) + ".tap" + text_of(i) + "(" + map_name(m, i) + ")");
      }
    }
  }

  /// How many axes a tap's map has, and how many steps of time: from one pass of zeros.
  std::vector<at::Tensor> probe(std::size_t m) const {
    const ModelModality& modality = model_.modalities()[m];
    const at::Tensor like = model_.fusion().parameters().named().front().second;
    std::vector<std::int64_t> shape{2};
    shape.insert(shape.end(), modality.row_shape.begin(), modality.row_shape.end());
    return modality.backbone->forward(at::zeros(shape, like.options().requires_grad(false)), false).maps;
  }

  /// [B, C, ...] to [B T, C], as tokens_of and with_length do.
  void write_tokens(std::size_t m, std::size_t i, const at::Tensor& map) {
    const std::string name = map_name(m, i), length = std::to_string(model_.tokens());
    const auto axis = time_axis_of(map, model_.modalities()[m].time_axis);
    std::string tokens = name;
    if (map.dim() == 1) tokens = name + ".view([-1, 1, 1])";
    else if (map.dim() == 2) tokens = "torch.unsqueeze(" + name + ", 1)";
    else if (!axis) tokens = "torch.unsqueeze(torch.mean(torch.flatten(" + name + ", 2), [2]), 1)";
    else if (map.dim() == 3) tokens = "torch.transpose(" + name + ", 1, 2)";
    else tokens = "torch.mean(torch.flatten(torch.movedim(" + name + ", " + std::to_string(*axis) + ", 1), 3), [3])";
    line("t = " + tokens);
    const std::int64_t steps = axis && map.dim() > 2 ? map.size(*axis) : 1;
    if (steps == 1 && model_.tokens() != 1) line("t = t.expand([t.size(0), " + length + ", t.size(2)])");
    else if (steps != model_.tokens()) line("t = torch.transpose(torch.adaptive_avg_pool1d(torch.transpose(t, 1, 2), [" + length + "]), 1, 2)");
    line(name + " = torch.flatten(t, 0, 1)");
  }

  bool is_read(std::size_t m, std::size_t tap) const {
    for (const FusionStep& step : model_.architecture().steps) {
      if (static_cast<std::size_t>(step.taps[m]) == tap) return true;
    }
    return false;
  }

  void write_taps() {
    for (std::size_t m = 0; m < model_.modalities().size(); ++m) {
      const std::vector<at::Tensor> maps = model_.head() ? probe(m) : std::vector<at::Tensor>();
      for (std::size_t i = 0; i < model_.modalities()[m].tap_widths.size(); ++i) {
        if (!is_read(m, i)) continue;
        if (model_.head()) write_tokens(m, i, maps[i]);
        else line(map_name(m, i) + " = self.pool(" + map_name(m, i) + ")");
      }
    }
  }

  std::string parts_text() {
    parts_ = "def parts(self, inputs: Dict[str, Tensor]) -> Dict[str, Tensor]:\n";
    write_inputs();
    write_backbones();
    write_taps();
    std::string joined;
    for (const FusionStep& step : model_.architecture().steps) {
      std::string taps;
      for (std::size_t m = 0; m < step.taps.size(); ++m) taps += (m == 0 ? "" : ", ") + map_name(m, static_cast<std::size_t>(step.taps[m]));
      joined += (joined.empty() ? "" : ", ") + ("torch.cat([" + taps + "], 1)");
    }
    line("h = self.fusion.hidden([" + joined + "])");
    if (model_.head()) {
      line("fused = self.head.forward(h.view([-1, " + std::to_string(model_.tokens()) + ", " + std::to_string(model_.options().width) + "]))");
    } else {
      line("fused = self.fusion.classify(h)");
    }
    std::string out = "{\"fusion\": fused";
    for (std::size_t m = 0; m < model_.modalities().size(); ++m) {
      if (has_logits(m)) out += ", " + quoted("backbone." + model_.modalities()[m].name) + ": l" + text_of(m);
    }
    line("return " + out + "}");
    return parts_;
  }

  std::string forward_text() const {
    std::string text = "def forward(self, inputs: Dict[str, Tensor]) -> Tensor:\n    parts = self.parts(inputs)\n    scores = parts[\"fusion\"]\n";
    for (std::size_t m = 0; m < model_.modalities().size(); ++m) {
      if (!model_.options().multitask || !has_logits(m)) continue;
      text += "    scores = scores + parts[" + quoted("backbone." + model_.modalities()[m].name) + "]\n";
    }
    return text + "    return scores\n";
  }

  const RetrainedModel& model_;
  const json& document_;
  std::shared_ptr<torch::jit::CompilationUnit> unit_;
  torch::jit::Module root_;
  std::vector<std::string> members_;   ///< per modality: "backbone.audio"
  std::vector<std::size_t> stages_;    ///< per modality: stages that are written
  std::string parts_;
};

c10::List<std::string> strings(const std::vector<std::string>& texts) {
  c10::List<std::string> list;
  for (const std::string& text : texts) list.push_back(text);
  return list;
}

}  // namespace

void export_model(const RetrainedModel& model, const json& document, const std::filesystem::path& file) {
  if (!model.has_backbones()) throw ModelError("export: the model has no backbones, so there is nothing that could read an input");
  const std::string metadata = document.dump(2);
  try {
    torch::jit::Module module = Exporter(model, document).build();
    std::vector<std::string> modalities;
    for (const ModelModality& modality : model.modalities()) modalities.push_back(modality.name);
    const auto texts = c10::ListType::create(c10::StringType::get());
    module.register_attribute("classes", texts, strings(document.value("class_names", std::vector<std::string>())));
    module.register_attribute("modalities", texts, strings(modalities));
    module.register_attribute("metadata", c10::StringType::get(), metadata);
    std::ostringstream archive;
    module.save(archive, {{"metadata.json", metadata}});
    write_atomically(file, archive.str());
  } catch (const c10::Error& error) {
    throw ModelError(file.string() + ": the model could not be exported: " + compat::message_of(error));
  }
}

}  // namespace fusion
