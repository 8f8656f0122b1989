#include "workers/devices/visible_devices.h"

#include <algorithm>
#include <charconv>

namespace fusion {

namespace {

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  return text;
}

std::optional<VisibleDevice> parse_one(std::string_view text) {
  if (text.starts_with("GPU-") && text.size() > 4) return VisibleDevice{VisibleDevice::Kind::gpu, 0, std::string(text)};
  if (text.starts_with("MIG-") && text.size() > 4) return VisibleDevice{VisibleDevice::Kind::slice, 0, std::string(text)};
  int index = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), index);
  if (text.empty() || error != std::errc{} || end != text.data() + text.size() || index < 0) return std::nullopt;
  return VisibleDevice{VisibleDevice::Kind::index, index, ""};
}

/// The one whose id begins so; nullopt if there is none, or more than one.
std::optional<std::string> begins_with(const std::vector<std::string>& ids, const std::string& prefix) {
  std::optional<std::string> found;
  for (const std::string& id : ids) {
    if (!id.starts_with(prefix)) continue;
    if (found) return std::nullopt;
    found = id;
  }
  return found;
}

}  // namespace

std::vector<VisibleDevice> parse_visible_devices(std::string_view text) {
  std::vector<VisibleDevice> devices;
  for (std::size_t at = 0; at <= text.size();) {
    const std::size_t comma = std::min(text.find(',', at), text.size());
    const auto device = parse_one(trimmed(text.substr(at, comma - at)));
    if (!device || std::ranges::find(devices, *device) != devices.end()) break;
    devices.push_back(*device);
    at = comma + 1;
  }
  return devices;
}

std::optional<std::vector<VisibleDevice>> visible_devices(const std::function<const char*(const char*)>& environment) {
  if (const char* named = environment("CUDA_VISIBLE_DEVICES")) return parse_visible_devices(named);
  if (environment("SLURM_JOB_ID") == nullptr) return std::nullopt;
  const auto is_set = [&environment](const char* name) {
    const char* value = environment(name);
    return value != nullptr && *value != '\0';
  };
  const bool listed = is_set("SLURM_JOB_GPUS") || is_set("SLURM_STEP_GPUS") || is_set("GPU_DEVICE_ORDINAL");
  const bool counted = is_set("SLURM_GPUS_ON_NODE") && std::string_view(environment("SLURM_GPUS_ON_NODE")) != "0";
  if (listed || counted) return std::nullopt;
  return std::vector<VisibleDevice>{};
}

std::optional<std::string> id_of_device(int n, const std::optional<std::vector<VisibleDevice>>& visible, const std::vector<std::string>& gpus,
                                        const std::function<std::vector<std::string>(const std::string& gpu)>& slices) {
  const auto at = static_cast<std::size_t>(n);
  const auto first_slice_or_self = [&slices](const std::string& gpu) {
    const std::vector<std::string> cut = slices(gpu);
    return cut.empty() ? gpu : cut.front();
  };
  const auto by_index = [&](std::size_t index) -> std::optional<std::string> {
    if (index >= gpus.size() || gpus[index].empty()) return std::nullopt;
    return first_slice_or_self(gpus[index]);
  };
  if (n < 0) return std::nullopt;
  if (!visible) return by_index(at);
  if (at >= visible->size()) return std::nullopt;
  const VisibleDevice& device = (*visible)[at];
  switch (device.kind) {
    case VisibleDevice::Kind::index: return by_index(static_cast<std::size_t>(device.index));
    case VisibleDevice::Kind::slice: return device.id;
    case VisibleDevice::Kind::gpu: break;
  }
  const auto whole = begins_with(gpus, device.id);
  return whole ? std::optional(first_slice_or_self(*whole)) : std::nullopt;
}

}  // namespace fusion
