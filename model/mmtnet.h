#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <vector>

#include "base/enum_names.h"
#include "model/flat_tensors.h"
#include "model/hcn.h"
#include "model/inflated_resnet.h"
#include "model/mmtm.h"

namespace fusion {

/// Whether the network does what the paper describes or what the authors' code does.
enum class MmtNetRule : std::uint8_t { repaired, reference };
template <>
struct EnumNames<MmtNetRule> {
  static constexpr std::array<std::pair<MmtNetRule, std::string_view>, 2> kTable{
      {{MmtNetRule::repaired, "repaired"}, {MmtNetRule::reference, "reference"}}};
};

struct MmtNetOptions {
  InflatedResnetOptions visual;
  HcnOptions skeleton;
  MmtmOptions mmtm;
  /// repaired: a gated visual map is what the next stage reads. reference: the next stage reads the map as it was before the gate, so
  /// the first two modules act on the skeleton alone, and their visual gates never learn.
  MmtNetRule gated_maps = MmtNetRule::repaired;
  /// repaired: the first module squeezes the maximum over persons and gates every person alike; since a gate is positive, this equals
  /// gating that maximum. reference: it squeezes and gates the first person only.
  MmtNetRule persons = MmtNetRule::repaired;

  /// Everything as in the authors' code.
  static MmtNetOptions reference();
};

/// The published network for NTU RGB+D: an inflated ResNet-50 and an HCN that recalibrate each other in three places.
///
/// B batch, T frames, W the skeleton's window, K classes:
///     module 0   behind the visual stage 2 [B, 512, T, H/8, W/8] and the skeleton's conv5 [B, 128, W/8, W/8]
///     module 1   behind stage 3 [B, 1024, ...] and the maximum over persons of conv6 [B, 256, W/16, W/16]
///     module 2   behind stage 4 [B, 2048, ...] and fc7 [B, 512]
/// Both branches end in logits; the prediction is their mean.
/// Joze et al., "MMTM: Multimodal Transfer Module for CNN Fusion", CVPR 2020. Differs from the authors' code (github.com/haamoon/mmtm)
/// by default: the options say in what and why; MmtNetOptions::reference() is that code. Its unused layer over both logits is left out.
///
/// Not thread-safe; one instance belongs to one trainer. Copies share their weights.
class MmtNet {
 public:
  struct Output {
    at::Tensor visual, skeleton;  ///< logits [B, K]
    at::Tensor prediction() const { return visual.add(skeleton).div(2); }
  };
  /// What the network computed on its way.
  struct Trace {
    std::array<at::Tensor, 4> visual_maps;  ///< behind each stage; those of stages 2 to 4 gated
    at::Tensor pooled;                      ///< what the visual classifier reads
    /// HCN's taps: maxima over persons of conv1 to conv5 and conv6 before any gate, then fc7's input and output behind theirs.
    std::vector<at::Tensor> skeleton_taps;
  };

  /// Weights are drawn from `seed`, independently for each part. Throws ModelError if an option is out of range or the branches do
  /// not give the same number of classes.
  MmtNet(const MmtNetOptions& options, std::uint64_t seed, const at::TensorOptions& tensors = {});

  /// clip: [B, T, H, W, 3]; skeleton: [B, 3, window, joints, persons]. While training, batch normalisation uses the batch's statistics
  /// and `dropout` says which masks to take; without it nothing is dropped.
  Output forward(const at::Tensor& clip, const at::Tensor& skeleton, bool training, const DropoutRows* dropout = nullptr,
                 Trace* trace = nullptr) const;

  const MmtNetOptions& options() const { return options_; }
  InflatedResnet& visual() { return visual_; }
  Hcn& skeleton() { return skeleton_; }
  Mmtm& module(std::size_t index) { return modules_.at(index); }

  /// Names as in the authors' code: mmtm0.fc_squeeze.weight, ..., visual.cnn.conv1.weight, ..., skeleton.conv1.0.weight, ...
  NamedTensors parameters() const;
  NamedTensors buffers() const;
  /// What the optimiser of one branch moves: the branch and all modules.
  std::vector<at::Tensor> visual_parameters() const;
  std::vector<at::Tensor> skeleton_parameters() const;

 private:
  /// Gates conv5 [P, B, ...] of all persons and the visual map, as `persons` says.
  void exchange_first(at::Tensor& map, at::Tensor& conv5) const;

  MmtNetOptions options_;
  InflatedResnet visual_;
  Hcn skeleton_;
  std::vector<Mmtm> modules_;
};

}  // namespace fusion
