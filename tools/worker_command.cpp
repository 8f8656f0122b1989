#include "tools/worker_command.h"

#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "base/error.h"

namespace fusion {

namespace {

// Trials to hold for each one in training, where --slots does not say: the next pack is there before this one ends.
constexpr int kSlotsPerTraining = 2;
constexpr const char* kSimulation = "Simulation (docs/simulation.md)";

void add_simulation(CLI::App& app, WorkerCommand& command) {
  SimulationOptions& options = command.simulation;
  app.add_option("--simulate", command.simulate, "Train nothing: scores come from a database of a study, or from formula[:N]")
      ->group(kSimulation);
  const auto add = [&](const char* name, auto& value, const char* help) {
    return app.add_option(name, value, help)->group(kSimulation)->capture_default_str()->needs("--simulate");
  };
  add("--simulate-study", command.simulate_study, "Which study of the database, where several have scores")->check(CLI::PositiveNumber)->default_str("");
  add("--simulate-seed", options.seed, "Of durations and of what goes wrong");
  add("--simulate-epoch-s", options.epoch_s, "Seconds that an epoch takes");
  add("--simulate-spread", options.spread, "An epoch takes up to this share more or less");
  add("--simulate-failures", options.failures, "Share of attempts that fail");
  add("--simulate-oom", options.oom, "Share of attempts that end out of memory");
  add("--simulate-preemptions", options.preemptions, "Share of attempts that are preempted");
  add("--simulate-crashes", options.crashes, "Share of attempts amid which this process dies as if by kill -9");
}

}  // namespace

const char* WorkerCommand::description() {
  return "fusion-worker: trains the trials that a fusiond leases to it. Connects out, reconnects for ever, keeps results until they "
         "are acknowledged. SIGTERM and the like: gives back what is unfinished.";
}

void WorkerCommand::add_options(CLI::App& app) {
  app.footer("Exit status: 0 it left as asked (a signal, unless --leave-status names another status; a daemon that drains its workers); 1 its device is "
             "lost, or an internal error; 2 bad input, or refused by the daemon: starting it again is no use; 130 ended at once by a second SIGINT.");
  surroundings.add_options(app);
  blobs.add_options(app);
  devices.add_options(app);
  app.add_option("--name", client.name, "A name of its own, unique among the workers [<host>-<pid>]");
  app.add_option("--device", client.device, "cpu or cuda:N")->capture_default_str();
  app.add_option("--pack", pack, "Trials to train together [8 on cpu; on cuda one per 64 MB of free memory, 8 to 256, which follows that]")->check(CLI::Range(1, 32'768));
  app.add_option("--slots", slots, "Trials to hold, in training or waiting: at least --pack [2 x pack]")->check(CLI::Range(1, 65'536));
  app.add_option("--journal", journal, "Append to this file what the daemon said and was told, a JSON object per line");
  app.add_option("--log-level", log_level, "trace, debug, info, warn, error, off")->capture_default_str();
  app.add_flag("--die-with-parent", die_with_parent, "Leave when the process that started this one is gone");
  add_simulation(app, *this);
}

void WorkerCommand::finish() {
  simulation.check();
  surroundings.apply(client);
  client.journal = journal;
}

int WorkerCommand::pack_on_gpu(std::int64_t usable_bytes) {
  constexpr std::int64_t kBytesOfTrial = 64 << 20, kStep = 8;
  return static_cast<int>(std::clamp<std::int64_t>(usable_bytes / kBytesOfTrial / kStep * kStep, kStep, kMostPackOnGpu));
}

WorkerClient::Size WorkerCommand::size_of(int usual_pack) const {
  int at_once = pack > 0 ? pack : usual_pack;
  if (slots > 0 && pack == 0) at_once = std::min(at_once, slots);
  return {at_once, slots > 0 ? slots : kSlotsPerTraining * at_once};
}

std::optional<WorkerClient::Size> WorkerCommand::size_on_gpu(std::int64_t usable_bytes) const {
  return pack > 0 ? std::nullopt : std::optional(size_of(pack_on_gpu(usable_bytes)));
}

void WorkerCommand::settle_pack(int usual_pack) {
  const WorkerClient::Size size = size_of(usual_pack);
  client.pack = size.pack;
  client.slots = size.slots;
  if (client.slots < client.pack) {
    throw ConfigError("--slots: expected at least --pack, which is " + std::to_string(client.pack) + ", got " + std::to_string(client.slots));
  }
}

bool die_with(pid_t parent) {
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (::getppid() != parent) return false;
  // The launcher says who it is, for it may have ended before this program could look. (Its process id may still be there: until somebody
  // waits for it, a dead process has one.)
  const char* launcher = std::getenv("FUSION_PARENT_PID");
  const pid_t named = launcher != nullptr ? std::atoi(launcher) : 0;
  return named <= 0 || ::getppid() == named;
}

}  // namespace fusion
