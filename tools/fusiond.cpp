#include <algorithm>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "base/version.h"
#include "tools/daemon.h"
#include "tools/run_main.h"

namespace {

using namespace fusion;  // NOLINT: a main program

LoopbackRule rule_named(const std::string& text) {
  const auto rule = enum_from_name<LoopbackRule>(text);
  if (!rule) throw ConfigError("--loopback: expected one of " + enum_choices<LoopbackRule>() + ", got \"" + text + "\"");
  return *rule;
}

/// The command line: what is given there wins over the configuration file.
class DaemonCommand {
 public:
  /// The command must outlive `app`.
  void add_options(CLI::App& app);
  /// Throws ConfigError or DataError with every problem.
  DaemonConfig config() const;

 private:
  void add_places(CLI::App& app);
  void add_workers(CLI::App& app);
  void add_security(CLI::App& app);
  void add_stop_and_logs(CLI::App& app);
  DaemonConfig file() const;

  /// `member` gives the place of its value in a configuration.
  template <typename Member>
  CLI::Option* add(CLI::App& app, const char* name, Member member, const char* help) {
    CLI::Option* option = app.add_option(name, member(given_), help);
    options_.emplace_back(option, [this, member](DaemonConfig& config) { member(config) = member(given_); });
    return option;
  }
  template <typename Member>
  CLI::Option* add_with_default(CLI::App& app, const char* name, Member member, const char* help) {
    return add(app, name, member, help)->capture_default_str();
  }

  std::string config_file_, loopback_rule_;
  std::vector<std::string> roots_;
  DaemonConfig given_;
  CLI::Option *lease_ = nullptr, *heartbeat_ = nullptr, *roots_given_ = nullptr, *rule_given_ = nullptr;
  std::vector<std::pair<CLI::Option*, std::function<void(DaemonConfig&)>>> options_;
};

void DaemonCommand::add_options(CLI::App& app) {
  app.add_option("--config", config_file_, "A configuration file (configs/README.md); options on the command line win");
  add_places(app);
  add_workers(app);
  add_security(app);
  add_stop_and_logs(app);
}

void DaemonCommand::add_places(CLI::App& app) {
  add_with_default(app, "--db", [](auto& c) -> auto& { return c.db; }, "The database file; created if absent");
  add(app, "--artifacts", [](auto& c) -> auto& { return c.artifacts; }, "Folder of what retrainings make [artifacts beside the database]");
  add_with_default(app, "--listen", [](auto& c) -> auto& { return c.listen; },
                   "Address and port; port 0 takes a free one. Other addresses than loopback need TLS and tokens");
  add(app, "--port-file", [](auto& c) -> auto& { return c.port_file; }, "Write the port taken to this file once ready");
  roots_given_ = app.add_option("--data-root", roots_, "Studies may name files below these folders only [the current folder]");
}

void DaemonCommand::add_workers(CLI::App& app) {
  add_with_default(app, "--local-workers", [](auto& c) -> auto& { return c.local_workers; }, "fusion-worker processes to start and keep alive")
      ->check(CLI::Range(0, 1024));
  add_with_default(app, "--local-device", [](auto& c) -> auto& { return c.local_device; }, "Their device: cpu, cuda:N, or cuda (spread over all)");
  add(app, "--worker-program", [](auto& c) -> auto& { return c.worker_program; }, "The worker's program [fusion-worker beside fusiond]");
  lease_ = add_with_default(app, "--lease-s", [](auto& c) -> auto& { return c.lease_s; }, "A worker silent this many seconds loses its trials");
  heartbeat_ = add_with_default(app, "--heartbeat-s", [](auto& c) -> auto& { return c.heartbeat_s; }, "How often workers say what they hold");
  add_with_default(app, "--reconnect-grace-s", [](auto& c) -> auto& { return c.reconnect_grace_s; },
                   "After a start, how long returning workers may claim their trials");
}

void DaemonCommand::add_security(CLI::App& app) {
  add(app, "--tls-certificate", [](auto& c) -> auto& { return c.security.certificate; },
      "Speak TLS with this certificate (PEM; fusionctl certs makes one)");
  add(app, "--tls-key", [](auto& c) -> auto& { return c.security.key; }, "Its key (PEM, mode 0600)");
  add(app, "--tokens", [](auto& c) -> auto& { return c.security.tokens; },
      "File of tokens, mode 0600 (fusionctl tokens add); read again when it changes");
  rule_given_ = app.add_option("--loopback", loopback_rule_,
                               "Who needs no token over loopback: same_user (processes of your own user) or token (nobody) [token]");
}

void DaemonCommand::add_stop_and_logs(CLI::App& app) {
  add_with_default(app, "--drain", [](auto& c) -> auto& { return c.drain_s; },
                   "When it stops: seconds in which results of what is being trained are awaited");
  add(app, "--log-file", [](auto& c) -> auto& { return c.log.file; }, "Append the log to this file [stderr]; SIGHUP opens it anew");
  add_with_default(app, "--log-level", [](auto& c) -> auto& { return c.log.level; }, "trace, debug, info, warn, error, off");
}

DaemonConfig DaemonCommand::file() const {
  if (config_file_.empty()) return {};
  const auto document = parse_json_file(config_file_);
  JsonProblems problems;
  JsonReader reader(document, config_file_, problems);
  DaemonConfig config = DaemonConfig::read(reader, {});
  problems.throw_if_any();
  return config;
}

DaemonConfig DaemonCommand::config() const {
  DaemonConfig config = file();
  for (const auto& [option, take] : options_) {
    if (*option) take(config);
  }
  if (*roots_given_) config.data_roots.assign(roots_.begin(), roots_.end());
  if (*rule_given_) config.security.loopback = rule_named(loopback_rule_);
  if (*lease_ && !*heartbeat_) config.heartbeat_s = std::min(config.heartbeat_s, config.lease_s / 3);
  // The sum of both sources is held to the same ranges as the file alone.
  const auto whole = config.to_json();
  JsonProblems problems;
  JsonReader reader(whole, "fusiond", problems);
  DaemonConfig::read(reader, DaemonConfig{});
  problems.throw_if_any();
  return config;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"fusiond: the daemon of a search for fusion architectures. Proposes trials, leases them to workers, keeps every "
               "architecture and score in SQLite. fusionctl talks to it."};
  app.footer("Exit status: 0 it stopped as asked (SIGTERM, SIGINT, fusionctl shutdown); 1 the database could not be written, or an internal error: "
             "starting it again is right; 2 bad input, each problem on a line: starting it again is no use; 143 or 130 ended at once by a second "
             "SIGTERM or SIGINT. docs/operations.md says more.");
  app.set_version_flag("--version", std::string("fusiond ") + kCodeVersion);
  DaemonCommand command;
  command.add_options(app);

  return run_main("fusiond", app, argc, argv, [&] {
    const DaemonConfig config = command.config();
    configure_logs(config.log);
    Daemon daemon(config);
    return daemon.run();
  });
}
