#pragma once

#include <cstddef>
#include <cstdint>

namespace fusion {

/// What SQLite keeps of a file for each connection, bytes. More is no gain: the system's own cache has what they lack.
constexpr std::size_t kWriterCache = 12u << 20;  ///< leaves of the two indexes of trials whose order is random: those of 100,000 trials
constexpr std::size_t kReaderCache = 2u << 20;   ///< nothing of it outlives the next commit; it is for one query

/// SQLite's own page cache, in memory of its own, without a walk through all of it that SQLite 3.40 makes at the end of most transactions.
///
/// The walk: when SQLite balances an index it puts its pages in the order of their numbers, and swaps two by giving one of them the number
/// 262145 (the page of the lock byte) in between. Its cache remembers that as the highest number it ever held, which at the next commit, where
/// all pages behind the end of the file are dropped, has it look at every page it holds, each a miss of the processor's caches. This layer
/// passes every call on, but keeps account of the highest number itself, leaves that detour out of it, and answers a call that would
/// drop nothing.
///
/// The memory: one block, where the system has them of huge pages, for all connections of the process. A search goes from page to page at random,
/// and with pages from malloc it missed the processor's address cache with each. Once the block is used up, connections throw out a page for
/// each they read, and take memory from malloc only where they hold none to throw out.
///
/// The first call decides, and must come before SQLite's first use in the process; what it returned later ones return. False: SQLite was in use
/// already, or refuses, or there is no memory for the block; all works without. Database calls it without a block; a daemon before
/// that with the size that `page_block` gives. Any thread.
bool use_page_cache(std::size_t block_bytes = 0);

/// For one writer, so many readers, and the temporary tables of queries. More than 32 readers share. All of it is resident from SQLite's first use on.
std::size_t page_block(int readers);

/// Of all caches of this process.
struct PageCacheFigures {
  std::int64_t detours = 0;  ///< pages that were given a number beyond all others for a moment
  std::int64_t walks = 0;    ///< made, for pages behind the end of the file: through what a cache holds, or a part of it
};
PageCacheFigures page_cache_figures();

}  // namespace fusion
