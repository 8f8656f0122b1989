#include "workers/train/synchronised_batch_norm.h"

#include <ATen/NativeFunctions.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "model/torch_compat.h"

namespace fusion {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;
using OptionalTensor = compat::Optional<at::Tensor>;

thread_local const RankGroup* synchronised_with = nullptr;

/// All but the channels'.
std::vector<std::int64_t> other_axes(const at::Tensor& x) {
  std::vector<std::int64_t> axes{0};
  for (std::int64_t axis = 2; axis < x.dim(); ++axis) axes.push_back(axis);
  return axes;
}

/// [C] as [1, C, 1, ...], in the type of x.
at::Tensor along_channels(const at::Tensor& of_channels, const at::Tensor& x) {
  std::vector<std::int64_t> shape(static_cast<std::size_t>(x.dim()), 1);
  shape[1] = of_channels.numel();
  return of_channels.view(shape).to(x.scalar_type());
}

/// Mean and variance over all ranks.
struct Moments {
  at::Tensor mean, variance;  ///< [C], double
  double count = 0;           ///< values per channel
};

Moments moments_of(const at::Tensor& x, const RankGroup& group) {
  const std::int64_t channels = x.size(1);
  const double own = static_cast<double>(x.numel() / channels);
  const std::vector<std::int64_t> axes = other_axes(x);
  const auto [own_variance, own_mean] = at::var_mean(x, at::IntArrayRef(axes), false, false);
  const at::Tensor mean = own_mean.to(at::kDouble);
  at::Tensor sums = at::empty({2 * channels + 1}, x.options().dtype(at::kDouble));
  sums.narrow(0, 0, channels).copy_(mean.mul(own));
  sums.narrow(0, channels, channels).copy_(own_variance.to(at::kDouble).add(mean.square()).mul(own));
  sums.narrow(0, 2 * channels, 1).fill_(own);
  group.sum(sums);
  Moments all;
  all.count = sums[2 * channels].item<double>();
  all.mean = sums.narrow(0, 0, channels).div(all.count);
  all.variance = sums.narrow(0, channels, channels).div(all.count).sub(all.mean.square()).clamp_min(0);
  return all;
}

void update_running(const OptionalTensor& running, const at::Tensor& value, double momentum) {
  if (running && running->defined()) running->mul_(1 - momentum).add_(value.to(running->scalar_type()), momentum);
}

/// x -> (x - mean) / sqrt(var + eps).
class Normalise : public Function<Normalise> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const Moments& moments, double eps, const RankGroup* group) {
    const at::Tensor mean = along_channels(moments.mean, x), scale = along_channels(moments.variance.add(eps).rsqrt(), x);
    context->save_for_backward({x, mean, scale});
    context->saved_data["count"] = moments.count;
    context->saved_data["group"] = reinterpret_cast<std::int64_t>(group);  // the backward pass may run in a thread of its own
    return x.sub(mean).mul(scale);
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const variable_list saved = context->get_saved_variables();
    const auto* const group = reinterpret_cast<const RankGroup*>(context->saved_data["group"].toInt());
    const at::Tensor &gradient = gradients[0], normalised = saved[0].sub(saved[1]).mul(saved[2]);
    const std::vector<std::int64_t> axes = other_axes(gradient);
    const auto of_channels = [&](const at::Tensor& values) { return values.sum(at::IntArrayRef(axes)); };
    const std::int64_t channels = gradient.size(1);
    at::Tensor sums = at::cat({of_channels(gradient), of_channels(gradient.mul(normalised))}).to(at::kDouble);
    group->sum(sums);
    sums.div_(context->saved_data["count"].toDouble());
    const at::Tensor mean = along_channels(sums.narrow(0, 0, channels), gradient);
    const at::Tensor slope = along_channels(sums.narrow(0, channels, channels), gradient);
    return {gradient.sub(mean).sub(normalised.mul(slope)).mul(saved[2]), at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

at::Tensor batch_norm(const at::Tensor& input, const OptionalTensor& weight, const OptionalTensor& bias, const OptionalTensor& running_mean,
                      const OptionalTensor& running_variance, bool training, double momentum, double eps, bool cudnn) {
  const RankGroup* const group = synchronised_with;
  if (group == nullptr || !training) {
    return at::native::batch_norm(input, weight, bias, running_mean, running_variance, training, momentum, eps, cudnn);
  }
  const at::Tensor x = input.scalar_type() == at::kDouble ? input : input.to(at::kFloat);
  Moments moments;
  {
    const at::NoGradGuard no_grad;
    moments = moments_of(x, *group);
    update_running(running_mean, moments.mean, momentum);
    update_running(running_variance, moments.variance.mul(moments.count / (moments.count - 1)), momentum);
  }
  at::Tensor y = Normalise::apply(x, moments, eps, group);
  if (weight && weight->defined()) y = y.mul(along_channels(*weight, y));
  if (bias && bias->defined()) y = y.add(along_channels(*bias, y));
  return y.to(input.scalar_type());
}

/// LibTorch makes it of a batch normalisation over all rows' channels.
at::Tensor instance_norm(const at::Tensor& input, const OptionalTensor& weight, const OptionalTensor& bias, const OptionalTensor& running_mean,
                         const OptionalTensor& running_variance, bool use_input_stats, double momentum, double eps, bool cudnn) {
  const SynchronisedBatchNorm alone(nullptr);
  return at::native::instance_norm(input, weight, bias, running_mean, running_variance, use_input_stats, momentum, eps, cudnn);
}

/// Once per process. Both operators are composed of others, so they have no kernel of their own under these keys.
void replace_operators() {
  static const auto libraries = [] {
    std::vector<torch::Library> made;
    for (const c10::DispatchKey key : {c10::DispatchKey::AutogradCPU, c10::DispatchKey::AutogradCUDA}) {
      torch::Library& library = made.emplace_back(torch::Library::IMPL, "aten", key, __FILE__, __LINE__);
      library.impl("batch_norm", TORCH_FN(batch_norm));
      library.impl("instance_norm", TORCH_FN(instance_norm));
    }
    return made;
  }();
  (void)libraries;
}

}  // namespace

SynchronisedBatchNorm::SynchronisedBatchNorm(const RankGroup* group) : before_(synchronised_with) {
  if (group != nullptr) replace_operators();
  synchronised_with = group;
}

SynchronisedBatchNorm::~SynchronisedBatchNorm() { synchronised_with = before_; }

}  // namespace fusion
