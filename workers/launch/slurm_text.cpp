#include "workers/launch/slurm_text.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "base/error.h"

namespace fusion {

namespace {

constexpr std::size_t kFields = 8;

template <typename Number>
std::optional<Number> number_of(std::string_view text) {
  Number value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::string unless(std::string_view text, std::string_view nothing) { return text == nothing ? "" : std::string(text); }

std::string_view trimmed(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(" \t\r\n");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t\r\n") - begin + 1);
}

bool has(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

std::optional<SlurmJob> job_of(std::string_view line) {
  std::array<std::string_view, kFields> fields;
  for (std::size_t i = 0; i + 1 < kFields; ++i) {
    const std::size_t bar = line.find('|');
    if (bar == std::string_view::npos) return std::nullopt;
    fields[i] = line.substr(0, bar);
    line.remove_prefix(bar + 1);
  }
  fields.back() = line;
  const auto job = number_of<std::int64_t>(fields[0]), array = number_of<std::int64_t>(fields[1]);
  const auto index = number_of<int>(fields[2]);
  if (!job || !array || (!index && fields[2] != "N/A") || fields[3].empty()) return std::nullopt;
  return SlurmJob{*job, *array, index, std::string(fields[3]), unless(fields[4], "None"), unless(fields[5], "N/A"),
                  std::string(fields[6]), unless(fields[7], "(null)")};
}

bool any_of(std::string_view word, std::initializer_list<std::string_view> words) { return std::ranges::find(words, word) != words.end(); }

}  // namespace

std::vector<SlurmJob> parse_squeue(std::string_view text) {
  std::vector<SlurmJob> jobs;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = trimmed(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.empty()) continue;
    auto job = job_of(line);
    if (!job) {
      throw DataError("squeue: expected eight fields parted by | (" + std::string(kSqueueFormat) + "), got \"" + std::string(line) +
                      "\"; does a wrapper of squeue change its output?");
    }
    jobs.push_back(std::move(*job));
  }
  return jobs;
}

SlurmPhase phase_of(std::string_view state) {
  if (any_of(state, {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD"})) return SlurmPhase::coming;
  // Preempted jobs of a partition that requeues pass through PREEMPTED before they wait again.
  if (any_of(state, {"COMPLETING", "PREEMPTED"})) return SlurmPhase::closing;
  if (any_of(state, {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "DEADLINE", "NODE_FAIL", "BOOT_FAIL", "OUT_OF_MEMORY"})) return SlurmPhase::gone;
  return SlurmPhase::running;
}

std::optional<std::int64_t> parse_submitted(std::string_view text) {
  const std::string_view line = trimmed(text);
  const auto id = number_of<std::int64_t>(line.substr(0, line.find(';')));
  return id && *id > 0 ? id : std::nullopt;
}

SubmitFailure classify_submit_failure(std::string_view error_text) {
  for (const std::string_view lost : {"imed out", "nable to contact", "Zero Bytes were transmitted", "Message receive failure", "Transport endpoint",
                                      "Connection re", "ommunication", "Socket", "socket", "Protocol authentication error", "Slurm backup controller"}) {
    if (has(error_text, lost)) return SubmitFailure::unclear;
  }
  for (const std::string_view no : {"Batch job submission failed: ", "unrecognized option", "invalid option", "Invalid --", "Invalid numeric value",
                                    "option requires an argument"}) {
    if (has(error_text, no)) return SubmitFailure::refused;
  }
  return SubmitFailure::unclear;
}

bool waits_in_vain(std::string_view reason) {
  if (has(reason, "held") || reason.starts_with("JobHeld")) return true;
  return any_of(reason.substr(0, reason.find(',')), {"BadConstraints", "PartitionTimeLimit", "PartitionNodeLimit", "PartitionConfig", "InvalidAccount",
                                                     "InvalidQOS", "AccountNotAllowed", "QOSNotAllowed", "QOSTimeLimit", "AssociationTimeLimit",
                                                     "AssocMaxWallDurationPerJobLimit", "QOSMaxWallDurationPerJobLimit", "Dependency",
                                                     "DependencyNeverSatisfied", "JobLaunchFailure"});
}

std::string slurm_words(std::string_view error_text) {
  std::string_view line = trimmed(error_text);
  if (const std::size_t last = line.rfind('\n'); last != std::string_view::npos) line = trimmed(line.substr(last + 1));
  if (const std::size_t error = line.find("error: "); error != std::string_view::npos) line.remove_prefix(error + 7);
  return std::string(line);
}

}  // namespace fusion
