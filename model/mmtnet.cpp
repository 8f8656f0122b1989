#include "model/mmtnet.h"

#include <ATen/ops/cat.h>

#include "base/error.h"
#include "base/random.h"

namespace fusion {
namespace {

constexpr std::array<std::int64_t, 3> kSkeletonChannels{128, 256, 512};  // of conv5, conv6, fc7

void append(NamedTensors& all, const std::string& prefix, const FlatTensors& tensors) {
  for (const auto& [name, tensor] : tensors.named()) all.emplace_back(prefix + name, tensor);
}

}  // namespace

MmtNetOptions MmtNetOptions::reference() {
  MmtNetOptions options;
  options.visual.pool = ClipPool::reference;
  options.mmtm.gate = GateRule::reference;
  options.gated_maps = options.persons = MmtNetRule::reference;
  return options;
}

MmtNet::MmtNet(const MmtNetOptions& options, std::uint64_t seed, const at::TensorOptions& tensors)
    : options_(options),
      visual_(options.visual, mix(seed, 1), tensors),
      skeleton_(options.skeleton, mix(seed, 2), tensors) {
  if (options.visual.classes != options.skeleton.classes) {
    throw ModelError("mmtnet: the branches must have the same classes, got " + std::to_string(options.visual.classes) + " and " +
                     std::to_string(options.skeleton.classes));
  }
  for (std::size_t i = 0; i < kSkeletonChannels.size(); ++i) {
    const std::vector<std::int64_t> channels{visual_.channels(i + 1), kSkeletonChannels[i]};
    modules_.emplace_back(channels, options.mmtm, mix(seed, 3 + i), tensors);
  }
}

void MmtNet::exchange_first(at::Tensor& map, at::Tensor& conv5) const {
  if (options_.persons == MmtNetRule::reference) {
    const std::vector<at::Tensor> gated = modules_[0].forward({map, conv5[0]});
    map = gated[0];
    conv5 = at::cat({gated[1].unsqueeze(0), conv5.narrow(0, 1, conv5.size(0) - 1)}, 0);
    return;
  }
  const std::vector<at::Tensor> gates = modules_[0].gates({map, Hcn::most_of_persons(conv5)});
  map = Mmtm::apply(gates[0], map);
  conv5 = conv5.mul(gates[1].unsqueeze(-1).unsqueeze(-1));  // the same for each person
}

MmtNet::Output MmtNet::forward(const at::Tensor& clip, const at::Tensor& skeleton, bool training, const DropoutRows* dropout,
                               Trace* trace) const {
  const Hcn::Persons seen = skeleton_.look(skeleton, dropout);
  std::array<at::Tensor, 4> maps;  // gated, from stage 2 on
  maps[0] = visual_.stage(0, visual_.stem(clip, training), training);
  const at::Tensor plain2 = maps[1] = visual_.stage(1, maps[0], training);
  at::Tensor conv5 = seen.conv5;
  exchange_first(maps[1], conv5);

  const bool pass_on = options_.gated_maps == MmtNetRule::repaired;
  const at::Tensor conv6 = Hcn::most_of_persons(skeleton_.conv6(conv5, dropout));
  const at::Tensor plain3 = visual_.stage(2, pass_on ? maps[1] : plain2, training);
  const std::vector<at::Tensor> second = modules_[1].forward({plain3, conv6});
  maps[2] = second[0];
  const at::Tensor flat = second[1].flatten(1);

  const at::Tensor plain4 = visual_.stage(3, pass_on ? maps[2] : plain3, training);
  const std::vector<at::Tensor> third = modules_[2].forward({plain4, skeleton_.fc7(flat, dropout)});
  maps[3] = third[0];
  const at::Tensor pooled = visual_.pool(maps[3]);
  if (trace != nullptr) {
    trace->visual_maps = maps;
    trace->pooled = pooled;
    trace->skeleton_taps.clear();
    for (const at::Tensor& each : {seen.conv1, seen.conv2, seen.conv3, seen.conv4, seen.conv5}) {
      trace->skeleton_taps.push_back(Hcn::most_of_persons(each));
    }
    trace->skeleton_taps.insert(trace->skeleton_taps.end(), {conv6, flat, third[1]});
  }
  return {visual_.classify(pooled), skeleton_.fc8(third[1])};
}

NamedTensors MmtNet::parameters() const {
  NamedTensors all;
  for (std::size_t i = 0; i < modules_.size(); ++i) append(all, "mmtm" + std::to_string(i) + ".", modules_[i].parameters());
  append(all, "visual.", visual_.parameters());
  append(all, "skeleton.", skeleton_.parameters());
  return all;
}

NamedTensors MmtNet::buffers() const {
  NamedTensors all;
  append(all, "visual.", visual_.buffers());
  return all;
}

std::vector<at::Tensor> MmtNet::visual_parameters() const {
  std::vector<at::Tensor> all = visual_.parameters().tensors();
  for (const Mmtm& module : modules_) {
    for (const auto& [name, tensor] : module.parameters().named()) all.push_back(tensor);
  }
  return all;
}

std::vector<at::Tensor> MmtNet::skeleton_parameters() const {
  std::vector<at::Tensor> all = skeleton_.parameters().tensors();
  for (const Mmtm& module : modules_) {
    for (const auto& [name, tensor] : module.parameters().named()) all.push_back(tensor);
  }
  return all;
}

}  // namespace fusion
