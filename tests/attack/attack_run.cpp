#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/version.h"
#include "tests/attack/attacks.h"
#include "tests/attack/floods.h"
#include "tests/attack/honest.h"
#include "tools/run_main.h"

// Starts a real fusiond and attacks it, while honest clients go on asking: docs/security.md.

namespace {

using namespace fusion;          // NOLINT: main only
using namespace fusion::attack;  // NOLINT
using nlohmann::json;

constexpr std::size_t kUnproven = 1'024, kPerAddress = 1'024;
constexpr std::size_t kOwn = 64;  // descriptors of the daemon for honest clients, its database and its tokens while it reads them
constexpr std::chrono::milliseconds kHold{2'000};
constexpr unsigned kWatchdogS = 540;

struct Options {
  int half_open = 10'000, slow = 200, honest = 2;
  double memory_mb = 256;
  bool json = false;
};

struct Report {
  std::vector<Row> rows;
  double before_mb = 0, peak_mb = 0, allowed_mb = 0;
  Served newcomers, steady, worker;
  bool alive = false;
  std::uint64_t failed() const { return newcomers.failed + steady.failed + worker.failed; }
  bool ok() const {
    bool all = alive && peak_mb < allowed_mb && failed() == 0 && !newcomers.waited_ms.empty() && !worker.waited_ms.empty();
    for (const Row& row : rows) all = all && row.ok;
    return all;
  }
};

void add(std::vector<Row>& rows, std::vector<Row> more) {
  for (Row& row : more) {
    std::string got;
    for (const auto& [came, times] : row.got) got += " [" + came + "]";
    std::fprintf(stderr, "%s %s:%s\n", row.ok ? "ok  " : "BAD ", row.name.c_str(), got.c_str());
    rows.push_back(std::move(row));
  }
}

Report run(const Options& options, const std::string& fusiond) {
  // Short limits, so that slow clients are waited for briefly.
  Target target(fusiond, {{"request_s", 4}, {"handshake_s", 4}, {"connections_unproven", kUnproven}, {"connections_per_address", kPerAddress}});
  prepare(target);
  Report report;
  report.allowed_mb = options.memory_mb;
  report.before_mb = target.resident_mb();
  HonestClients honest(target, options.honest);
  add(report.rows, attack_tokens(target));
  add(report.rows, attack_requests(target));
  add(report.rows, attack_paths(target));
  add(report.rows, attack_files(target));
  add(report.rows, attack_frames(target));
  add(report.rows, attack_leases(target, honest.held()));
  add(report.rows, slow_clients(target, options.slow, std::chrono::seconds(120)));
  const std::string count = std::to_string(options.half_open) + " half-open connections";
  add(report.rows, {flood(target, count + " over loopback", kLoopback, options.half_open, kUnproven + kOwn, kHold)});
  if (const std::string address = own_address(); !address.empty()) {
    add(report.rows, {flood(target, count + " of one address", address, options.half_open, kPerAddress + kOwn, kHold)});
  }
  honest.stop();
  report.newcomers = honest.newcomers();
  report.steady = honest.steady();
  report.worker = honest.worker();
  report.alive = target.running();
  report.peak_mb = target.peak_mb();
  return report;
}

json json_of(const Served& served) {
  json document{{"requests", served.waited_ms.size()}, {"failed", served.failed}, {"p50_ms", served.quantile_ms(0.5)},
                {"p99_ms", served.quantile_ms(0.99)}, {"worst_ms", served.worst_ms()}};
  if (served.failed > 0) document["first_failure"] = served.first_failure;
  return document;
}

json json_of(const Report& report) {
  json attacks = json::array();
  for (const Row& row : report.rows) attacks.push_back({{"name", row.name}, {"expected", row.expected}, {"got", row.got}, {"ok", row.ok}});
  return {{"attacks", attacks},
          {"honest", {{"new_connections", json_of(report.newcomers)}, {"kept_connection", json_of(report.steady)}, {"worker", json_of(report.worker)}}},
          {"rss_before_mb", report.before_mb},
          {"rss_peak_mb", report.peak_mb},
          {"daemon_alive", report.alive},
          {"ok", report.ok()}};
}

void print_served(const char* who, const Served& served) {
  std::printf("  %-34s %7zu requests, %llu failed, p50 %.1f ms, p99 %.1f ms, worst %.1f ms%s%s\n", who, served.waited_ms.size(),
              static_cast<unsigned long long>(served.failed), served.quantile_ms(0.5), served.quantile_ms(0.99), served.worst_ms(),
              served.failed > 0 ? "; first failure: " : "", served.first_failure.c_str());
}

void print_table(const Report& report) {
  std::printf("%-58s %5s  %-22s %s\n", "attack", "tries", "expected", "got");
  for (const Row& row : report.rows) {
    std::string got;
    for (const auto& [came, times] : row.got) got += (got.empty() ? "" : ", ") + came + " " + (row.expected.starts_with("at most") ? "" : "x ") + std::to_string(times);
    const int tries = row.got.contains("opened") ? row.got.at("opened") : row.tries();
    std::printf("%-58s %5d  %-22s %s%s\n", row.name.c_str(), tries, row.expected.c_str(), got.c_str(), row.ok ? "" : "   <-- NOT AS EXPECTED");
  }
  std::printf("honest clients meanwhile\n");
  print_served("a new TLS connection each time", report.newcomers);
  print_served("one connection kept", report.steady);
  print_served("a worker's epochs, each on disk", report.worker);
  std::printf("daemon: %s, resident %.1f MB before, %.1f MB at most (allowed: %.0f)\n", report.alive ? "runs" : "DIED", report.before_mb, report.peak_mb,
              report.allowed_mb);
  std::printf("%s\n", report.ok() ? "everything was as expected" : "NOT everything was as expected");
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"attack_run: starts a fusiond with TLS and tokens, attacks it in every way that docs/security.md names, and says what came of it and how "
               "honest clients were served meanwhile. Exit status 0 only if everything was as expected."};
  app.set_version_flag("--version", std::string("attack_run ") + kCodeVersion);
  Options options;
  std::string fusiond;
  app.add_option("--half-open", options.half_open, "Connections that never get as far as a request")->check(CLI::Range(1, 60'000))->capture_default_str();
  app.add_option("--slow", options.slow, "Clients that send a byte at a time")->check(CLI::Range(1, 1'000))->capture_default_str();
  app.add_option("--honest", options.honest, "Threads that ask with a new connection each time")->check(CLI::Range(1, 64))->capture_default_str();
  app.add_option("--memory-mb", options.memory_mb, "What the daemon may take at most")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--fusiond", fusiond, "The daemon's program [fusiond beside this one]");
  app.add_flag("--json", options.json, "Print one JSON object in place of the table");
  return run_main("attack_run", app, argc, argv, [&] {
    ::signal(SIGPIPE, SIG_IGN);
    ::alarm(kWatchdogS);  // clients block: a daemon that neither answers nor closes must not make this wait for ever
    if (fusiond.empty()) fusiond = (std::filesystem::canonical("/proc/self/exe").parent_path() / "fusiond").string();
    const std::size_t allowed = descriptors_allowed();
    if (static_cast<std::size_t>(options.half_open) + 1'000 > allowed) {
      throw ConfigError("--half-open: " + std::to_string(options.half_open) + " connections need as many descriptors and 1,000 more, and this system allows " +
                        std::to_string(allowed) + "; raise `ulimit -n`, or ask for fewer");
    }
    const Report report = run(options, fusiond);
    if (options.json) std::printf("%s\n", json_of(report).dump().c_str());
    else print_table(report);
    return report.ok() ? 0 : 1;
  });
}
