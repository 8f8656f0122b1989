#include "model/dropout.h"

#include <algorithm>
#include <array>

#include "base/vector_clones.h"
#include "model/random_streams.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

// Philox4x32-10 as in base/random.cpp (a test holds the two together), with many counters side by side: element e takes word e % 4 of
// the block with counter {e / 4, stream}. Integer arithmetic only, so every instruction set gives the same bits.

namespace fusion {
namespace {

constexpr int kLanes = 64;  // blocks at a time; with fewer, GCC unrolls the loops below before it can vectorise them
using Words = std::array<std::uint32_t, kLanes>;

FUSION_VECTOR_CLONES void make_blocks(std::uint64_t first_block, std::uint64_t stream, std::uint64_t seed,
                                      std::uint32_t threshold, float kept, float* out) {
  std::uint32_t c0[kLanes], c1[kLanes], c2[kLanes], c3[kLanes];
  for (int i = 0; i < kLanes; ++i) {
    const std::uint64_t block = first_block + static_cast<std::uint64_t>(i);
    c0[i] = static_cast<std::uint32_t>(block);
    c1[i] = static_cast<std::uint32_t>(block >> 32);
    c2[i] = static_cast<std::uint32_t>(stream);
    c3[i] = static_cast<std::uint32_t>(stream >> 32);
  }
  std::uint32_t key0 = static_cast<std::uint32_t>(seed), key1 = static_cast<std::uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    for (int i = 0; i < kLanes; ++i) {
      const std::uint64_t p0 = std::uint64_t{0xD2511F53} * c0[i];
      const std::uint64_t p1 = std::uint64_t{0xCD9E8D57} * c2[i];
      c0[i] = static_cast<std::uint32_t>(p1 >> 32) ^ c1[i] ^ key0;
      c2[i] = static_cast<std::uint32_t>(p0 >> 32) ^ c3[i] ^ key1;
      c1[i] = static_cast<std::uint32_t>(p1);
      c3[i] = static_cast<std::uint32_t>(p0);
    }
    key0 += 0x9E3779B9;
    key1 += 0xBB67AE85;
  }
  for (int i = 0; i < kLanes; ++i) {
    out[4 * i + 0] = c0[i] >= threshold ? kept : 0.0F;
    out[4 * i + 1] = c1[i] >= threshold ? kept : 0.0F;
    out[4 * i + 2] = c2[i] >= threshold ? kept : 0.0F;
    out[4 * i + 3] = c3[i] >= threshold ? kept : 0.0F;
  }
}

#if defined(__x86_64__)

constexpr int kWideBlocks = 16;  // blocks at a time, a word of each in one register

/// High and low halves of 16 products with a constant.
[[gnu::target("avx512f"), gnu::always_inline]] inline void multiply(__m512i x, __m512i factor, __m512i& high, __m512i& low) {
  const __m512i even = _mm512_mul_epu32(x, factor);
  const __m512i odd = _mm512_mul_epu32(_mm512_srli_epi64(x, 32), factor);
  high = _mm512_mask_blend_epi32(0xAAAA, _mm512_srli_epi64(even, 32), odd);
  low = _mm512_mask_blend_epi32(0xAAAA, even, _mm512_slli_epi64(odd, 32));
}

[[gnu::target("avx512f"), gnu::always_inline]] inline __m512i all(std::uint64_t word) {
  return _mm512_set1_epi32(static_cast<int>(static_cast<std::uint32_t>(word)));
}

/// Which words stay, the one of block i at bit 4 i + the word's place.
[[gnu::target("avx512f,bmi2"), gnu::always_inline]] inline std::uint64_t stays(__m512i words, __m512i limit, int place) {
  return _pdep_u64(_mm512_cmp_epu32_mask(words, limit, _MM_CMPINT_NLT), std::uint64_t{0x1111111111111111} << place);
}

/// 64 elements of 16 blocks, whose numbers have the same upper half.
[[gnu::target("avx512f,avx512dq,avx512bw,bmi2")]] void make_wide_blocks(std::uint64_t first_block, std::uint64_t stream,
                                                                       std::uint64_t seed, std::uint32_t threshold, float kept,
                                                                       float* out) {
  const __m512i lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  __m512i c0 = _mm512_add_epi32(all(first_block), lanes), c1 = all(first_block >> 32), c2 = all(stream), c3 = all(stream >> 32);
  const __m512i factor0 = _mm512_set1_epi64(0xD2511F53), factor1 = _mm512_set1_epi64(0xCD9E8D57);
  auto key0 = static_cast<std::uint32_t>(seed), key1 = static_cast<std::uint32_t>(seed >> 32);
  constexpr int kXor3 = 0x96;
#pragma GCC unroll 10
  for (int round = 0; round < 10; ++round) {
    __m512i high0, low0, high1, low1;
    multiply(c0, factor0, high0, low0);
    multiply(c2, factor1, high1, low1);
    c0 = _mm512_ternarylogic_epi32(high1, c1, all(key0), kXor3);
    c2 = _mm512_ternarylogic_epi32(high0, c3, all(key1), kXor3);
    c1 = low1;
    c3 = low0;
    key0 += 0x9E3779B9;
    key1 += 0xBB67AE85;
  }
  const __m512i limit = all(threshold);
  const std::uint64_t kept_ones = stays(c0, limit, 0) | stays(c1, limit, 1) | stays(c2, limit, 2) | stays(c3, limit, 3);
  const __m512 scale = _mm512_set1_ps(kept);
  for (int i = 0; i < 4; ++i) _mm512_storeu_ps(out + 16 * i, _mm512_maskz_mov_ps(static_cast<__mmask16>(kept_ones >> (16 * i)), scale));
}

bool has_wide_blocks() {
  static const bool has = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                          __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("bmi2");
  return has;
}

/// As many elements as can be made 64 at a time; `first` must be a multiple of 4. Returns how many.
std::int64_t fill_wide(float* out, std::int64_t count, std::int64_t first, std::uint64_t stream, std::uint64_t seed,
                       std::uint32_t threshold, float kept) {
  if (!has_wide_blocks()) return 0;
  std::int64_t done = 0;
  for (; done + 4 * kWideBlocks <= count; done += 4 * kWideBlocks) {
    const auto block = static_cast<std::uint64_t>((first + done) / 4);
    if ((block >> 32) != ((block + kWideBlocks - 1) >> 32)) break;
    make_wide_blocks(block, stream, seed, threshold, kept, out + done);
  }
  return done;
}

#else

std::int64_t fill_wide(float*, std::int64_t, std::int64_t, std::uint64_t, std::uint64_t, std::uint32_t, float) { return 0; }

#endif

}  // namespace

void fill_dropout_mask(float* out, std::int64_t count, std::int64_t first, double p, std::uint64_t seed, std::uint32_t step) {
  const auto threshold = static_cast<std::uint32_t>(std::min(p * 0x1p32, 4294967295.0));
  const auto kept = static_cast<float>(1.0 / (1.0 - p));
  const std::uint64_t stream = random_stream(StreamKind::dropout, step);
  constexpr std::int64_t kElements = 4 * kLanes;
  for (std::int64_t done = 0; done < count;) {
    const std::int64_t element = first + done;
    const std::int64_t skipped = element % 4;
    if (skipped == 0) {
      const std::int64_t made = fill_wide(out + done, count - done, element, stream, seed, threshold, kept);
      done += made;
      if (made > 0) continue;
    }
    const std::int64_t wanted = std::min(count - done, kElements - skipped);
    const auto block = static_cast<std::uint64_t>(element / 4);
    if (skipped == 0 && wanted == kElements) {
      make_blocks(block, stream, seed, threshold, kept, out + done);
    } else {
      float buffer[kElements];
      make_blocks(block, stream, seed, threshold, kept, buffer);
      std::copy_n(buffer + skipped, wanted, out + done);
    }
    done += wanted;
  }
}

}  // namespace fusion
