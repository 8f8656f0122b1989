#pragma once

#include <chrono>
#include <exception>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
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

/// Read-only queries on threads of their own, each with its own connection, so that nobody waits for them.
class ReaderPool {
 public:
  using Done = std::function<void(nlohmann::json result, std::exception_ptr error)>;

  /// Connections are opened by the threads that use them, on first use. Each query takes a turn at the gate, if there is one, so that the log
  /// can be emptied although somebody always asks.
  ReaderPool(std::string database, int threads, ReaderGate* gate = nullptr)
      : figures_(threads), database_(std::move(database)), gate_(gate), pool_(static_cast<std::size_t>(threads)) {}
  ~ReaderPool() { join(); }

  /// Drops what has not begun and waits for the rest.
  void join() {
    pool_.stop();
    pool_.join();
  }

  /// `work` on a reader thread; `done` on `executor`.
  void async(asio::any_io_executor executor, std::function<nlohmann::json(const StoreReader&)> work, Done done) {
    figures_.asked.add();
    asio::post(pool_, [this, executor, work = std::move(work), done = std::move(done), asked = std::chrono::steady_clock::now()]() mutable {
      nlohmann::json result;
      std::exception_ptr error;
      try {
        thread_local std::string opened;
        thread_local std::optional<StoreReader> reader;
        if (!reader || opened != database_) {
          reader.emplace(StoreReader::open(database_));
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
      asio::post(executor, [result = std::move(result), error, done = std::move(done)]() mutable {
        done(std::move(result), error);
      });
    });
  }

  const ReaderFigures& figures() const { return figures_; }

 private:
  ReaderFigures figures_;
  std::string database_;
  ReaderGate* gate_;
  asio::thread_pool pool_;
};

}  // namespace fusion
