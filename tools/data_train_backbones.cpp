#include <atomic>
#include <chrono>
#include <cstdio>
#include <exception>
#include <memory>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "base/error.h"
#include "base/progress.h"
#include "tools/data_commands.h"
#include "workers/data/train_backbone.h"

namespace fusion {

namespace {

namespace fs = std::filesystem;

/// Trains the chosen modalities, up to `threads` at once, and draws one bar for all of them.
class BackboneTrainer {
 public:
  std::string dataset_file;
  BackboneTraining training;
  std::vector<std::string> only;
  int threads = 0;
  bool force = false, quiet = false;

  void run() {
    const Dataset dataset = Dataset::open(dataset_file);
    std::set<std::size_t> chosen;
    for (const std::string& name : only) chosen.insert(dataset.modality(name));
    for (std::size_t m = 0; only.empty() && m < dataset.manifest().modalities.size(); ++m) chosen.insert(m);
    for (const std::size_t m : chosen) jobs_.push_back({m, {}, nullptr, -1});
    train_all(dataset);
    for (const Job& job : jobs_) report(dataset, job);
  }

 private:
  struct Job {
    std::size_t modality;
    BackboneResult result;
    std::exception_ptr failure;
    double dev_accuracy;
  };

  fs::path file_of(const Dataset& dataset, const Job& job) const {
    return dataset.file().parent_path() / "backbones" / (dataset.manifest().modalities[job.modality].name + ".safetensors");
  }

  void train_all(const Dataset& dataset) {
    const std::size_t cores = threads > 0 ? static_cast<std::size_t>(threads) : std::max(1u, std::thread::hardware_concurrency());
    const std::size_t workers = std::min(cores, jobs_.size());
    std::atomic<std::size_t> next{0}, running{workers};
    std::vector<std::thread> pool;
    for (std::size_t w = 0; w < workers; ++w) {
      pool.emplace_back([&] {
        for (std::size_t i = next++; i < jobs_.size(); i = next++) train_one(dataset, jobs_[i]);
        --running;
      });
    }
    const std::int64_t rows = dataset.split("train").rows() * training.epochs * static_cast<std::int64_t>(jobs_.size());
    Progress progress("train-backbones", rows, "rows", quiet);
    while (running > 0) {
      progress.note(note(dataset));
      progress.set(rows_);
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    for (std::thread& thread : pool) thread.join();
    progress.note(note(dataset));
    progress.set(rows_);
    if (rows_ > 0) progress.finish();
    for (const Job& job : jobs_) {
      if (job.failure) std::rethrow_exception(job.failure);
    }
  }

  void train_one(const Dataset& dataset, Job& job) {
    try {
      job.result = train_backbone(dataset, job.modality, training, file_of(dataset, job), force,
                                  [&](std::int64_t rows, double dev_accuracy) {
                                    rows_ += rows;
                                    if (dev_accuracy < 0) return;
                                    const std::lock_guard lock(mutex_);
                                    job.dev_accuracy = dev_accuracy;
                                  });
    } catch (...) {
      job.failure = std::current_exception();
    }
  }

  std::string note(const Dataset& dataset) {
    const std::lock_guard lock(mutex_);
    std::string text;
    for (const Job& job : jobs_) {
      if (job.dev_accuracy < 0) continue;
      char figure[32];
      std::snprintf(figure, sizeof figure, " %.1f %%", 100 * job.dev_accuracy);
      text += (text.empty() ? "dev " : ", ") + dataset.manifest().modalities[job.modality].name + figure;
    }
    return text;
  }

  void report(const Dataset& dataset, const Job& job) const {
    std::printf("%s: dev %.2f %% (epoch %d)", dataset.manifest().modalities[job.modality].name.c_str(), 100 * job.result.dev_accuracy,
                job.result.best_epoch);
    if (job.result.test_accuracy >= 0) std::printf(", test %.2f %%", 100 * job.result.test_accuracy);
    std::printf("  %s%s\n", file_of(dataset, job).c_str(), job.result.reused ? "  (kept: up to date)" : "");
  }

  std::vector<Job> jobs_;
  std::atomic<std::int64_t> rows_{0};
  std::mutex mutex_;
};

}  // namespace

void add_train_backbones_command(CLI::App& app) {
  CLI::App* const command = app.add_subcommand("train-backbones", "train one LeNet per modality, each by itself");
  const auto trainer = std::make_shared<BackboneTrainer>();
  BackboneTraining& t = trainer->training;
  command->add_option("dataset", trainer->dataset_file, "dataset.json")->required();
  command->add_option("--epochs", t.epochs, "passes over the train split (6)")->check(CLI::Range(1, 10'000));
  command->add_option("--batch", t.batch, "rows per step (64)")->check(CLI::Range(2, 65'536));
  command->add_option("--lr", t.learning_rate, "peak of the one-cycle schedule, Adam (0.01)")->check(CLI::Range(1e-8, 10.0));
  command->add_option("--channels", t.channels, "channels of the first block; each further block doubles them (3)")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1024}));
  command->add_option("--modality", trainer->only, "train this one only; may be given several times");
  command->add_option("--seed", t.seed, "seed of weights and order (0)");
  command->add_option("--threads", trainer->threads, "modalities trained at once (one per core)")->check(CLI::Range(1, 1024));
  command->add_flag("--force", trainer->force, "train again what is there and up to date");
  command->add_flag("--quiet", trainer->quiet, "no progress bar");
  command->callback([trainer] { trainer->run(); });
}

}  // namespace fusion
