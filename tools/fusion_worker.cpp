#include <sys/resource.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "base/files.h"
#include "base/log.h"
#include "base/version.h"
#include "model/device.h"
#include "model/torch_compat.h"
#include "tools/run_main.h"
#include "tools/worker_trainer.h"
#include "workers/client/worker_client.h"

namespace {

/// OpenBLAS and OpenMP read their thread counts when they are loaded, before main: set them and begin again.
void pin_threads(char** argv) {
  if (std::getenv("OMP_NUM_THREADS") != nullptr && std::getenv("OPENBLAS_NUM_THREADS") != nullptr) return;
  ::setenv("OMP_NUM_THREADS", "1", 0);
  ::setenv("OPENBLAS_NUM_THREADS", "1", 0);
  ::execv("/proc/self/exe", argv);  // if that fails, go on with more threads than are good
}

std::string host_name() {
  char name[256] = "";
  ::gethostname(name, sizeof name - 1);
  return name;
}

std::string read_token(const std::string& file) {
  if (!file.empty()) {
    std::string token = fusion::read_text(file);
    while (!token.empty() && (token.back() == '\n' || token.back() == ' ')) token.pop_back();
    return token;
  }
  const char* token = std::getenv("FUSION_TOKEN");
  return token != nullptr ? token : "";
}

}  // namespace

int main(int argc, char** argv) {
  using namespace fusion;  // NOLINT: main only
  pin_threads(argv);
  CLI::App app{"fusion-worker: trains the trials a fusiond leases to it. Connects out, reconnects for ever, keeps results until they are "
               "acknowledged; SIGTERM gives back what is unfinished and exits 0."};
  app.set_version_flag("--version", std::string("fusion-worker ") + kCodeVersion + ", LibTorch " + compat::kTorchVersion);
  WorkerClientOptions options;
  if (const char* url = std::getenv("FUSION_URL")) options.url = url;
  double grace_s = 0;
  std::string log_level = "info", token_file;
  options.hello.name = host_name() + "-" + std::to_string(::getpid());
  options.hello.device = "cpu";
  app.add_option("--connect", options.url, "The daemon (or the environment's FUSION_URL)")->capture_default_str();
  app.add_option("--name", options.hello.name, "A name of its own, unique among the workers");
  app.add_option("--device", options.hello.device, "cpu or cuda:N")->capture_default_str();
  app.add_option("--slots", options.hello.slots, "Trials to hold at once")->check(CLI::Range(1, 4096))->capture_default_str();
  app.add_option("--grace-s", grace_s, "After SIGTERM, how long the running trial may go on before it is given back")
      ->check(CLI::Range(0.0, 86'400.0))
      ->capture_default_str();
  app.add_option("--token-file", token_file, "A file with the worker's token (or the environment's FUSION_TOKEN)");
  app.add_option("--log-level", log_level, "trace, debug, info, warn, error, off")->capture_default_str();

  return run_main("fusion-worker", app, argc, argv, [&] {
    configure_logs(log_level);
    options.token = read_token(token_file);
    options.grace = std::chrono::milliseconds(static_cast<std::int64_t>(grace_s * 1000));
    device_from_text(options.hello.device);  // refuses one that is not there before anything else
    prepare_training_thread();
    options.hello.host = host_name();
    options.hello.pid = ::getpid();
    options.hello.code_version = kCodeVersion;
    options.hello.torch_version = compat::kTorchVersion;
    WorkerTrainer trainer(options.hello.device);
    WorkerClient client(options, [&trainer](const protocol::Pack& pack, const TrialJob& job, std::stop_token stop,
                                            const std::function<void(const EpochReport&)>& on_epoch) {
      return trainer(pack, job, std::move(stop), on_epoch);
    });
    const int status = client.run();
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    logger("worker")->info("stopped status={} max_rss_mb={}", status, usage.ru_maxrss / 1024);
    return status;
  });
}
