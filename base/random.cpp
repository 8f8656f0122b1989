#include "base/random.h"

#include <cmath>
#include <numbers>

#include "base/vector_clones.h"

namespace fusion {

std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53} * counter[0];
    const std::uint64_t p1 = std::uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<std::uint32_t>(p1 >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(p1),
               static_cast<std::uint32_t>(p0 >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(p0)};
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
  return counter;
}

namespace {
std::uint64_t finalise(std::uint64_t x) {  // SplitMix64
  x += 0x9E3779B97F4A7C15;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
  return x ^ (x >> 31);
}
}  // namespace

std::uint64_t mix(std::uint64_t a, std::uint64_t b) { return finalise(finalise(a) ^ (b * 0xD6E8FEB86659FD93)); }

std::uint64_t mix_text(std::uint64_t seed, std::string_view text) {
  std::uint64_t state = finalise(seed ^ text.size());
  for (const char c : text) state = finalise(state ^ static_cast<unsigned char>(c));
  return state;
}

std::uint32_t Rng::next_u32() {
  if (used_ == 4) {
    words_ = philox({static_cast<std::uint32_t>(block_), static_cast<std::uint32_t>(block_ >> 32),
                     static_cast<std::uint32_t>(stream_), static_cast<std::uint32_t>(stream_ >> 32)},
                    {static_cast<std::uint32_t>(seed_), static_cast<std::uint32_t>(seed_ >> 32)});
    ++block_;
    used_ = 0;
  }
  return words_[static_cast<std::size_t>(used_++)];
}

std::uint64_t Rng::next_u64() {
  const std::uint64_t high = next_u32();
  return (high << 32) | next_u32();
}

double Rng::uniform() { return static_cast<double>(next_u64() >> 11) * 0x1p-53; }

namespace {

constexpr std::size_t kBlocks = 64;  // side by side, so that the compiler makes vectors of them

/// Two numbers of each of kBlocks blocks; the block function as above.
FUSION_VECTOR_CLONES void uniforms_of_blocks(std::uint64_t first_block, std::uint64_t stream, std::uint64_t seed, double* out) {
  std::uint32_t c0[kBlocks], c1[kBlocks], c2[kBlocks], c3[kBlocks];
  for (std::size_t i = 0; i < kBlocks; ++i) {
    const std::uint64_t block = first_block + i;
    c0[i] = static_cast<std::uint32_t>(block);
    c1[i] = static_cast<std::uint32_t>(block >> 32);
    c2[i] = static_cast<std::uint32_t>(stream);
    c3[i] = static_cast<std::uint32_t>(stream >> 32);
  }
  std::uint32_t key0 = static_cast<std::uint32_t>(seed), key1 = static_cast<std::uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    for (std::size_t i = 0; i < kBlocks; ++i) {
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
  for (std::size_t i = 0; i < kBlocks; ++i) {
    out[2 * i] = static_cast<double>(((std::uint64_t{c0[i]} << 32) | c1[i]) >> 11) * 0x1p-53;
    out[2 * i + 1] = static_cast<double>(((std::uint64_t{c2[i]} << 32) | c3[i]) >> 11) * 0x1p-53;
  }
}

}  // namespace

void Rng::uniforms(std::span<double> out) {
  std::size_t done = 0;
  while (done < out.size()) {
    if (used_ == 4 && out.size() - done >= 2 * kBlocks) {
      uniforms_of_blocks(block_, stream_, seed_, out.data() + done);
      block_ += kBlocks;
      done += 2 * kBlocks;
    } else {
      out[done++] = uniform();
    }
  }
}

std::uint64_t Rng::below(std::uint64_t n) {
  const std::uint64_t threshold = (0 - n) % n;
  for (;;) {
    const unsigned __int128 product = static_cast<unsigned __int128>(next_u64()) * n;
    if (static_cast<std::uint64_t>(product) >= threshold) return static_cast<std::uint64_t>(product >> 64);
  }
}

double Rng::normal() {
  const double u = 1.0 - uniform();
  const double v = uniform();
  return std::sqrt(-2.0 * std::log(u)) * std::cos(2.0 * std::numbers::pi * v);
}

}  // namespace fusion
