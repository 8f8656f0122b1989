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

}  // namespace

std::string workers_view(const json& workers, const Terminal& terminal) {
  Table table({{"worker", Align::right},
               {"name", Align::left, true},
               {"host", Align::left, true},
               {"pid", Align::right},
               {"device"},
               {"slots", Align::right},
               {"code"},
               {"LibTorch"},
               {"connected", Align::right},
               {"silent", Align::right},
               {"trials", Align::left, true}});
  for (const json& worker : workers) {
    table.add({digits_in(worker, "id"), text_in(worker, "name", kAbsent), text_in(worker, "host", kAbsent),
               digits_in(worker, "pid"), text_in(worker, "device", kAbsent), digits_in(worker, "slots"),
               text_in(worker, "code_version", kAbsent), text_in(worker, "torch_version", kAbsent),
               duration(number_in(worker, "connected_s")), duration(number_in(worker, "silent_s")), held_text(worker)});
  }
  return table.text(terminal);
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
