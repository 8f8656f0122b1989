#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "model/fusion_network.h"
#include "space/architecture.h"
#include "workers/train/feature_tile.h"
#include "workers/train/plain_kernels.h"

namespace fusion::plain {

/// Numbers that start on a cache line.
template <typename T>
class Numbers {
 public:
  Numbers() = default;
  /// Zeros.
  explicit Numbers(std::int64_t count);
  T* data() { return values_.get(); }
  const T* data() const { return values_.get(); }
  std::int64_t size() const { return count_; }

 private:
  struct Release {
    void operator()(T* values) const;
  };
  std::unique_ptr<T[], Release> values_;
  std::int64_t count_ = 0;
};

/// One step of a network as the engine lays it out.
///
/// The weights stand transposed, [inputs, outputs], so that a result's columns are neighbours in memory: first the rows of each
/// modality's tap, in the order of the modalities, then those of the previous step's output. A gated step has its gate's columns behind
/// the others, [inputs, 2 columns]. Columns are padded with zeros that training leaves zeros.
struct StepLayout {
  FusionOp op = FusionOp::concat_fc;
  Nonlinearity nonlinearity = Nonlinearity::relu;
  std::vector<std::size_t> taps;     ///< [modality]
  std::vector<std::int64_t> widths;  ///< [modality]
  std::int64_t tap_inputs = 0;       ///< sum of the widths
  std::int64_t inputs = 0;           ///< with the previous step's
  std::int64_t outputs = 0;          ///< columns of the product: `columns`, or twice that
  std::int64_t weight = 0, bias = 0, gamma = 0, beta = 0, alpha = 0;  ///< where they begin among the parameters
};

/// Buffers of the activations of one batch, or of rows to score, reused by every network of a pack; they grow as they are asked to.
template <typename T>
struct Workspace {
  /// Of one step, [rows, columns] each; `product` [rows, outputs].
  struct Step {
    Numbers<T> product, activated, normalised, hidden, mask, rstd;
  };
  std::vector<Step> steps;
  Numbers<T> gradient[2];       ///< [rows, columns] towards a step's output, and the one before
  Numbers<T> product_gradient;  ///< [rows, 2 columns] towards a gated step's product
  Numbers<T> logits;            ///< [rows, class columns]
  Numbers<T> turned;            ///< a weight, transposed
  Numbers<T> scaled;            ///< weights times their modality's share, with alphas
  Numbers<T> weight_gradient;   ///< with alphas
  Numbers<T> small;             ///< gradients of vectors
  Numbers<float> mask;          ///< as drawn, where rows are padded
};

/// A fusion network in training, by hand: the maths of model/fusion_network.h with its gradient and Adam, for the plain engine.
///
///     Z_i = a Wa + b Wb + ... + h_(i-1) U + 1 bias           one product, nothing is concatenated
///     h_i = D_i * bn(act(Z_i))                               act(Z) * sigmoid(Z') for a gated step
///     G   = (softmax(h_L V + d) - onehot) / B
///     dZ_i = act'(.) * bn'(.) * D_i * dh_i,   dh_(i-1) = dZ_i U^T,   dW_i = [a, b, h_(i-1)]^T dZ_i
///     theta <- Adam(theta, dW_i)                             within the product that makes dW_i
///
/// With alphas the weights of each modality are scaled by its share s for the forward pass instead of the taps, and
/// dL/ds = <W, a^T dZ> over the first modality minus that over the others. Differs from the autograd oracle in the order of sums only.
/// T is float; double is for tests. Not thread-safe.
template <typename T>
class Network {
 public:
  /// A network's shapes and initial weights. Throws ModelError as FusionNetwork does.
  Network(const FusionNetwork& from, const TapWidths& widths, std::uint64_t mask_seed, double dropout);

  /// One step of training on rows [first, first + rows) of the tile; `seen` rows were trained on before. Returns the sum of the rows'
  /// losses.
  double train(const FeatureTile<T>& tile, std::int64_t first, std::int64_t rows, std::int64_t seen, const AdamStep<T>& adam,
               Workspace<T>& work);

  /// The logits of rows of the tile with running statistics and without dropout: [rows, classes padded to kColumns], in `work`.
  T* logits(const FeatureTile<T>& tile, std::int64_t first, std::int64_t rows, Workspace<T>& work) const;

  /// The predicted class of each row; with `add_stored`, of the sum of these logits and the tile's. `rows` of them to `out`.
  void predict(const FeatureTile<T>& tile, std::int64_t first, std::int64_t rows, bool add_stored, Workspace<T>& work,
               std::int64_t* out) const;

  /// Remembers the weights as they are; goes back to what was remembered.
  void keep();
  void restore();
  /// Writes the weights into a network of the same shapes.
  void copy_to(FusionNetwork& to) const;

  std::int64_t parameters() const { return true_parameters_; }
  /// What it holds in memory.
  std::int64_t bytes() const;

 private:
  /// The rows of a tile that are worked on.
  struct Rows {
    const FeatureTile<T>& tile;
    std::int64_t first, count;
  };

  void lay_out(const FusionNetwork& from, const TapWidths& widths);
  /// Calls visit(tensor, offset, stride): element [output, input] of the tensor is number offset + input * stride + output.
  template <typename Visit>
  void visit_tensors(const FusionNetwork& network, Visit visit) const;
  void reserve(Workspace<T>& work, std::int64_t rows) const;

  void product(std::size_t index, const Rows& rows, const T* previous, Workspace<T>& work) const;
  const T* scaled_weights(const StepLayout& step, Workspace<T>& work) const;
  const T* draw_mask(std::size_t index, std::int64_t rows, std::int64_t seen, Workspace<T>& work) const;
  const T* forward(const Rows& rows, std::int64_t seen, Workspace<T>& work);
  void classify(const T* hidden, std::int64_t rows, Workspace<T>& work) const;
  void backward(const Rows& rows, const T* hidden, const AdamStep<T>& adam, Workspace<T>& work);
  /// From the gradient towards a step's output to that towards its product.
  const T* product_gradient(std::size_t index, std::int64_t rows, T* gradient, const AdamStep<T>& adam, Workspace<T>& work);
  void update_step(std::size_t index, const Rows& rows, const T* dz, const AdamStep<T>& adam, Workspace<T>& work);
  /// Weights of one modality's tap with alphas; returns <W, a^T dZ>.
  T update_scaled(std::int64_t at, std::int64_t width, std::int64_t outputs, const Factor<T>& tap, T share, const T* dz,
                  const AdamStep<T>& adam, Workspace<T>& work);
  void update_vector(std::int64_t at, const T* gradient, std::int64_t count, const AdamStep<T>& adam);
  Trained<T> trained(std::int64_t at, std::int64_t stride);
  T share(const StepLayout& step) const;
  const T* step_hidden(std::size_t index, const Workspace<T>& work) const;

  const Kernels<T>& k_;
  FusionOptions options_;
  std::uint64_t mask_seed_;
  double dropout_;
  std::vector<StepLayout> steps_;
  std::int64_t columns_ = 0, class_columns_ = 0;
  std::int64_t classifier_ = 0, classifier_bias_ = 0, count_ = 0;  ///< offsets among the parameters
  std::int64_t true_parameters_ = 0;
  Numbers<T> parameters_, moment1_, moment2_, kept_parameters_;
  Numbers<T> statistics_, kept_statistics_;  ///< per step running mean and variance [columns] each, with batch normalisation
  bool far_ = false;
};

}  // namespace fusion::plain
