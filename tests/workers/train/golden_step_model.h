#pragma once

// The golden cases of kind train_step, as both the oracle's and the engines' tests read them.
#include "tests/model/golden_cases.h"

#include <optional>
#include <regex>

#include "model/adam.h"
#include "model/fusion_network.h"
#include "workers/train/schedule.h"

namespace fusion::golden {

/// The number behind a word in the sidecar's sentences: "eta_max 1e-3".
inline double number_behind(const std::string& text, const std::string& word, double fallback) {
  std::smatch found;
  return std::regex_search(text, found, std::regex(word + " ([0-9.eE+-]+[0-9])")) ? std::stod(found[1]) : fallback;
}
inline double number_before(const std::string& text, const std::string& word, double fallback) {
  std::smatch found;
  return std::regex_search(text, found, std::regex("([0-9.eE+-]+) " + word)) ? std::stod(found[1]) : fallback;
}

/// Both backbones (in training mode) and the fusion network of a train_step case; or stored taps where it has no backbones.
class StepModel {
 public:
  explicit StepModel(const Case& given) : given_(given) {
    TapWidths widths;
    for (const std::string name : {"audio", "image"}) {
      auto& of_modality = widths.emplace_back();
      if (given.has("input." + name)) {
        const at::Tensor input = given.tensor("input." + name);
        LeNet& network = backbones_.emplace_back(
            golden::lenet_options(given.tensors, "initial." + name + ".", input, name == "audio"), 0);
        load_tensors(given.tensors, golden::all_tensors(network), "initial." + name + ".");
        of_modality = network.options().tap_widths();
        inputs_.push_back(input);
      } else {
        auto& of_taps = stored_taps_.emplace_back();
        for (int i = 0; given.has("tap." + name + std::to_string(i)); ++i) {
          of_taps.push_back(given.tensor("tap." + name + std::to_string(i)));
          of_modality.push_back(of_taps.back().size(1));
        }
      }
    }
    const FusionOptions options{given.facts.at("inner_representation_size"),
                                given.tensors.at("initial.classifier.bias").shape.at(0), given.facts.at("batchnorm"),
                                given.facts.at("alphas")};
    fusion_.emplace(architecture_from_triplets(given.facts.at("conf")), widths, options, 0);
    load_tensors(given.tensors, fusion_->parameters().named(), "initial.");
    load_tensors(given.tensors, fusion_->buffers().named(), "initial.");
    const bool all = given.facts.at("trainable").get<std::string>().rfind("all", 0) == 0;
    for (LeNet& network : backbones_) network.parameters().set_trainable(all);
  }

  std::vector<at::Tensor> parameters() const {
    std::vector<at::Tensor> all = fusion_->parameters().tensors();
    for (const LeNet& network : backbones_) {
      for (const at::Tensor& tensor : network.parameters().tensors()) all.push_back(tensor);
    }
    return all;
  }

  /// Every tensor under the name it has in the case.
  NamedTensors named() const {
    NamedTensors all = fusion_->parameters().named();
    all.insert(all.end(), fusion_->buffers().named().begin(), fusion_->buffers().named().end());
    for (std::size_t m = 0; m < backbones_.size(); ++m) {
      for (const auto& [name, tensor] : golden::all_tensors(backbones_[m])) {
        all.emplace_back((m == 0 ? "audio." : "image.") + name, tensor);
      }
    }
    return all;
  }

  /// [m][tap], stored or computed now by the backbones in training mode, whose own logits are then added to `logits`.
  std::vector<std::vector<at::Tensor>> taps(std::vector<at::Tensor>* logits) const {
    std::vector<std::vector<at::Tensor>> taps = stored_taps_;
    for (std::size_t m = 0; m < backbones_.size(); ++m) {
      const BackboneOutput out = backbones_[m].forward(inputs_[m], true);
      taps.push_back(out.taps);
      logits->push_back(out.logits);
    }
    return taps;
  }
  FusionNetwork& fusion() { return *fusion_; }

  /// Fusion logits, then each backbone's own (audio, image).
  std::vector<at::Tensor> forward() const {
    std::vector<at::Tensor> logits{at::Tensor()};
    const std::vector<std::vector<at::Tensor>> taps = this->taps(&logits);
    std::vector<at::Tensor> joined;
    for (std::size_t i = 0; i < fusion_->architecture().steps.size(); ++i) joined.push_back(fusion_->join(i, taps));
    logits.front() = fusion_->forward(joined, {}, true);
    return logits;
  }

 private:
  const Case& given_;
  std::vector<LeNet> backbones_;
  std::vector<at::Tensor> inputs_;
  std::vector<std::vector<at::Tensor>> stored_taps_;
  std::optional<FusionNetwork> fusion_;
};

/// Adam and the learning rate as the sidecar words them.
struct StepOptimiser {
  explicit StepOptimiser(const Case& given) : text(given.facts.at("optimiser")) {}

  const std::string text;
  const AdamOptions adam{.eps = number_behind(text, "eps", 1e-8), .weight_decay = number_behind(text, "weight decay", 1e-4)};
  CosineSchedule schedule{{number_behind(text, "eta_max", 1e-3), number_behind(text, "eta_min", 1e-6),
                           static_cast<int>(number_behind(text, "Ti", 1)), static_cast<int>(number_behind(text, "Tm", 2)),
                           RestartRule::reference},
                          number_before(text, "batches per epoch", 7)};
};

}  // namespace fusion::golden
