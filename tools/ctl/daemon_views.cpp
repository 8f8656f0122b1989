#include "tools/ctl/daemon_views.h"

#include <array>
#include <cstdio>
#include <vector>

#include "tools/ctl/figures.h"
#include "tools/ctl/table.h"

namespace fusion::ctl {

using nlohmann::json;

namespace {

/// "41 42 43", at most eight ids.
std::string held_text(const json& worker) {
  std::string text;
  std::size_t shown = 0;
  const json& held = list_in(worker, "held");
  for (const json& trial : held) {
    if (++shown > 8) return text + " and " + std::to_string(held.size() - 8) + " more";
    text += (text.empty() ? "" : " ") + trial.dump();
  }
  return text.empty() ? kAbsent : text;
}

std::string value_text(const json& value, bool score) {
  if (value.is_null()) return "NULL";
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_number_float()) return value.dump(-1, ' ', false, json::error_handler_t::replace);
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), score ? "%.4f" : "%.6g", value.get<double>());
  return text.data();
}

bool all_numbers(const json& rows, std::size_t column) {
  bool any = false;
  for (const json& row : rows) {
    const json value = row.is_array() && column < row.size() ? row[column] : json();
    if (!value.is_number() && !value.is_null()) return false;
    any = any || value.is_number();
  }
  return any;
}

const json kNothing = json::object();

const json& member_or(const json& object, const char* key, const json& otherwise) {
  const auto found = object.find(key);
  return found == object.end() ? otherwise : *found;
}

/// "NVIDIA H200 97 %, 80 of 143771 MB free, 61 C; cuda:0 is full", as much of it as is known.
std::string condition_text(const json& condition) {
  std::vector<std::string> parts;
  for (const json& device : list_in(condition, "devices")) {
    std::string text = text_in(device, "model");
    if (text.empty()) text = text_in(device, "name");
    if (const auto busy = integer_in(device, "utilisation_percent")) text += " " + std::to_string(*busy) + " %";
    const auto free = integer_in(device, "free_mb"), total = integer_in(device, "memory_mb");
    if (free && total) text += ", " + std::to_string(*free) + " of " + std::to_string(*total) + " MB free";
    if (const auto degrees = integer_in(device, "temperature_c")) text += ", " + std::to_string(*degrees) + " C";
    if (const auto others = integer_in(device, "others"); others && *others > 0) text += ", " + std::to_string(*others) + " others";
    parts.push_back(text);
  }
  if (const std::string problem = text_in(condition, "problem"); !problem.empty()) parts.push_back(problem);
  for (const json& data : list_in(condition, "unreadable")) parts.push_back(text_in(data, "why"));
  std::string text;
  for (const std::string& part : parts) text += (text.empty() ? "" : "; ") + part;
  return text;
}

}  // namespace

// Columns that would be empty in every row are left out.
std::string workers_view(const json& workers, const Terminal& terminal) {
  bool jobs = false, limits = false, notes = false;
  for (const json& worker : workers) {
    const json& condition = member_or(worker, "condition", kNothing);
    jobs = jobs || !text_in(worker, "job").empty();
    limits = limits || number_in(condition, "time_left_s").has_value();
    notes = notes || !condition_text(condition).empty();
  }
  std::vector<Column> columns{{"worker", Align::right}, {"name", Align::left, true}, {"host", Align::left, true}, {"pid", Align::right},
                              {"device"}, {"slots", Align::right}, {"code"}, {"LibTorch"}, {"connected", Align::right},
                              {"silent", Align::right}, {"trials", Align::left, true}};
  if (jobs) columns.push_back({"job"});
  if (limits) columns.push_back({"time left", Align::right});
  if (notes) columns.push_back({"devices, and what is wrong", Align::left, true});
  Table table(columns);
  for (const json& worker : workers) {
    const json& condition = member_or(worker, "condition", kNothing);
    std::vector<Cell> cells{digits_in(worker, "id"), text_in(worker, "name", kAbsent), text_in(worker, "host", kAbsent),
                            digits_in(worker, "pid"), text_in(worker, "device", kAbsent), digits_in(worker, "slots"),
                            text_in(worker, "code_version", kAbsent), text_in(worker, "torch_version", kAbsent),
                            duration(number_in(worker, "connected_s")), duration(number_in(worker, "silent_s")), held_text(worker)};
    const std::string job = text_in(worker, "job");
    if (jobs) cells.emplace_back(job.empty() ? std::string(kAbsent) : job);
    if (limits) cells.emplace_back(duration(number_in(condition, "time_left_s")));
    if (notes) cells.emplace_back(condition_text(condition));
    table.add(std::move(cells));
  }
  return table.text(terminal);
}

