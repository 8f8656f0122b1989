#include "model/head_pass.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include "model/dropout.h"
#include "model/random_streams.h"
#include "model/torch_compat.h"

namespace fusion {
namespace {

/// [B, ...] of 1 / (1 - p) and 0, on the CPU.
at::Tensor draw(at::IntArrayRef sizes, double p, std::uint32_t place, const HeadPass& pass) {
  const at::Tensor mask = at::empty(sizes, at::TensorOptions().dtype(c10::kFloat));
  if (mask.numel() == 0) return mask;
  const std::int64_t width = mask.numel() / sizes[0];
  fill_dropout_mask(mask.data_ptr<float>(), mask.numel(), pass.rows_seen * width, p, pass.seed, kHeadStreams + place);
  return mask;
}

}  // namespace

at::Tensor dropout(const at::Tensor& x, double p, std::uint32_t place, const HeadPass& pass) {
  if (!pass.training || p == 0) return x;
  return x.mul(draw(x.sizes(), p, place, pass).to(x.options().requires_grad(false)));
}

at::Tensor draw_kept(std::int64_t rows, std::int64_t columns, double keep, std::uint32_t place, const HeadPass& pass,
                     const at::Tensor& like) {
  const at::TensorOptions kind = like.options().requires_grad(false);
  if (keep >= 1) return at::ones({rows, columns}, kind);
  if (keep <= 0) return at::zeros({rows, columns}, kind);
  return draw({rows, columns}, 1 - keep, place, pass).gt(0).to(kind);
}

}  // namespace fusion
