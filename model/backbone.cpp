#include "model/backbone.h"

#include <fstream>
#include <optional>
#include <utility>

#include "base/digest.h"
#include "base/error.h"
#include "model/frozen_lenet.h"
#include "model/lenet.h"
#include "model/script_backbone.h"
#include "model/torch_compat.h"

namespace fusion {
namespace {

class LeNetBackbone final : public Backbone {
 public:
  LeNetBackbone(const std::filesystem::path& file, const std::vector<std::int64_t>& row_shape, c10::Device device)
      : network_(LeNet::load(file, at::TensorOptions().device(device))), digest_(sha256_of_file(file)) {
    network_.parameters().set_trainable(false);
    network_.options().check_input(row_shape, file.string());
    const std::vector<std::int64_t> widths = network_.options().tap_widths();
    if (device.is_cpu()) fast_.emplace(network_);
    for (std::size_t i = 0; i < widths.size(); ++i) taps_.push_back({"tap" + std::to_string(i), widths[i]});
  }

  std::string kind() const override { return "lenet"; }
  const std::vector<TapSpec>& taps() const override { return taps_; }
  std::int64_t classes() const override { return network_.options().classes; }
  BackboneOutput forward(const at::Tensor& x) const override {
    const at::NoGradGuard no_grad;
    try {
      return fast_ && x.scalar_type() == c10::kFloat ? fast_->forward(x) : network_.forward(x, false);
    } catch (const c10::Error& error) {
      throw ModelError("lenet: " + compat::message_of(error));
    }
  }
  const std::string& digest() const override { return digest_; }

 private:
  LeNet network_;
  std::optional<FrozenLeNet> fast_;  ///< on the CPU
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

at::Tensor pool_tap(const at::Tensor& feature) {
  if (feature.dim() == 1) return feature.unsqueeze(1);
  if (feature.dim() == 2) return feature;
  return feature.flatten(2).mean(2);  // [B, C]
}

std::unique_ptr<Backbone> open_backbone(const std::filesystem::path& file, const std::vector<std::int64_t>& row_shape,
                                        c10::Device device) {
  if (starts_as_zip(file)) return std::make_unique<ScriptBackbone>(file, row_shape, device);
  return std::make_unique<LeNetBackbone>(file, row_shape, device);
}

}  // namespace fusion
