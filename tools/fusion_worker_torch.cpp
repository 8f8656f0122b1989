// The fusion-worker that trains. People and launchers start fusion-worker, which becomes this program (docs/worker.md, "Two programs").
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <string>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "base/version.h"
#include "model/device.h"
#include "model/torch_compat.h"
#include "tools/keep_freed_memory.h"
#include "tools/run_main.h"
#include "tools/worker_command.h"
#include "tools/worker_retrainer.h"
#include "tools/worker_times.h"
#include "tools/worker_trainer.h"
#include "workers/client/worker_client.h"

namespace {

/// What is free changes while others use the GPU too; what was asked for with --pack stays.
fusion::WorkerTrainer::Room room_on_gpu(const fusion::WorkerCommand& command) {
  const std::int64_t bytes = command.devices.usable_bytes(fusion::check_training_device(command.client.device).value_or(0));
  const int trials = command.pack > 0 ? command.pack : fusion::WorkerCommand::pack_on_gpu(bytes);
  return {static_cast<std::size_t>(trials), bytes};
}

/// OpenBLAS and OpenMP read their thread counts when they are loaded, before main: set them and begin again.
void begin_again_with_one_thread(char** argv) {
  if (std::getenv("OMP_NUM_THREADS") != nullptr && std::getenv("OPENBLAS_NUM_THREADS") != nullptr) return;
  ::setenv("OMP_NUM_THREADS", "1", 0);
  ::setenv("OPENBLAS_NUM_THREADS", "1", 0);
  ::execv("/proc/self/exe", argv);  // if that fails, go on with more threads than are good
}

void log_end(const fusion::WorkerTimes& times) {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  fusion::logger("worker")->info(
      "worker ended max_rss_mb={} packs={} busy_s={:.3f} busy_share={:.4f} gap_ms_median={:.2f} gap_ms_p99={:.2f} gap_ms_longest={:.2f}",
      usage.ru_maxrss / 1024, times.packs(), times.busy_s(), times.busy_share(), 1000 * times.gap_s(0.5), 1000 * times.gap_s(0.99),
      1000 * times.gap_s(1));
}

}  // namespace

int main(int argc, char** argv) {
  using namespace fusion;  // NOLINT: main only
  const pid_t parent = ::getppid();
  ::setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID", 0);  // NVML's order, and that of CUDA_VISIBLE_DEVICES as people mean it
  begin_again_with_one_thread(argv);
  keep_freed_memory();
  CLI::App app{WorkerCommand::description()};
  app.set_version_flag("--version", std::string("fusion-worker ") + kCodeVersion + ", LibTorch " + compat::kTorchVersion);
  WorkerCommand command;
  command.add_options(app);

  return run_main("fusion-worker", app, argc, argv, [&] {
    configure_logs(command.log_level);
    if (!command.simulate.empty()) throw ConfigError("--simulate is for fusion-worker; this program trains");
    if (command.die_with_parent && !die_with(parent)) return 0;
    command.finish();
    WorkerClientOptions& options = command.client;
    options.torch_version = compat::kTorchVersion;
    command.devices.begin(options.device);
    const std::optional<std::int64_t> gpu_bytes = check_training_device(options.device);  // refuses one that is not there before anything else
    command.settle_pack(gpu_bytes ? WorkerCommand::pack_on_gpu(command.devices.usable_bytes(*gpu_bytes)) : WorkerCommand::kPackOnCpu);
    options.processes = WorkerRetrainer::most_processes(options.device);
    prepare_training_thread();
    DatasetSource source(command.blobs.options(options));
    WorkerTrainer trainer(options.device, static_cast<std::size_t>(gpu_bytes ? command.largest_pack() : options.pack), source);
    const AskLost lost = [&command] { return command.devices.lost(); };
    trainer.set_lost(lost);
    if (gpu_bytes) trainer.set_room([&command] { return room_on_gpu(command); });
    WorkerRetrainer retrainer(options.device, source);
    retrainer.set_lost(lost);
    WorkerTimes times;
    const auto train = [&](PackSession& session) {
      const WorkerTimes::Pack at_work(times);
      trainer(session);
    };
    WorkerClient client(options, train, [&](RetrainingSession& session) { retrainer(session); });
    const WorkerDevices::Watch watch = command.devices.watch(client, [&command](std::int64_t bytes) { return command.size_on_gpu(bytes); });
    const WorkerEnd end = client.run();
    log_end(times);
    return command.surroundings.exit_status(command.devices.lost() ? WorkerEnd::device_lost : end);
  });
}
