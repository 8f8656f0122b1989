#pragma once

#include <chrono>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <exception>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "base/asio.h"
#include "base/metrics.h"
#include "store/reader_gate.h"
#include "store/store_reader.h"

namespace fusion {

/// What a pool of readers has done since it began; any thread may read it.
struct ReaderFigures {
  explicit ReaderFigures(int threads_) : threads(threads_) {}
  const int threads;
  Counter asked, answered, failed;
  DurationHistogram took;  ///< from when a query was asked until it was answered
};

/// Who asks: the API's own pages, which are small, or somebody's SQL, which may scan everything. The latter has threads of its own, so that pages
/// do not wait for it, and where processors are short these come behind all others and give way to the store's thread, so that workers do not either.
enum class Asker { page, person };

/// Read-only queries on threads of their own, each with its own connection, so that nobody waits for them.
class ReaderPool {
 public:
  using Done = std::function<void(nlohmann::json result, std::exception_ptr error)>;

  /// So many threads for pages, and `people_threads` for SQL. Connections are opened by the threads that use them, on first use. Each query takes a turn at the
  /// gate, if there is one, so that the log can be emptied although somebody always asks.
  ReaderPool(std::string database, int threads, ReaderGate* gate = nullptr, const RightOfWay* way = nullptr)
      : figures_(threads + people_threads(threads)),
        database_(std::move(database)),
        gate_(gate),
        way_(way),
        pages_(static_cast<std::size_t>(threads)),
        people_(static_cast<std::size_t>(people_threads(threads))) {}
  ~ReaderPool() { join(); }

  /// Drops what has not begun and waits for the rest.
  void join() {
    pages_.stop();
    people_.stop();
    pages_.join();
    people_.join();
  }

  /// `work` on a reader thread; `done` on `executor`.
  void async(asio::any_io_executor executor, std::function<nlohmann::json(const StoreReader&)> work, Done done, Asker asker = Asker::page) {
    figures_.asked.add();
    asio::thread_pool& threads = asker == Asker::page ? pages_ : people_;
    asio::post(threads, [this, executor, asker, work = std::move(work), done = std::move(done), asked = std::chrono::steady_clock::now()]() mutable {
      nlohmann::json result;
      std::exception_ptr error;
      try {
        thread_local std::string opened;
        thread_local std::optional<StoreReader> reader;
        if (opened.empty() && asker == Asker::person) ::setpriority(PRIO_PROCESS, static_cast<id_t>(::gettid()), kNice);  // of the thread: Linux
        if (!reader || opened != database_) {
          reader.emplace(StoreReader::open(database_));
          if (asker == Asker::person) reader->give_way(way_);
          opened = database_;
        }
        const ReaderGate::Turn turn(gate_);
        result = work(*reader);
      } catch (...) {
        error = std::current_exception();
        figures_.failed.add();
      }
      figures_.took.add(std::chrono::steady_clock::now() - asked);
      figures_.answered.add();
      asio::post(executor, [result = std::move(result), error = std::move(error), done = std::move(done)]() mutable {
        done(std::move(result), error);
      });
    });
  }

  const ReaderFigures& figures() const { return figures_; }

  /// As many as for pages, but on half of the processors at most: with all of them busy a sync to disk takes several times as long, whatever
  /// the priority of what keeps them so.
  static int people_threads(int threads) { return std::min(threads, std::max(1, static_cast<int>(std::thread::hardware_concurrency() / 2))); }

 private:
  static constexpr int kNice = 10;

  ReaderFigures figures_;
  std::string database_;
  ReaderGate* gate_;
  const RightOfWay* way_;
  asio::thread_pool pages_, people_;
};

}  // namespace fusion