std::string pools_view(const json& pools, const Terminal& terminal) {
  constexpr std::size_t kMostJobs = 20;
  Table sizes({{"pool"}, {"launcher"}, {"wanted", Align::right}, {"of"}, {"waiting", Align::right}, {"running", Align::right}, {"leaving", Align::right},
               {"why there are not more", Align::left, true, true}});
  Table jobs({{"job"}, {"pool"}, {"state"}, {"says", Align::left, true, true}, {"node", Align::left, true, true}, {"for", Align::right}});
  std::size_t left_out = 0, shown = 0;
  for (const json& pool : pools) {
    const bool fixed = text_in(pool, "launcher") == "local" && value_in(pool, "min") == value_in(pool, "max");
    if (fixed && text_in(pool, "problem").empty()) continue;
    sizes.add({text_in(pool, "name"), text_in(pool, "launcher"), digits_in(pool, "wanted"), digits_in(pool, "min") + " to " + digits_in(pool, "max"),
               digits_in(pool, "waiting"), digits_in(pool, "running"), digits_in(pool, "leaving"), text_in(pool, "problem")});
    for (const json& launched : list_in(pool, "launched")) {
      if (!value_in(launched, "worker").is_null()) continue;
      if (++shown > kMostJobs && ++left_out > 0) continue;
      const std::string detail = text_in(launched, "detail"), end = text_in(launched, "last_end");
      jobs.add({text_in(launched, "name", kAbsent), text_in(pool, "name"), text_in(launched, "state"), detail.empty() ? end : detail,
                text_in(launched, "node"), duration(number_in(launched, "since_s"))});
    }
  }
  std::string text;
  if (!sizes.empty()) text += sizes.text(terminal);
  if (!jobs.empty()) text += "\n" + jobs.text(terminal);
  if (left_out > 0) text += "and " + std::to_string(left_out) + " more; all of them with --json\n";
  return text;
}

std::string events_view(const json& events, const Terminal& terminal) {
  Table table({{"event", Align::right},
               {"at"},
               {"kind"},
               {"study", Align::right},
               {"trial", Align::right},
               {"worker", Align::right},
               {"text", Align::left, true}});
  for (const json& event : events) {
    table.add({digits_in(event, "id"), time_text(integer_in(event, "at_ms")), text_in(event, "kind", kAbsent),
               digits_in(event, "study"), digits_in(event, "trial"), digits_in(event, "worker"), text_in(event, "text")});
  }
  return table.text(terminal);
}

std::string rows_view(const json& columns, const json& rows, const Terminal& terminal) {
  std::vector<Column> heads;
  std::vector<bool> score;
  for (std::size_t c = 0; c < columns.size(); ++c) {
    const std::string name = columns[c].is_string() ? columns[c].get<std::string>() : columns[c].dump();
    const bool numbers = all_numbers(rows, c);
    heads.push_back({one_line(name), numbers ? Align::right : Align::left, !numbers});
    score.push_back(name.ends_with("_score") || name.starts_with("dev_"));
  }
  Table table(heads);
  for (const json& row : rows) {
    std::vector<Cell> cells;
    for (std::size_t c = 0; c < heads.size(); ++c) {
      cells.emplace_back(row.is_array() && c < row.size() ? value_text(row[c], score[c]) : std::string(kAbsent));
    }
    table.add(std::move(cells));
  }
  return table.text(terminal);
}

}  // namespace fusion::ctl
