// vfs_sweep: a small study through the daemon, with every single operation on the disk failing once.
#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "tests/faults/sweep.h"
#include "tools/run_main.h"

namespace {

using namespace fusion;
using namespace fusion::testing;
using nlohmann::json;

struct Options {
  std::vector<std::string> kinds;
  std::int64_t stride = 1;
  bool json = false, sentences = false;
};

std::vector<FaultKind> kinds_of(const Options& options) {
  std::vector<FaultKind> kinds;
  std::vector<std::string> problems;
  for (const auto& [kind, name] : EnumNames<FaultKind>::kTable) {
    if (options.kinds.empty()) kinds.push_back(kind);
  }
  for (const std::string& name : options.kinds) {
    const auto kind = enum_from_name<FaultKind>(name);
    if (kind) kinds.push_back(*kind);
    else problems.push_back("--kind: expected one of " + enum_choices<FaultKind>() + ", got \"" + name + "\"");
  }
  if (!problems.empty()) throw ConfigError(problems);
  return kinds;
}

void print_line(const std::string& name, const SweepTotals& totals) {
  std::printf("%-34s %7lld %11lld %8lld %11lld\n", name.c_str(), static_cast<long long>(totals.points), static_cast<long long>(totals.carried_on),
              static_cast<long long>(totals.stopped), static_cast<long long>(totals.violations));
  std::fflush(stdout);
}

json to_json(const SweepTotals& totals) {
  return {{"points", totals.points}, {"carried_on", totals.carried_on}, {"stopped", totals.stopped}, {"violations", totals.violations},
          {"sentences", totals.sentences}};
}

void add(SweepTotals& all, const SweepTotals& totals) {
  all.points += totals.points;
  all.carried_on += totals.carried_on;
  all.stopped += totals.stopped;
  all.violations += totals.violations;
}

/// One kind of fault in one scene: a line of the table.
SweepTotals sweep_kind(Sweep& sweep, Scene scene, FaultKind kind, const std::string& name, const Options& options) {
  const SweepTotals totals = sweep.run_all(scene, kind, options.stride, [&](std::int64_t nth, const SweepRun& run) {
    for (const std::string& violation : run.violations) {
      std::fprintf(stderr, "vfs_sweep: %s %lld: %s\n", name.c_str(), static_cast<long long>(nth), violation.c_str());
    }
  });
  print_line(name, totals);
  for (const auto& [sentence, count] : totals.sentences) {
    if (options.sentences) std::printf("  %5lld x  %s\n", static_cast<long long>(count), sentence.c_str());
  }
  return totals;
}

int sweep_all(const Options& options) {
  const std::vector<FaultKind> wanted = kinds_of(options);
  Sweep sweep;
  SweepTotals all;
  json kinds = json::object();
  std::printf("%-34s %7s %11s %8s %11s\n", "fault", "points", "carried on", "stopped", "violations");
  for (const FaultKind kind : wanted) {
    for (const auto& [scene, suffix] : {std::pair(Scene::new_database, ""), {Scene::after_a_crash, " after a crash"}}) {
      const std::string name = std::string(name_of(kind)) + suffix;
      const SweepTotals totals = sweep_kind(sweep, scene, kind, name, options);
      kinds[name] = to_json(totals);
      add(all, totals);
    }
  }
  print_line("all", all);
  if (options.json) {
    json last = to_json(all);
    last.erase("sentences");
    last["kinds"] = kinds;
    std::printf("%s\n", last.dump(-1, ' ', false, json::error_handler_t::replace).c_str());
  }
  return all.violations == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"vfs_sweep: runs a small study through the daemon again and again, each time with another operation on the disk failing, and checks "
               "that nothing that was acknowledged is lost and that the database opens clean. Exit status 0 if so, 1 if not."};
  Options options;
  app.add_option("--kind", options.kinds, "only this kind of fault; may be repeated")->take_all()->expected(1);
  app.add_option("--stride", options.stride, "only every so manyth operation of a kind")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_flag("--sentences", options.sentences, "print what daemons said that stopped");
  app.add_flag("--json", options.json, "the last line is one JSON object");
  return run_main("vfs_sweep", app, argc, argv, [&] { return sweep_all(options); });
}
