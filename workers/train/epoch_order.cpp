#include "workers/train/epoch_order.h"

#include <deque>
#include <numeric>
#include <span>

#include "base/random.h"
#include "model/random_streams.h"

namespace fusion {
namespace {

constexpr std::size_t kKept = 16;

struct Key {
  std::int64_t rows;
  bool shuffle;
  std::uint64_t order_seed;
  int epoch;
  bool operator==(const Key&) const = default;
};

}  // namespace

EpochOrder epoch_order(std::int64_t rows, bool shuffle, std::uint64_t order_seed, int epoch) {
  thread_local std::deque<std::pair<Key, EpochOrder>> kept;
  const Key key{rows, shuffle, shuffle ? order_seed : 0, shuffle ? epoch : 0};
  for (const auto& [known, order] : kept) {
    if (known == key) return order;
  }
  std::vector<std::uint32_t> order(static_cast<std::size_t>(rows));
  std::iota(order.begin(), order.end(), std::uint32_t{0});
  if (shuffle) {
    Rng rng(order_seed, random_stream(StreamKind::order, static_cast<std::uint32_t>(epoch)));
    rng.shuffle(std::span<std::uint32_t>(order));
  }
  if (kept.size() == kKept) kept.pop_front();
  return kept.emplace_back(key, std::make_shared<const std::vector<std::uint32_t>>(std::move(order))).second;
}

}  // namespace fusion
