#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
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
#include "tools/worker_retrainer.h"
#include "tools/worker_surroundings.h"
#include "tools/worker_times.h"
#include "tools/worker_trainer.h"
#include "workers/client/worker_client.h"

namespace {

// Trials trained together where --pack does not say: on a core as many as share a batch's features while these are in its cache; on a
// GPU as many as its free memory suggests, before it is known how large they are. What does not fit after all the engine splits.
constexpr int kPackOnCpu = 8;
constexpr std::int64_t kGpuBytesOfTrial = 64 << 20;
constexpr std::int64_t kLeastPackOnGpu = 8, kMostPackOnGpu = 256;
// Trials to hold for each one in training, where --slots does not say: the next pack is there before this one ends.
constexpr int kSlotsPerTraining = 2;

int pack_on_gpu(std::int64_t free_bytes) {
  return static_cast<int>(std::clamp(free_bytes / kGpuBytesOfTrial, kLeastPackOnGpu, kMostPackOnGpu));
}

/// OpenBLAS and OpenMP read their thread counts when they are loaded, before main: set them and begin again.
void begin_again_with_one_thread(char** argv) {
  if (std::getenv("OMP_NUM_THREADS") != nullptr && std::getenv("OPENBLAS_NUM_THREADS") != nullptr) return;
  ::setenv("OMP_NUM_THREADS", "1", 0);
  ::setenv("OPENBLAS_NUM_THREADS", "1", 0);
  ::execv("/proc/self/exe", argv);  // if that fails, go on with more threads than are good
}

/// Has the kernel send SIGTERM when the parent ends. False if it ended before that was arranged: then nobody wants this worker.
bool die_with(pid_t parent) {
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (::getppid() != parent) return false;
  // The launcher says who it is, for it may have ended before this program could look. (Its process id may still be there: until somebody
  // waits for it, a dead process has one.)
  const char* launcher = std::getenv("FUSION_PARENT_PID");
  const pid_t named = launcher != nullptr ? std::atoi(launcher) : 0;
  return named <= 0 || ::getppid() == named;
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
  begin_again_with_one_thread(argv);
  keep_freed_memory();
  CLI::App app{"fusion-worker: trains the trials that a fusiond leases to it. Connects out, reconnects for ever, keeps results until they "
               "are acknowledged. SIGTERM and the like: gives back what is unfinished, exits 0. Exit status 2: bad input, or refused by the daemon."};
  app.set_version_flag("--version", std::string("fusion-worker ") + kCodeVersion + ", LibTorch " + compat::kTorchVersion);
  WorkerClientOptions options;
  WorkerSurroundings surroundings;
  std::string log_level = "info";
  int pack = 0, slots = 0;
  bool die_with_parent = false;
  surroundings.add_options(app);
  app.add_option("--name", options.name, "A name of its own, unique among the workers [<host>-<pid>]");
  app.add_option("--device", options.device, "cpu or cuda:N")->capture_default_str();
  app.add_option("--pack", pack, "Trials to train together [8 on cpu; on cuda one per 64 MB of free memory, 8 to 256]")->check(CLI::Range(1, 32'768));
  app.add_option("--slots", slots, "Trials to hold, in training or waiting: at least --pack [2 x pack]")->check(CLI::Range(1, 65'536));
  app.add_option("--log-level", log_level, "trace, debug, info, warn, error, off")->capture_default_str();
  app.add_flag("--die-with-parent", die_with_parent, "Leave when the process that started this one is gone");

  return run_main("fusion-worker", app, argc, argv, [&] {
    configure_logs(log_level);
    if (die_with_parent && !die_with(parent)) return 0;
    surroundings.apply(options);
    options.torch_version = compat::kTorchVersion;
    const std::optional<std::int64_t> gpu_bytes = check_training_device(options.device);  // refuses one that is not there before anything else
    options.pack = pack > 0 ? pack : gpu_bytes ? pack_on_gpu(*gpu_bytes) : kPackOnCpu;
    if (slots > 0 && pack == 0) options.pack = std::min(options.pack, slots);
    options.slots = slots > 0 ? slots : kSlotsPerTraining * options.pack;
    if (options.slots < options.pack) {
      throw ConfigError("--slots: expected at least --pack, which is " + std::to_string(options.pack) + ", got " +
                        std::to_string(options.slots));
    }
    prepare_training_thread();
    WorkerTrainer trainer(options.device, static_cast<std::size_t>(options.pack));
    const WorkerRetrainer retrainer(options.device);
    WorkerTimes times;
    const auto train = [&](PackSession& session) {
      const WorkerTimes::Pack at_work(times);
      trainer(session);
    };
    const WorkerEnd end = WorkerClient(options, train, [&](RetrainingSession& session) { retrainer(session); }).run();
    log_end(times);
    return surroundings.exit_status(end);
  });
}
