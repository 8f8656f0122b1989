#include "model/staged_backbone.h"

#include <fstream>
#include <nlohmann/json.hpp>

#include "base/digest.h"
#include "base/error.h"
#include "model/lenet.h"
#include "model/staged_script.h"
#include "model/torch_compat.h"

namespace fusion {
namespace {

class StagedLeNet final : public StagedBackbone {
 public:
  StagedLeNet(const std::filesystem::path& file, const std::vector<std::int64_t>& row_shape, const at::TensorOptions& tensors)
      : network_(LeNet::load(file, tensors)), digest_(sha256_of_file(file)) {
    network_.options().check_input(row_shape, file.string());
    const std::vector<std::int64_t> widths = network_.options().tap_widths();
    for (std::size_t i = 0; i < widths.size(); ++i) taps_.push_back({"tap" + std::to_string(i), widths[i]});
  }

  std::string kind() const override { return "lenet"; }
  nlohmann::json describe() const override { return {{"kind", "lenet"}, {"arch", network_.options().to_json()}}; }
  const std::vector<TapSpec>& taps() const override { return taps_; }
  std::int64_t classes() const override { return network_.options().classes; }
  const std::string& digest() const override { return digest_; }

  BackboneMaps forward(const at::Tensor& x, bool training) const override {
    BackboneMaps out;
    at::Tensor map = x;
    for (std::size_t i = 0; i < taps_.size(); ++i) {
      map = network_.stage(i, map, training);
      out.maps.push_back(network_.tap_map(i, map));
    }
    out.logits = network_.classify(map);
    return out;
  }
  at::Tensor stage(std::size_t i, const at::Tensor& before, bool training) const override { return network_.stage(i, before, training); }
  at::Tensor tap_map(std::size_t i, const at::Tensor& map) const override { return network_.tap_map(i, map); }
  at::Tensor classify(const at::Tensor& last, bool) const override { return network_.classify(last); }
  NamedTensors parameters() const override { return network_.parameters().named(); }
  NamedTensors buffers() const override { return network_.buffers().named(); }

 private:
  LeNet network_;
  std::string digest_;
  std::vector<TapSpec> taps_;
};

bool starts_as_zip(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  if (!in) throw DataError(file.string() + ": cannot be opened");
  char head[2] = {};
  in.read(head, 2);
  return in && head[0] == 'P' && head[1] == 'K';
}

}  // namespace

void StagedBackbone::set_trainable(bool trainable) const {
  for (const auto& [name, tensor] : parameters()) {
    if (tensor.is_floating_point()) tensor.set_requires_grad(trainable);
  }
}

std::unique_ptr<StagedBackbone> open_staged_backbone(const std::filesystem::path& file, const std::vector<std::int64_t>& row_shape,
                                                     const at::TensorOptions& tensors) {
  if (starts_as_zip(file)) return std::make_unique<StagedScript>(file, row_shape, tensors.device());
  try {
    return std::make_unique<StagedLeNet>(file, row_shape, tensors);
  } catch (const DataError& error) {
    throw DataError(std::string(error.what()) + "; a backbone is a TorchScript archive (torch.jit.save) or a LeNet of ours");
  }
}

}  // namespace fusion
