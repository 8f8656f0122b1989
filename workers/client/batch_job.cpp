#include "workers/client/batch_job.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

namespace fusion {

namespace {

std::optional<std::int64_t> whole(std::string_view text) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc{} || end != text.data() + text.size() || value < 0) return std::nullopt;
  return value;
}

/// A job id goes into a command line: digits only.
bool is_job_id(std::string_view text) { return whole(text).has_value(); }

// Bounded by `timeout`: a controller that does not answer must not keep the worker.
std::optional<std::string> ask_squeue(const std::string& job) {
  const std::string command = "timeout 10 squeue --noheader --jobs=" + job + " --format=%L 2>/dev/null";
  FILE* pipe = ::popen(command.c_str(), "r");
  if (pipe == nullptr) return std::nullopt;
  std::array<char, 256> line{};
  const bool any = std::fgets(line.data(), line.size(), pipe) != nullptr;
  const bool good = ::pclose(pipe) == 0;
  if (!any || !good) return std::nullopt;
  return std::string(line.data());
}

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kBlank = " \t\r\n";
  const std::size_t begin = text.find_first_not_of(kBlank);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kBlank) - begin + 1);
}

}  // namespace

std::optional<std::chrono::seconds> parse_slurm_time(std::string_view text) {
  text = trimmed(text);
  std::int64_t days = 0;
  const std::size_t dash = text.find('-');
  if (dash != std::string_view::npos) {
    const auto value = whole(text.substr(0, dash));
    if (!value || *value > 100'000) return std::nullopt;
    days = *value;
    text.remove_prefix(dash + 1);
  }
  std::vector<std::int64_t> parts;
  while (true) {
    const std::size_t colon = std::min(text.find(':'), text.size());
    const auto value = whole(text.substr(0, colon));
    if (!value || *value > 100'000'000) return std::nullopt;
    parts.push_back(*value);
    if (colon == text.size()) break;
    text.remove_prefix(colon + 1);
  }
  if (parts.size() > 3) return std::nullopt;
  while (parts.size() < 3) parts.insert(parts.begin(), 0);
  return std::chrono::seconds(((days * 24 + parts[0]) * 60 + parts[1]) * 60 + parts[2]);
}

BatchJob read_batch_job(const std::function<const char*(const char*)>& environment, std::int64_t now_s,
                        const std::function<std::optional<std::string>(const std::string& job)>& squeue_time_left) {
  const auto text = [&](const char* name) {
    const char* value = environment(name);
    return std::string(value != nullptr ? value : "");
  };
  BatchJob found;
  const std::string id = text("SLURM_JOB_ID");
  if (!is_job_id(id)) return found;
  const std::string array = text("SLURM_ARRAY_JOB_ID"), task = text("SLURM_ARRAY_TASK_ID");
  found.job = is_job_id(array) && is_job_id(task) ? array + "_" + task : id;
  found.node = text("SLURMD_NODENAME");
  found.restarts = static_cast<int>(std::min<std::int64_t>(whole(text("SLURM_RESTART_COUNT")).value_or(0), 1'000'000));
  if (const auto end = whole(text("SLURM_JOB_END_TIME")); end && *end > 0) {
    // Both are this host's: only their difference is used.
    constexpr std::int64_t kYears = 10ll * 365 * 86'400;  // "no limit" is written as a time far away
    if (*end - now_s < kYears) found.left = std::chrono::seconds(std::max<std::int64_t>(0, *end - now_s));
  } else if (const auto answer = squeue_time_left(id)) {
    found.left = parse_slurm_time(*answer);
  }
  return found;
}

BatchJob read_batch_job() {
  const auto now = std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch());
  return read_batch_job([](const char* name) -> const char* { return std::getenv(name); }, now.count(), ask_squeue);
}

}  // namespace fusion
