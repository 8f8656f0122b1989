#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

namespace fusion {

/// Which axis of a tap's map [B, C, ...] is time.
///
/// `declared` is a modality's `time_axis` (docs/data.md): 0 means none, 2 or more counts from the front, a negative number from the back.
/// Without a declaration [B, C, T] has axis 2 and a video [B, C, T, H, W] axis 2; an image [B, C, H, W] and a vector have none, since
/// nothing tells a spectrogram from a picture. nullopt: the map has no time.
/// Throws ModelError if the declared axis is not there.
std::optional<std::int64_t> time_axis_of(const at::Tensor& map, std::optional<std::int64_t> declared);

/// Tokens [B, T, C] of a map: the mean over everything but batch, channels and time. Without time: [B, 1, C].
at::Tensor tokens_of(const at::Tensor& map, std::optional<std::int64_t> axis);

/// Tokens [B, T', C] as [B, T, C]: T' = 1 is repeated, a longer sequence is averaged adaptively (time step t is the mean of the steps
/// floor(t T' / T) to ceil((t + 1) T' / T)).
at::Tensor with_length(const at::Tensor& tokens, std::int64_t length);

}  // namespace fusion
