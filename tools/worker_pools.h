#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "workers/launch/pool_options.h"

namespace boost::asio {
class io_context;
}

namespace fusion {

class Dispatcher;

/// Keeps each pool of workers as large as the work that there is wants it (workers/launch/pool_size.h): asks the dispatcher a few times a second what is to
/// be done, has the launchers begin more, and lets idle workers go over their own connection.
///
/// Lives on the I/O thread.
class WorkerPools {
 public:
  struct Setting {
    std::vector<PoolOptions> pools;  ///< in the order of preference
    SlurmTimes slurm;
    std::string url;                 ///< of this daemon, as processes of this host see it
    std::map<std::string, std::string> local_environment;  ///< of workers on this host, beside the pool's
    std::string worker_program;      ///< where a pool names none; default: fusion-worker beside this program
    std::string log_level = "info";
    std::filesystem::path folder;    ///< this daemon's identity towards Slurm, scripts and logs of jobs; made where a pool needs it
    /// Finds out why workers that show the token of this file would be turned away, and says it later on the I/O thread; empty where they would be let
    /// in. Asked before a pool that has one launches, so that no job is spent on a refusal. Default: they would be let in.
    std::function<void(const std::string& token_file, std::function<void(std::string)> say)> token_problem;
  };
  /// Throws ConfigError with every problem of every pool.
  WorkerPools(boost::asio::io_context& io, Dispatcher& dispatcher, Setting setting);
  ~WorkerPools();

  void start();
  /// Other tokens are valid than before.
  void tokens_changed();
  /// Sizes stay as they are: the daemon stops, and what is trained may still end.
  void hold();
  /// `drained`: the workers were told to finish what they hold; what has not begun is taken back then, whatever the pool says of the daemon's stop.
  void stop(bool drained, std::function<void()> done);
  /// docs/protocol.md, "pool".
  nlohmann::json to_json() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fusion
