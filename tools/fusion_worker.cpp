// The fusion-worker that people and launchers start: it reads the command line, and either simulates, or becomes fusion-worker-torch, the
// program beside it that trains. Same process, same arguments: signals, --die-with-parent and whoever waits for it notice nothing.
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#ifdef FUSION_WITH_TORCH
#include <torch/version.h>  // macros only; nothing of LibTorch is loaded here
#else
#define TORCH_VERSION "none"
#endif

#include "base/error.h"
#include "base/log.h"
#include "base/version.h"
#include "tools/run_main.h"
#include "tools/worker_command.h"
#include "workers/client/worker_client.h"
#include "workers/simulate/objective.h"
#include "workers/simulate/simulated_trainer.h"

namespace {

using namespace fusion;  // NOLINT: a main program

/// Does not return. OpenBLAS and OpenMP read their thread counts when they are loaded, so these are set before that.
void become_the_trainer(char** argv) {
  ::setenv("OMP_NUM_THREADS", "1", 0);
  ::setenv("OPENBLAS_NUM_THREADS", "1", 0);
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe").parent_path() / "fusion-worker-torch";
  ::execv(program.c_str(), argv);
  throw ConfigError(program.string() + ": the program that trains cannot be started: " + std::strerror(errno) +
                    "; a build without LibTorch has none, and can only --simulate");
}

/// Returns the exit status.
int simulate(WorkerCommand& command) {
  command.finish();
  command.devices.begin(command.client.device);
  const std::optional<std::int64_t> gpu_bytes = command.devices.usable_bytes();
  command.settle_pack(gpu_bytes ? WorkerCommand::pack_on_gpu(*gpu_bytes) : WorkerCommand::kPackOnCpu);
  command.client.processes = 0;
  command.client.torch_version = "none";
  const std::optional<StudyId> study = command.simulate_study > 0 ? std::optional(StudyId{command.simulate_study}) : std::nullopt;
  const std::shared_ptr<const SimulatedObjective> objective = make_objective(command.simulate, study, "--simulate-study");
  logger("worker")->info("simulating objective=\"{}\" epoch_s={} failures={} oom={} preemptions={} crashes={} seed={}", objective->name(),
                         command.simulation.epoch_s, command.simulation.failures, command.simulation.oom, command.simulation.preemptions,
                         command.simulation.crashes, command.simulation.seed);
  const SimulatedTrainer trainer(objective, command.simulation, static_cast<std::size_t>(gpu_bytes ? command.largest_pack() : command.client.pack));
  WorkerClient client(command.client, [&](PackSession& session) { trainer(session); }, refuse_to_simulate_retraining);
  const WorkerDevices::Watch watch = command.devices.watch(client, [&command](std::int64_t bytes) { return command.size_on_gpu(bytes); });
  const WorkerEnd end = client.run();
  return command.surroundings.exit_status(command.devices.lost() ? WorkerEnd::device_lost : end);
}

}  // namespace

int main(int argc, char** argv) {
  const pid_t parent = ::getppid();
  CLI::App app{WorkerCommand::description()};
  app.set_version_flag("--version", std::string("fusion-worker ") + kCodeVersion + ", LibTorch " + TORCH_VERSION);
  WorkerCommand command;
  command.add_options(app);

  return run_main("fusion-worker", app, argc, argv, [&] {
    if (command.devices.list_only()) return command.devices.list();
    if (command.simulate.empty()) become_the_trainer(argv);
    configure_logs(command.log_level);
    if (command.die_with_parent && !die_with(parent)) return 0;
    return simulate(command);
  });
}
