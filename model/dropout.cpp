#include "model/dropout.h"

#include <algorithm>
#include <array>

#include "model/random_streams.h"

// Philox4x32-10 as in base/random.cpp (a test holds the two together), with many counters side by side: element e takes word e % 4 of
// the block with counter {e / 4, stream}. Integer arithmetic only, so every instruction set gives the same bits.

namespace fusion {
namespace {

constexpr int kLanes = 64;  // blocks at a time; with fewer, GCC unrolls the loops below before it can vectorise them
using Words = std::array<std::uint32_t, kLanes>;

[[gnu::target_clones("avx512f", "avx2", "default")]] void make_blocks(std::uint64_t first_block, std::uint64_t stream,
                                                                      std::uint64_t seed, std::uint32_t threshold, float kept,
                                                                      float* out) {
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

}  // namespace

void fill_dropout_mask(float* out, std::int64_t count, std::int64_t first, double p, std::uint64_t seed, std::uint32_t step) {
  const auto threshold = static_cast<std::uint32_t>(std::min(p * 0x1p32, 4294967295.0));
  const auto kept = static_cast<float>(1.0 / (1.0 - p));
  const std::uint64_t stream = random_stream(StreamKind::dropout, step);
  constexpr std::int64_t kElements = 4 * kLanes;
  for (std::int64_t done = 0; done < count;) {
    const std::int64_t element = first + done;
    const std::int64_t skipped = element % 4;
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
