#include "tools/worker_devices.h"

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "base/log.h"

namespace fusion {

namespace {

using nlohmann::json;

template <typename T>
json or_null(const std::optional<T>& value) {
  return value ? json(*value) : json();
}

json to_json(const GpuReading& reading) {
  json processes = json::array();
  for (const GpuReading::Process& process : reading.processes) processes.push_back({{"pid", process.pid}, {"memory_mb", or_null(process.memory_mb)}});
  return {{"id", reading.id},
          {"model", reading.model},
          {"memory_mb", or_null(reading.memory_mb)},
          {"free_mb", or_null(reading.free_mb)},
          {"utilisation_percent", or_null(reading.utilisation_percent)},
          {"temperature_c", or_null(reading.temperature_c)},
          {"processes", processes},
          {"mig_enabled", reading.mig_enabled},
          {"problem", reading.problem}};
}

}  // namespace

void WorkerDevices::add_options(CLI::App& app) {
  app.add_option("--memory-share", options_.memory_share,
                 "The part of the GPU's memory that this worker may take; 0.25 for each of four workers on one GPU")
      ->check(CLI::Range(0.001, 1.0))
      ->capture_default_str();
  app.add_option("--least-gpu-mb", options_.least_mb, "With less memory to take the GPU is full, and the worker takes nothing")
      ->check(CLI::Range(0, 10'000'000))
      ->capture_default_str();
  app.add_flag("--list-devices", list_, "Print the GPUs that NVML sees, one JSON object a line, and end");
}

int WorkerDevices::list() const {
  std::string why;
  for (const GpuReading& reading : list_devices(why)) std::printf("%s\n", to_json(reading).dump(-1, ' ', false, json::error_handler_t::replace).c_str());
  if (!why.empty()) std::fprintf(stderr, "%s\n", why.c_str());
  return why.empty() ? 0 : 1;
}

void WorkerDevices::begin(const std::string& device) {
  options_.device = device;
  monitor_ = std::make_unique<DeviceMonitor>(options_);
  if (!monitor_->blind().empty()) {
    logger("worker")->log(device == "cpu" ? spdlog::level::info : spdlog::level::warn, "device not watched device={} reason=\"{}\"", device, monitor_->blind());
    return;
  }
  const protocol::Device seen = monitor_->read()->device;
  logger("worker")->info("device device={} id={} model=\"{}\" memory_mb={} free_mb={} others={} memory_share={}", device, seen.id, seen.model,
                         seen.memory_mb.value_or(-1), seen.free_mb.value_or(-1), seen.others.value_or(0), options_.memory_share);
}

std::int64_t WorkerDevices::usable_bytes(std::int64_t free) const {
  const auto verdict = monitor_->read();
  if (!verdict || !verdict->usable_mb) return static_cast<std::int64_t>(options_.memory_share * static_cast<double>(free));
  return std::min(free, *verdict->usable_mb << 20);
}

std::optional<std::string> WorkerDevices::lost() const {
  const auto verdict = monitor_->read();
  if (!verdict || !verdict->lost) return std::nullopt;
  return verdict->device.name + ": " + verdict->device.problem;
}

std::optional<std::int64_t> WorkerDevices::usable_bytes() const {
  const auto verdict = monitor_->read();
  return verdict && verdict->usable_mb ? std::optional(*verdict->usable_mb << 20) : std::nullopt;
}

WorkerDevices::Watch WorkerDevices::watch(WorkerClient& client, SizeOf size) const {
  auto monitor = std::make_unique<DeviceMonitor>(options_);
  monitor->watch([&client, size = std::move(size)](const DeviceVerdict& verdict) {
    client.report_devices({verdict.device}, verdict.usable_mb ? size(*verdict.usable_mb << 20) : std::nullopt);
    if (verdict.lost) client.leave("its device is lost: " + verdict.device.problem);
  });
  return Watch(std::move(monitor));
}

}  // namespace fusion
