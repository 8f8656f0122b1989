#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "base/json_reader.h"
#include "model/backbone.h"
#include "model/flat_tensors.h"

namespace fusion {

struct LeNetOptions {
  std::int64_t blocks = 3;
  std::int64_t channels = 3;        ///< of the first block; every block doubles them
  std::int64_t input_channels = 1;  ///< rows are [input_channels, height, width]
  std::int64_t height = 28, width = 28;
  std::int64_t classes = 10;
  bool first_tap_after_pool = false;  ///< tap 0 is taken behind the max pooling, as in the reference's audio network

  bool operator==(const LeNetOptions&) const = default;

  /// The reference's two networks (`channels` is 3 in its code; the published experiments evidently used 24).
  static LeNetOptions image(std::int64_t channels = 3, std::int64_t classes = 10);
  static LeNetOptions audio(std::int64_t channels = 3, std::int64_t classes = 10);

  std::vector<std::int64_t> tap_widths() const;  ///< channels, 2 channels, 4 channels, ...
  /// Throws ModelError naming `subject` unless a row has this shape (a missing leading 1 is allowed nowhere).
  void check_input(const std::vector<std::int64_t>& row_shape, const std::string& subject) const;
  nlohmann::json to_json() const;
  static LeNetOptions read(JsonReader& reader);
};

/// The reference's LeNet backbones, for any number of blocks and channels. B batch, C_i = channels * 2^i.
///
///     r_i = relu(bn(conv(x_i)))   conv: stride 1, no bias, 5x5 padding 2 in the first block, 3x3 padding 1 in the others
///     x_(i+1) = 2x2 max pooling of r_i (stride 2, floor)
///     tap i = mean of r_i over the image [B, C_i]; of the pooled r_0 for tap 0 if first_tap_after_pool
///     logits = V tap_last + d
/// Initialisation: convolution and classifier weights Kaiming uniform, classifier bias PyTorch's default, batch normalisation 1 and 0.
/// Differs from the reference: no. (The last max pooling, whose result nothing reads, is left out.)
///
/// Tensors, counted from 1 as in the reference: conv<i>.weight, bn<i>.weight, bn<i>.bias, classifier.weight, classifier.bias; buffers
/// bn<i>.running_mean, bn<i>.running_var. Not thread-safe. Copies share their weights.
class LeNet {
 public:
  /// Throws ModelError if an option is out of range, or the image is too small for that many blocks.
  LeNet(const LeNetOptions& options, std::uint64_t seed, const at::TensorOptions& tensors = {});

  /// x: [B, input_channels, height, width]. While training, batch statistics are used and the running ones updated (momentum 0.1).
  BackboneOutput forward(const at::Tensor& x, bool training) const;

  /// The same in pieces, for who changes the maps on their way. r_i [B, C_i, H_i, W_i] from `before`: x for i = 0, else r_(i-1).
  at::Tensor stage(std::size_t i, const at::Tensor& before, bool training) const;
  /// What tap i is the mean of: r_i, or the pooled r_0 for tap 0 if first_tap_after_pool.
  at::Tensor tap_map(std::size_t i, const at::Tensor& map) const;
  /// [B, classes] from the last r_i.
  at::Tensor classify(const at::Tensor& last) const;

  const LeNetOptions& options() const { return options_; }
  FlatTensors& parameters() { return parameters_; }
  const FlatTensors& parameters() const { return parameters_; }
  FlatTensors& buffers() { return buffers_; }
  const FlatTensors& buffers() const { return buffers_; }

  /// Parameters and buffers as a `.safetensors` file with metadata `kind` (lenet) and `arch` (the options as JSON), and `facts` beside
  /// them. Loading throws DataError or ModelError naming the file and what is wrong.
  void save(const std::filesystem::path& file, const std::map<std::string, std::string>& facts = {}) const;
  static LeNet load(const std::filesystem::path& file, const at::TensorOptions& tensors = {});

 private:
  struct Block {
    at::Tensor conv, bn_weight, bn_bias, bn_mean, bn_var;
    std::int64_t padding;
  };
  void check_batch(const at::Tensor& x) const;
  at::Tensor run(const Block& block, const at::Tensor& x, bool training) const;

  LeNetOptions options_;
  FlatTensors parameters_, buffers_;
  std::vector<Block> blocks_;
  at::Tensor classifier_weight_, classifier_bias_;
};

}  // namespace fusion
