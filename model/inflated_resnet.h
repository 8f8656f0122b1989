#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <vector>

#include "base/enum_names.h"
#include "base/tensor_files.h"
#include "model/flat_tensors.h"

namespace fusion {

/// Which part of the last map becomes the clip's feature.
enum class ClipPool : std::uint8_t {
  repaired,  ///< the mean over all of it
  reference  ///< the mean over its first 7 rows and 7 columns, as the authors' code: of 8 by 8 with the documented 256x256 clips
};
template <>
struct EnumNames<ClipPool> {
  static constexpr std::array<std::pair<ClipPool, std::string_view>, 2> kTable{
      {{ClipPool::repaired, "repaired"}, {ClipPool::reference, "reference"}}};
};

struct InflatedResnetOptions {
  std::array<std::int64_t, 4> blocks{3, 4, 6, 3};  ///< of each stage
  std::int64_t width = 64;                         ///< channels of the stem; stage i has 4 * width * 2^i
  std::int64_t classes = 60;                       ///< K
  ClipPool pool = ClipPool::repaired;

  bool operator==(const InflatedResnetOptions&) const = default;
};

/// ResNet-50 over clips, its 3x3 kernels inflated along time. B batch, T frames, clip [B, T, H, W, 3].
///
///     stem    of each frame: 7x7 stride 2, batch norm, relu, 3x3 maximum stride 2     [B, 64, T, H/4, W/4]
///     stage i = 0..3: bottlenecks of 1x1x1, 3x3x3, 1x1x1 convolutions without bias, each with batch norm, relu behind the first two
///             and behind the sum; the first block's 3x3x3 strides 2 over rows and columns (stage 0: 1) and its shortcut is a
///             1x1x1 convolution with batch norm                                        [B, 256 * 2^i, T, H / (4 * 2^i), ...]
///     logits = V (mean of the last map) + d                                            [B, K]
/// Time is never thinned. Batch normalisation: eps 1e-5, momentum 0.1.
/// He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, as inflated by the code of MFAS and MMTM. Differs from that
/// code: the whole last map is averaged by default. Initialisation, as there: normal with deviation sqrt(2 / (rows * columns *
/// outputs)), the time axis not counted; classifier PyTorch's default.
///
/// Tensors are called as there: cnn.conv1.weight, cnn.bn1.*, cnn.layer<i + 1>.<block>.conv1.weight, .bn1.*, ..., .downsample.0.weight,
/// .downsample.1.*, classifier.weight, classifier.bias. Not thread-safe. Copies share their weights.
class InflatedResnet {
 public:
  struct Output {
    std::vector<at::Tensor> taps;  ///< the maps of the four stages, then the pooled vector
    at::Tensor logits;             ///< [B, K]
  };

  /// Throws ModelError if an option is out of range.
  InflatedResnet(const InflatedResnetOptions& options, std::uint64_t seed, const at::TensorOptions& tensors = {});

  /// Takes over a two-dimensional ResNet's weights and running statistics, as torchvision names them (`conv1.weight`,
  /// `layer1.0.conv1.weight`, ...): a kernel goes into the middle of the time axis, zeros around it, so that a clip of one repeated
  /// frame gives what the image would. The classifier stays as it is. Throws ModelError that names every tensor that is missing or of
  /// another shape; then nothing was changed.
  void inflate(const SafetensorsFile& image_network);

  /// clip: [B, T, H, W, 3]. While training, batch statistics are used and the running ones updated. Throws ModelError if the clip has
  /// another shape, or is too small for the pool.
  Output forward(const at::Tensor& clip, bool training) const;

  // The same in parts, for networks that look in between.
  at::Tensor stem(const at::Tensor& clip, bool training) const;
  at::Tensor stage(std::size_t index, const at::Tensor& map, bool training) const;
  at::Tensor pool(const at::Tensor& map) const;         ///< [B, C, T, h, w] to [B, C]
  at::Tensor classify(const at::Tensor& pooled) const;  ///< [B, C] to [B, K]

  const InflatedResnetOptions& options() const { return options_; }
  std::int64_t channels(std::size_t stage) const { return 4 * options_.width << stage; }
  FlatTensors& parameters() { return parameters_; }
  const FlatTensors& parameters() const { return parameters_; }
  FlatTensors& buffers() { return buffers_; }
  const FlatTensors& buffers() const { return buffers_; }

 private:
  /// A convolution with its batch normalisation.
  struct Unit {
    at::Tensor conv, weight, bias, mean, var;
    std::int64_t stride = 1;  ///< over rows and columns
  };
  struct Block {
    std::array<Unit, 3> units;
    Unit shortcut;  ///< undefined tensors where the input is passed on as it is
  };
  Unit find_unit(const std::string& conv, const std::string& norm, std::int64_t stride) const;
  void initialise(std::uint64_t seed);
  static at::Tensor apply(const Unit& unit, const at::Tensor& x, bool training);

  InflatedResnetOptions options_;
  FlatTensors parameters_, buffers_;
  Unit stem_;
  std::array<std::vector<Block>, 4> stages_;
  at::Tensor classifier_weight_, classifier_bias_;
};

}  // namespace fusion
