#include <cstdio>

#include "base/error.h"
#include "base/log.h"
#include "base/version.h"
#include "tools/daemon.h"
#include "tools/keep_freed_memory.h"
#include "tools/run_main.h"

namespace {

fusion::LoopbackRule rule_named(const std::string& text) {
  const auto rule = fusion::enum_from_name<fusion::LoopbackRule>(text);
  if (!rule) throw fusion::ConfigError("--loopback: expected one of " + fusion::enum_choices<fusion::LoopbackRule>() + ", got \"" + text + "\"");
  return *rule;
}

}  // namespace

int main(int argc, char** argv) {
  using namespace fusion;  // NOLINT: main only
  keep_freed_megabytes();
  CLI::App app{"fusiond: the daemon of a search for fusion architectures. Proposes trials, leases them to workers, keeps every "
               "architecture and score in SQLite. fusionctl talks to it."};
  app.footer("Exit status: 0 it stopped as asked (SIGTERM, SIGINT, fusionctl shutdown); 1 the database could not be written, or an internal error: "
             "starting it again is right; 2 bad input, each problem on a line: starting it again is no use; 143 or 130 ended at once by a second "
             "SIGTERM or SIGINT. docs/operations.md says more.");
  app.set_version_flag("--version", std::string("fusiond ") + kCodeVersion);
  std::string config_file, rule;
  DaemonConfig given;
  std::vector<std::string> roots;
  app.add_option("--config", config_file, "A configuration file (configs/README.md); options on the command line win");
  auto* db = app.add_option("--db", given.db, "The database file; created if absent")->capture_default_str();
  auto* artifacts = app.add_option("--artifacts", given.artifacts, "Folder of what retrainings make [artifacts beside the database]");
  auto* listen = app.add_option("--listen", given.listen, "Address and port; port 0 takes a free one. Other addresses than loopback need TLS and tokens")->capture_default_str();
  auto* port_file = app.add_option("--port-file", given.port_file, "Write the port taken to this file once ready");
  auto* data_root = app.add_option("--data-root", roots, "Studies may name files below these folders only [the current folder]");
  auto* workers = app.add_option("--local-workers", given.local_workers, "fusion-worker processes to start and keep alive")
                      ->check(CLI::Range(0, 1024))
                      ->capture_default_str();
  auto* device = app.add_option("--local-device", given.local_device, "Their device: cpu, cuda:N, or cuda (spread over all)")->capture_default_str();
  auto* program = app.add_option("--worker-program", given.worker_program, "The worker's program [fusion-worker beside fusiond]");
  auto* lease = app.add_option("--lease-s", given.lease_s, "A worker silent this many seconds loses its trials")->capture_default_str();
  auto* heartbeat = app.add_option("--heartbeat-s", given.heartbeat_s, "How often workers say what they hold")->capture_default_str();
  auto* grace = app.add_option("--reconnect-grace-s", given.reconnect_grace_s, "After a start, how long returning workers may claim their trials")
                    ->capture_default_str();
  auto* certificate = app.add_option("--tls-certificate", given.security.certificate, "Speak TLS with this certificate (PEM; fusionctl certs makes one)");
  auto* key = app.add_option("--tls-key", given.security.key, "Its key (PEM, mode 0600)");
  auto* tokens = app.add_option("--tokens", given.security.tokens, "File of tokens, mode 0600 (fusionctl tokens add); read again when it changes");
  auto* loopback = app.add_option("--loopback", rule, "Who needs no token over loopback: same_user (processes of your own user) or token (nobody) [token]");
  auto* drain = app.add_option("--drain", given.drain_s, "When it stops: seconds in which results of what is being trained are awaited")
                    ->capture_default_str();
  auto* log_file = app.add_option("--log-file", given.log.file, "Append the log to this file [stderr]; SIGHUP opens it anew");
  auto* level = app.add_option("--log-level", given.log.level, "trace, debug, info, warn, error, off")->capture_default_str();

  return run_main("fusiond", app, argc, argv, [&] {
    DaemonConfig config;
    if (!config_file.empty()) {
      const auto document = parse_json_file(config_file);
      JsonProblems problems;
      JsonReader reader(document, config_file, problems);
      config = DaemonConfig::read(reader, config);
      problems.throw_if_any();
    }
    if (*db) config.db = given.db;
    if (*artifacts) config.artifacts = given.artifacts;
    if (*listen) config.listen = given.listen;
    if (*port_file) config.port_file = given.port_file;
    if (*data_root) config.data_roots.assign(roots.begin(), roots.end());
    if (*workers) config.local_workers = given.local_workers;
    if (*device) config.local_device = given.local_device;
    if (*program) config.worker_program = given.worker_program;
    if (*lease) config.lease_s = given.lease_s;
    if (*heartbeat) config.heartbeat_s = given.heartbeat_s;
    if (*grace) config.reconnect_grace_s = given.reconnect_grace_s;
    if (*certificate) config.security.certificate = given.security.certificate;
    if (*key) config.security.key = given.security.key;
    if (*tokens) config.security.tokens = given.security.tokens;
    if (*loopback) config.security.loopback = rule_named(rule);
    if (*drain) config.drain_s = given.drain_s;
    if (*log_file) config.log.file = given.log.file;
    if (*level) config.log.level = given.log.level;
    if (*lease && !*heartbeat) config.heartbeat_s = std::min(config.heartbeat_s, config.lease_s / 3);
    {
      // The sum of both sources is held to the same ranges as the file alone.
      const auto whole = config.to_json();
      JsonProblems problems;
      JsonReader reader(whole, "fusiond", problems);
      DaemonConfig::read(reader, DaemonConfig{});
      problems.throw_if_any();
    }
    configure_logs(config.log);
    Daemon daemon(config);
    return daemon.run();
  });
}
