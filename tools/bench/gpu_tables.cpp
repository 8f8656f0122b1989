#include "tools/bench/gpu_tables.h"

#include <chrono>
#include <cstdio>

#include "tools/bench/cpu_clock.h"
#include "tools/bench/engine_run.h"
#include "tools/bench/naive_loop.h"
#include "tools/bench/roofline.h"

namespace fusion::bench {
namespace {

constexpr std::size_t kCpuCandidates = 8;
constexpr std::int64_t kDevRows = 16, kNaiveSteps = 30;

double stacked_step_s(const Shape& shape, const FeatureSplit& train, std::size_t pack, const std::string& device) {
  EngineRun run;
  run.engine = "stacked";
  run.device = device;
  run.pack = pack;
  const std::vector<Architecture> architectures = architectures_of(shape, pack);
  const FeatureSplit dev = first_rows(train, kDevRows), few = first_rows(train, 40 * shape.options.batch);
  run.epoch(architectures, shape.options, shape.classes, shape.rows > few.rows ? few : train, dev);  // the device wakes up
  const auto begin = std::chrono::steady_clock::now();
  run.epoch(architectures, shape.options, shape.classes, train, dev);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return seconds / static_cast<double>(shape.steps_per_epoch() * static_cast<std::int64_t>(pack));
}

double plain_step_s(const Shape& shape, const FeatureSplit& train) {
  const double begin = cpu_seconds();
  EngineRun().epoch(architectures_of(shape, kCpuCandidates), shape.options, shape.classes, train, first_rows(train, kDevRows));
  return (cpu_seconds() - begin) / static_cast<double>(shape.steps_per_epoch() * static_cast<std::int64_t>(kCpuCandidates));
}

double naive_step_s(const Shape& shape, const FeatureSplit& train) {
  double seconds = 0;
  for (const Architecture& architecture : architectures_of(shape, kCpuCandidates)) {
    NaiveLoop loop(architecture, shape, shape.options, train, 1, 1);
    loop.run(kNaiveSteps / 3);
    const double begin = cpu_seconds();
    loop.run(kNaiveSteps);
    seconds += cpu_seconds() - begin;
  }
  return seconds / static_cast<double>(kNaiveSteps * static_cast<std::int64_t>(kCpuCandidates));
}

}  // namespace

void print_gpu_tables(const std::vector<Shape>& shapes, std::size_t pack, const std::string& device) {
  std::printf("Engine stacked in packs of %zu on %s, by the clock; one CPU core's engine plain and LibTorch loop, in CPU time.\n"
              "us: microseconds per training step of one candidate.\n%-10s %12s %10s %10s %10s %12s\n",
              pack, device.c_str(), "shape", "stacked us", "plain us", "naive us", "vs plain", "vs LibTorch");
  for (const Shape& shape : shapes) {
    const FeatureSplit train = make_split(shape, shape.rows, 7);
    const double stacked = stacked_step_s(shape, train, pack, device), plain = plain_step_s(shape, train), naive = naive_step_s(shape, train);
    std::printf("%-10s %12.3f %10.1f %10.1f %10.2f %12.1f\n", shape.name.c_str(), stacked * 1e6, plain * 1e6, naive * 1e6, plain / stacked,
                naive / stacked);
    std::fflush(stdout);
  }
  for (const Shape& shape : shapes) {
    std::printf("\nKernels of one step, %s, %zu candidates, each timed by itself:\n%-14s %8s %10s %10s %10s %10s %10s\n", shape.name.c_str(),
                pack, "kernel", "launches", "us", "Mflop", "MB", "Gflop/s", "GB/s");
    for (const KernelFigures& of : roofline(shape, pack, device)) {
      std::printf("%-14s %8d %10.1f %10.2f %10.3f %10.1f %10.1f\n", of.name.c_str(), of.launches, of.seconds * 1e6, of.operations * 1e-6,
                  of.bytes * 1e-6, of.operations / of.seconds * 1e-9, of.bytes / of.seconds * 1e-9);
    }
    std::fflush(stdout);
  }
}

}  // namespace fusion::bench
