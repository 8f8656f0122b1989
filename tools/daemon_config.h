#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "base/json_reader.h"
#include "base/log.h"
#include "security/security_config.h"
#include "store/log_keeper.h"
#include "tools/received_folder.h"
#include "workers/dispatch/limits.h"
#include "workers/launch/pool_options.h"

namespace fusion {

/// What a daemon is told: configs/daemon.json (every key in configs/README.md), then the command line on top.
struct DaemonConfig {
  std::string db = "fusion.db";               ///< the database; created if absent
  std::string artifacts;                      ///< folder of checkpoints and models of retrainings; default: artifacts beside the database
  std::string listen = "127.0.0.1:7878";      ///< address:port; port 0 takes a free one. Others than loopback need TLS and tokens
  std::string port_file;                      ///< if set, the port taken is written there once the daemon is ready
  std::vector<std::filesystem::path> data_roots;  ///< studies may name files below these only; default: the current folder
  int local_workers = 0;                      ///< fusion-worker processes the daemon starts and keeps alive
  std::string local_device = "cpu";           ///< their device; "cuda" spreads them over cuda:0, cuda:1, ...
  std::string worker_program;                 ///< default: fusion-worker beside this program
  double lease_s = 60;                        ///< a worker silent this long loses its trials
  double heartbeat_s = 10;                    ///< how often a worker says what it holds; at most a third of lease_s
  double reconnect_grace_s = 3;               ///< after a start, how long returning workers may claim what they still train
  int search_threads = 1;                     ///< strategies and surrogates of all studies
  int reader_threads = 2;                     ///< queries
  double drain_s = 3;                         ///< when it stops: how long results of what is being trained are waited for
  LogOptions log;                             ///< `log`; its level may also stand as `log_level`
  SecurityConfig security;                    ///< keys tls, tokens, loopback
  Limits limits;                              ///< key limits
  UploadLimits uploads;                       ///< what workers may send of retrainings
  LogLimits wal;                              ///< when the database's write-ahead log is moved into the file
  std::vector<PoolOptions> pools;             ///< workers by launcher; `local_workers` are one more
  SlurmTimes slurm;

  /// Reads the document over `base`. Problems go to the reader.
  static DaemonConfig read(JsonReader& reader, DaemonConfig base);
  nlohmann::json to_json() const;

  /// `pools`, and before them that of `local_workers`.
  std::vector<PoolOptions> all_pools() const;

  /// The artifacts' folder, absolute; it need not be there yet. Throws ConfigError if something else has its name.
  std::filesystem::path artifacts_folder() const;

  /// Address and port of `listen`. Throws ConfigError for what is none, and for another address than loopback without TLS and tokens.
  std::pair<std::string, std::uint16_t> endpoint() const;
};

/// The file a client named, made absolute and resolved (links too). Throws ConfigError where it lies below none of the roots.
std::filesystem::path resolve_below(const std::vector<std::filesystem::path>& roots, const std::string& named);

}  // namespace fusion
