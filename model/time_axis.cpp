#include "model/time_axis.h"

#include <ATen/ops/adaptive_avg_pool1d.h>

#include <string>

#include "base/error.h"

namespace fusion {

std::optional<std::int64_t> time_axis_of(const at::Tensor& map, std::optional<std::int64_t> declared) {
  if (!declared) return map.dim() == 3 || map.dim() == 5 ? std::optional<std::int64_t>(2) : std::nullopt;
  if (*declared == 0 || map.dim() < 3) return std::nullopt;
  const std::int64_t axis = *declared > 0 ? *declared : map.dim() + *declared;
  if (axis >= 2 && axis < map.dim()) return axis;
  throw ModelError("time_axis " + std::to_string(*declared) + ": a map of " + std::to_string(map.dim()) +
                   " axes (batch and channels included) has time on axis 2 to " + std::to_string(map.dim() - 1) + ", or none (0)");
}

at::Tensor tokens_of(const at::Tensor& map, std::optional<std::int64_t> axis) {
  if (map.dim() == 1) return map.view({-1, 1, 1});
  if (map.dim() == 2) return map.unsqueeze(1);
  if (!axis) return map.flatten(2).mean(2).unsqueeze(1);
  const at::Tensor in_front = map.movedim(*axis, 1);  // [B, T, C, ...]
  return in_front.dim() == 3 ? in_front : in_front.flatten(3).mean(3);
}

at::Tensor with_length(const at::Tensor& tokens, std::int64_t length) {
  if (tokens.size(1) == length) return tokens;
  if (tokens.size(1) == 1) return tokens.expand({tokens.size(0), length, tokens.size(2)});
  return at::adaptive_avg_pool1d(tokens.transpose(1, 2), length).transpose(1, 2);
}

}  // namespace fusion
