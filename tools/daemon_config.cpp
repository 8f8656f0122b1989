#include "tools/daemon_config.h"

#include <algorithm>
#include <charconv>

namespace fusion {

namespace fs = std::filesystem;

namespace {

LogOptions read_log(JsonReader reader, LogOptions log) {
  log.level = reader.text("level", log.level);
  log.file = reader.text("file", log.file);
  log.max_mb = static_cast<int>(reader.integer("max_mb", 0, 1'000'000, log.max_mb));
  log.files = static_cast<int>(reader.integer("files", 1, 1000, log.files));
  log.json = reader.boolean("json", log.json);
  reader.finish();
  return log;
}

}  // namespace

DaemonConfig DaemonConfig::read(JsonReader& reader, DaemonConfig c) {
  c.db = reader.text("db", c.db);
  c.artifacts = reader.text("artifacts", c.artifacts);
  c.listen = reader.text("listen", c.listen);
  c.port_file = reader.text("port_file", c.port_file);
  for (const std::string& root : reader.texts("data_roots", std::vector<std::string>{})) c.data_roots.emplace_back(root);
  c.local_workers = static_cast<int>(reader.integer("local_workers", 0, 1024, c.local_workers));
  c.local_device = reader.text("local_device", c.local_device);
  c.worker_program = reader.text("worker_program", c.worker_program);
  c.lease_s = reader.number("lease_s", 0.5, 86'400, c.lease_s);
  c.heartbeat_s = reader.number("heartbeat_s", 0.1, 28'800, c.heartbeat_s);
  if (c.heartbeat_s > c.lease_s / 3) reader.fail("heartbeat_s", "expected at most a third of lease_s");
  c.reconnect_grace_s = reader.number("reconnect_grace_s", 0, 600, c.reconnect_grace_s);
  c.search_threads = static_cast<int>(reader.integer("search_threads", 1, 256, c.search_threads));
  c.reader_threads = static_cast<int>(reader.integer("reader_threads", 1, 256, c.reader_threads));
  c.security = SecurityConfig::read(reader, c.security);
  JsonReader limits = reader.object("limits");
  c.limits = Limits::read(limits, c.limits);
  JsonReader uploads = reader.object("uploads");
  c.uploads = UploadLimits::read(uploads, c.uploads);
  JsonReader wal = reader.object("wal");
  c.wal = LogLimits::read(wal, c.wal);
  c.drain_s = reader.number("drain_s", 0, 86'400, c.drain_s);
  c.log.level = reader.text("log_level", c.log.level);
  if (reader.has("log")) c.log = read_log(reader.object("log"), c.log);
  c.pools = read_pools(reader);
  for (const PoolOptions& pool : c.pools) {
    if (pool.name == "local" && c.local_workers > 0) reader.fail("pools", "expected another name than \"local\", which local_workers has");
  }
  c.slurm = SlurmTimes::read(reader.object("slurm"));
  reader.raw("$comment");
  reader.finish();
  return c;
}

nlohmann::json DaemonConfig::to_json() const {
  nlohmann::json roots = nlohmann::json::array();
  for (const fs::path& root : data_roots) roots.push_back(root.string());
  nlohmann::json document = {
          {"db", db},
          {"artifacts", artifacts},
          {"listen", listen},
          {"port_file", port_file},
          {"data_roots", roots},
          {"local_workers", local_workers},
          {"local_device", local_device},
          {"worker_program", worker_program},
          {"lease_s", lease_s},
          {"heartbeat_s", heartbeat_s},
          {"reconnect_grace_s", reconnect_grace_s},
          {"search_threads", search_threads},
          {"reader_threads", reader_threads},
          {"drain_s", drain_s},
          {"log", {{"level", log.level}, {"file", log.file}, {"max_mb", log.max_mb}, {"files", log.files}, {"json", log.json}}},
          {"limits", limits.to_json()},
          {"uploads", uploads.to_json()},
          {"wal", wal.to_json()},
          {"pools", pools_json(pools)},
          {"slurm", slurm.to_json()}};
  security.write(document);
  return document;
}

std::vector<PoolOptions> DaemonConfig::all_pools() const {
  std::vector<PoolOptions> all;
  if (local_workers > 0) {
    PoolOptions local;
    local.name = "local";
    local.min = local.max = local_workers;
    local.device = local_device;
    local.worker_program = worker_program;
    all.push_back(std::move(local));
  }
  all.insert(all.end(), pools.begin(), pools.end());
  return all;
}

fs::path DaemonConfig::artifacts_folder() const {
  const fs::path named = artifacts.empty() ? fs::path(db).parent_path() / "artifacts" : fs::path(artifacts);
  const fs::path folder = fs::weakly_canonical(fs::absolute(named));
  if (fs::exists(folder) && !fs::is_directory(folder)) {
    throw ConfigError("artifacts: expected a folder for what retrainings make, got \"" + folder.string() + "\", which is none");
  }
  return folder;
}

std::pair<std::string, std::uint16_t> DaemonConfig::endpoint() const {
  const std::size_t colon = listen.rfind(':');
  std::string address = colon == std::string::npos ? "" : listen.substr(0, colon);
  unsigned port = 65'536;
  if (colon != std::string::npos) {
    const char* end = listen.data() + listen.size();
    const auto [stop, error] = std::from_chars(listen.data() + colon + 1, end, port);
    if (error != std::errc{} || stop != end) port = 65'536;
  }
  if (address.size() > 2 && address.front() == '[' && address.back() == ']') address = address.substr(1, address.size() - 2);
  if (port > 65'535 || address.empty()) {
    throw ConfigError("listen: expected address:port such as 127.0.0.1:7878, got \"" + listen + "\"");
  }
  if (address == "localhost") address = "127.0.0.1";
  security.check_address(address);
  return {address, static_cast<std::uint16_t>(port)};
}

fs::path resolve_below(const std::vector<fs::path>& roots, const std::string& named) {
  // The system would read the name up to a zero byte only, and so another one than is checked here.
  if (std::ranges::any_of(named, [](unsigned char c) { return c < ' '; })) throw ConfigError("expected the name of a file without control characters");
  std::string shown;
  for (const fs::path& root : roots) {
    const fs::path whole_root = fs::weakly_canonical(root);
    const fs::path candidate = fs::weakly_canonical(fs::path(named).is_absolute() ? fs::path(named) : whole_root / named);
    const fs::path relative = candidate.lexically_relative(whole_root);
    const bool below = !relative.empty() && *relative.begin() != "..";
    if (below && (fs::path(named).is_absolute() || fs::exists(candidate) || roots.size() == 1)) return candidate;
    shown += (shown.empty() ? "" : ", ") + whole_root.string();
  }
  throw ConfigError("\"" + named + "\" does not lie below the daemon's data roots (" + shown +
                    "); start fusiond with --data-root for its folder");
}

}  // namespace fusion
