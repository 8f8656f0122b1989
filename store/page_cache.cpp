#include "store/page_cache.h"

#include <sqlite3.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <new>

namespace fusion {
namespace {

constexpr std::size_t kPageBytes = 4096;
constexpr std::size_t kHugePage = 2u << 20;
constexpr std::size_t kTemporary = 4u << 20;

sqlite3_pcache_methods2 real;  // written once, before SQLite is used
std::atomic<std::int64_t> detours, walks;

/// What SQLite holds as its `sqlite3_pcache*`.
struct Cache {
  sqlite3_pcache* inner;
  unsigned highest = 0;  ///< no page has a higher number, but for one that is `away`
  unsigned away = 0;     ///< the number it has there; 0: none is
};

Cache& cache_of(sqlite3_pcache* handle) { return *reinterpret_cast<Cache*>(handle); }
sqlite3_pcache* inner_of(sqlite3_pcache* handle) { return cache_of(handle).inner; }

sqlite3_pcache* create(int page_bytes, int extra_bytes, int purgeable) {
  void* memory = sqlite3_malloc(sizeof(Cache));
  if (memory == nullptr) return nullptr;
  sqlite3_pcache* inner = real.xCreate(page_bytes, extra_bytes, purgeable);
  if (inner == nullptr) {
    sqlite3_free(memory);
    return nullptr;
  }
  return reinterpret_cast<sqlite3_pcache*>(new (memory) Cache{inner});
}

sqlite3_pcache_page* fetch(sqlite3_pcache* handle, unsigned key, int create_flag) {
  Cache& cache = cache_of(handle);
  sqlite3_pcache_page* page = real.xFetch(cache.inner, key, create_flag);
  if (page != nullptr) cache.highest = std::max(cache.highest, key);
  return page;
}

void rekey(sqlite3_pcache* handle, sqlite3_pcache_page* page, unsigned from, unsigned to) {
  Cache& cache = cache_of(handle);
  real.xRekey(cache.inner, page, from, to);
  if (from == cache.away) cache.away = 0;
  if (to <= cache.highest) return;
  if (cache.away == 0) {
    cache.away = to;
    detours.fetch_add(1, std::memory_order_relaxed);
  } else {
    cache.highest = to;
  }
}

// Drops every page from number `first` on.
void truncate(sqlite3_pcache* handle, unsigned first) {
  Cache& cache = cache_of(handle);
  if (first > cache.highest && cache.away < first) return;
  walks.fetch_add(1, std::memory_order_relaxed);
  real.xTruncate(cache.inner, first);
  cache.highest = std::min(cache.highest, first - 1);
  if (cache.away >= first) cache.away = 0;
}

void destroy(sqlite3_pcache* handle) {
  real.xDestroy(inner_of(handle));
  sqlite3_free(handle);
}

bool install_layer() {
  if (sqlite3_config(SQLITE_CONFIG_GETPCACHE2, &real) != SQLITE_OK) return false;
  sqlite3_pcache_methods2 ours = real;  // version, argument, xInit and xShutdown stay SQLite's
  ours.xCreate = create;
  ours.xCachesize = [](sqlite3_pcache* handle, int pages) { real.xCachesize(inner_of(handle), pages); };
  ours.xPagecount = [](sqlite3_pcache* handle) { return real.xPagecount(inner_of(handle)); };
  ours.xFetch = fetch;
  ours.xUnpin = [](sqlite3_pcache* handle, sqlite3_pcache_page* page, int discard) { real.xUnpin(inner_of(handle), page, discard); };
  ours.xRekey = rekey;
  ours.xTruncate = truncate;
  ours.xDestroy = destroy;
  ours.xShrink = [](sqlite3_pcache* handle) { real.xShrink(inner_of(handle)); };
  return sqlite3_config(SQLITE_CONFIG_PCACHE2, &ours) == SQLITE_OK;
}

// SQLite links its slots at its first use, so all of the block is resident then. It is never given back.
bool install_block(std::size_t bytes) {
  int header = 0;
  if (sqlite3_config(SQLITE_CONFIG_PCACHE_HDRSZ, &header) != SQLITE_OK) return false;
  const std::size_t slot = kPageBytes + static_cast<std::size_t>(header);
  void* memory = ::mmap(nullptr, bytes + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return false;
  std::size_t space = bytes + kHugePage;
  void* block = std::align(kHugePage, bytes, memory, space);
  ::madvise(block, bytes, MADV_HUGEPAGE);  // a system that has none says no: it works without
  return sqlite3_config(SQLITE_CONFIG_PAGECACHE, block, static_cast<int>(slot), static_cast<int>(bytes / slot)) == SQLITE_OK;
}

}  // namespace

bool use_page_cache(std::size_t block_bytes) {
  static const bool installed = install_layer() && (block_bytes == 0 || install_block(block_bytes));
  return installed;
}

std::size_t page_block(int readers) { return kWriterCache + kTemporary + static_cast<std::size_t>(std::clamp(readers, 0, 32)) * kReaderCache; }

PageCacheFigures page_cache_figures() { return {detours, walks}; }

}  // namespace fusion
