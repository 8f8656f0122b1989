#include <ATen/Parallel.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "model/device.h"
#include "tools/bench/comparison.h"
#include "tools/bench/gpu_tables.h"
#include "tools/bench/one_thread.h"
#include "tools/run_main.h"
#include "workers/train/trainer.h"

namespace {

using namespace fusion;         // NOLINT: a program
using namespace fusion::bench;  // NOLINT

constexpr double kThoroughCpuS = 60;
constexpr std::size_t kPackOnGpu = 128;

void print_header() {
  std::printf("%-10s %9s %9s %9s  %-18s %-18s %-18s %9s %8s\n", "shape", "ours us", "LibTorch", "Python", "vs LibTorch",
              "vs Python", "GEMM share", "GFLOP/s", "c-ep/s");
}

std::string spread(const Rounds& figure) {
  if (figure.empty()) return "-";
  char text[64];
  std::snprintf(text, sizeof text, "%.2f (%.2f-%.2f)", figure.median(), figure.lowest(), figure.highest());
  return text;
}

double epochs_per_s(const Comparison& of) { return 1 / (of.engine.median() * static_cast<double>(of.shape.steps_per_epoch())); }

void print_row(const Comparison& of) {
  const std::string python = of.python.empty() ? "-" : std::to_string(std::lround(of.python.median() * 1e6));
  std::printf("%-10s %9.1f %9.1f %9s  %-18s %-18s %-18s %9.1f %8.2f\n", of.shape.name.c_str(), of.engine.median() * 1e6,
              of.naive.median() * 1e6, python.c_str(), spread(of.vs_libtorch()).c_str(), spread(of.vs_python()).c_str(),
              spread(of.gemm_share()).c_str(), of.gemm_rate.median() * 1e-9, epochs_per_s(of));
  std::fflush(stdout);
}

nlohmann::json median_or_null(const Rounds& figure) {
  return figure.empty() ? nlohmann::json() : nlohmann::json(figure.median());
}

void add_to(nlohmann::json& document, const Comparison& of) {
  const std::string& name = of.shape.name;
  document["vs_libtorch"][name] = median_or_null(of.vs_libtorch());
  document["vs_python"][name] = of.python.empty() ? nlohmann::json() : median_or_null(of.vs_python());
  document["gemm_share"][name] = median_or_null(of.gemm_share());
  document["step_us"][name] = of.engine.median() * 1e6;
  document["candidate_epochs_per_s"][name] = epochs_per_s(of);
  document["rounds"][name] = of.engine.values.size();
}

std::vector<Shape> shapes_of(const std::string& name) {
  std::vector<Shape> chosen;
  for (Shape& shape : all_shapes()) {
    if (name.empty() || shape.name == name) chosen.push_back(std::move(shape));
  }
  return chosen;
}

bool same_losses(const Shape& shape, const ComparisonOptions& options, bool whole_epoch) {
  const LossCheck check = check_losses(shape, options, whole_epoch);
  std::printf("%-10s %s; losses differ from LibTorch's by %.1e at the first step, %.1e over 20", shape.name.c_str(),
              shape.what.c_str(), check.first_step, check.first_20_steps);
  if (whole_epoch) std::printf(", %.1e over an epoch", check.epoch);
  std::printf("\n");
  std::fflush(stdout);
  if (check.passed()) return true;
  std::fprintf(stderr, "bench_trainer: %s: the engine and the naive loop do not compute the same thing; expected less than 1e-5, 5e-5 "
                       "and 1e-3\n", shape.name.c_str());
  return false;
}

int run(const std::string& shape_name, const ComparisonOptions& options, bool thorough, bool as_json) {
  at::set_num_threads(1);
  prepare_training_thread();
  std::printf("Engine %s in packs of %zu; CPU time, one thread, medians of interleaved rounds (lowest-highest).\n"
              "us: CPU microseconds per training step of one candidate, mean over %zu architectures of 1 to 4 steps; c-ep/s: candidate-epochs\n"
              "per CPU second; GFLOP/s: this core's 512-cube product. Scoring dev is left out: 16 rows once an epoch.\n",
              options.engine.engine.c_str(), options.engine.pack, options.architectures);
  const std::vector<Shape> shapes = shapes_of(shape_name);
  for (const Shape& shape : shapes) {
    if (!same_losses(shape, options, thorough)) return 1;
  }
  nlohmann::json document{{"engine", options.engine.engine}};
  print_header();
  for (const Shape& shape : shapes) {
    const Comparison comparison = compare(shape, options);
    print_row(comparison);
    add_to(document, comparison);
  }
  if (as_json) std::printf("%s\n", document.dump().c_str());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  begin_again_with_one_thread(argv);
  CLI::App app{"bench_trainer: what a training step costs, against the loops that people write with LibTorch and with PyTorch "
               "(docs/benchmarks.md). Exit status 1: the losses are not the same."};
  ComparisonOptions options;
  options.script = FUSION_BENCH_FOLDER "/naive_loop.py";
  std::string shape, protocol_data;
  bool thorough = false, as_json = false, no_python = false, kernels = false;
  std::vector<std::string> names;
  for (const Shape& known : all_shapes()) names.push_back(known.name);
  app.add_option("--shape", shape, "One shape only")->check(CLI::IsMember(names));
  app.add_option("--engine", options.engine.engine, "Of train_pack")
      ->check(CLI::IsMember({"plain", "stacked", "autograd"}))
      ->capture_default_str();
  CLI::Option* const pack = app.add_option("--pack", options.engine.pack, "Candidates trained together; 128 by default for --kernels")
                                ->check(CLI::Range(1, 4096))
                                ->capture_default_str();
  app.add_option("--device", options.engine.device, "Of the engine stacked: with cuda:N, instead: the GPU's tables")->capture_default_str();
  app.add_flag("--kernels", kernels, "Instead: the stacked engine on --device against one CPU core, and each kernel's time, bytes and operations");
  app.add_flag("--thorough", thorough, "A minute for each shape, and losses compared over a whole epoch");
  app.add_flag("--json", as_json, "The last line is one JSON object");
  app.add_option("--python", options.python, "A Python with torch")->capture_default_str();
  app.add_flag("--no-python", no_python, "Leave Python out");
  app.add_option("--reference-protocol", protocol_data,
                 "Instead: what the reference's search would cost on this dataset folder (reference_protocol.py)");
  return run_main("bench_trainer", app, argc, argv, [&] {
    if (!protocol_data.empty()) {
      ::execl(options.python.c_str(), options.python.c_str(), FUSION_BENCH_FOLDER "/reference_protocol.py", protocol_data.c_str(), nullptr);
      throw Error(options.python + " could not be started");
    }
    if (kernels || check_training_device(options.engine.device)) {
      at::set_num_threads(1);
      prepare_training_thread();
      print_gpu_tables(shapes_of(shape), pack->count() > 0 ? options.engine.pack : kPackOnGpu, options.engine.device);
      return 0;
    }
    if (thorough) options.cpu_s = kThoroughCpuS;
    if (no_python) options.python.clear();
    return run(shape, options, thorough, as_json);
  });
}
