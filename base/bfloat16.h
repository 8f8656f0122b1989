#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

namespace fusion {

/// `count` bfloat16 numbers (the upper halves of float32 ones) at `from`, of any alignment, as float32: exact.
inline void widen_bfloat16(const std::byte* from, std::size_t count, float* to) {
  std::size_t i = 0;
#ifdef __SSE2__
  for (; i + 8 <= count; i += 8) {
    const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + 2 * i));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i), _mm_unpacklo_epi16(_mm_setzero_si128(), halves));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i + 4), _mm_unpackhi_epi16(_mm_setzero_si128(), halves));
  }
#endif
  for (; i < count; ++i) {
    std::uint16_t half;
    std::memcpy(&half, from + 2 * i, sizeof half);
    const std::uint32_t bits = std::uint32_t{half} << 16;
    std::memcpy(to + i, &bits, sizeof bits);
  }
}

}  // namespace fusion
