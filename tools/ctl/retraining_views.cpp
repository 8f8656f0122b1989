#include "tools/ctl/retraining_views.h"

#include <algorithm>
#include <map>
#include <optional>

#include "base/error.h"
#include "space/dataset_spec.h"
#include "tools/ctl/figures.h"
#include "tools/ctl/networks.h"
#include "tools/ctl/study_views.h"
#include "tools/ctl/table.h"
#include "tools/ctl/text.h"

namespace fusion::ctl {

using nlohmann::json;

namespace {

std::string origin_text(const json& retraining) {
  const json& lineage = value_in(retraining, "lineage");
  const json& trial = value_in(lineage, "trial");
  const std::string name = text_in(value_in(lineage, "study"), "name");
  std::string text = "trial " + digits_in(trial, "id") + (name.empty() ? "" : " of study \"" + one_line(name) + "\"");
  if (member(trial, "dev_score")) text += ", dev score " + score_text(number_in(trial, "dev_score"));
  if (const std::string source = text_in(lineage, "source"); !source.empty()) text += " (from " + one_line(source) + ")";
  return text;
}

/// The options in one line: `width 256, epochs 70, ...`.
std::string options_text(const json& options) {
  std::string text;
  if (!options.is_object()) return kAbsent;
  for (const auto& [key, value] : options.items()) {
    text += (text.empty() ? "" : ", ") + one_line(key) + " " + (value.is_string() ? one_line(value.get<std::string>()) : value.dump());
  }
  return text;
}

void add_score(const json& retraining, Facts& facts) {
  if (!member(retraining, "dev_score")) return;
  facts.add("dev score", score_text(number_in(retraining, "dev_score")) + " in epoch " + digits_in(retraining, "best_epoch"));
  facts.add("test score", score_text(number_in(retraining, "test_score")));
  facts.add("train loss", figure_text(number_in(retraining, "train_loss")));
  facts.add("parameters", grouped(digits_in(retraining, "parameters")) + ", " + grouped(digits_in(retraining, "trained_parameters")) + " trained");
  facts.add("took", duration(number_in(retraining, "train_s")) + ", batches of " + digits_in(retraining, "batch"));
}

std::string attempts_text(const json& retraining, const Terminal& terminal) {
  Table table({{"attempt", Align::right}, {"worker", Align::left, true}, {"outcome"}, {"device"}, {"LibTorch"}, {"started"},
               {"error", Align::left, true, true}});
  for (const json& attempt : list_in(retraining, "attempt_log")) {
    table.add({digits_in(attempt, "attempt"), text_in(attempt, "worker_name", kAbsent), state_cell(attempt, "outcome"),
               text_in(attempt, "device", kAbsent), text_in(attempt, "torch_version", kAbsent), time_text(integer_in(attempt, "started_ms")),
               text_in(attempt, "error")});
  }
  return table.empty() ? "" : "\n" + table.text(terminal);
}

std::string epochs_text(const json& retraining, const Terminal& terminal) {
  Table table({{"epoch", Align::right}, {"attempt", Align::right}, {"phase", Align::right}, {"dev score", Align::right}, {"train loss", Align::right},
               {"dev loss", Align::right}, {"learning rate", Align::right}, {"took", Align::right}, {"rows/s", Align::right}});
  std::map<std::int64_t, const json*> last;  // an epoch that was trained again counts as it was the last time
  for (const json& epoch : list_in(retraining, "epochs")) last[integer_in(epoch, "epoch").value_or(0)] = &epoch;
  for (const auto& [number, epoch] : last) {
    table.add({std::to_string(number), digits_in(*epoch, "attempt"), digits_in(*epoch, "phase"), score_text(number_in(*epoch, "dev_score")),
               figure_text(number_in(*epoch, "train_loss")), figure_text(number_in(*epoch, "dev_loss")),
               figure_text(number_in(*epoch, "learning_rate")), duration(number_in(*epoch, "seconds")),
               figure_text(number_in(*epoch, "rows_per_s"))});
  }
  return table.empty() ? "" : "\n" + table.text(terminal);
}

std::string artifacts_text(const json& retraining, const Terminal& terminal) {
  Table table({{"artifact"}, {"bytes", Align::right}, {"SHA-256"}, {"path", Align::left, true}});
  for (const json& artifact : list_in(retraining, "artifacts")) {
    table.add({text_in(artifact, "name"), grouped(digits_in(artifact, "bytes")), text_in(artifact, "sha256"), text_in(artifact, "path")});
  }
  return table.empty() ? "" : "\n" + table.text(terminal);
}

// ---- evaluations

const json& split_of(const json& retraining, const std::string& split) {
  const json& evaluation = value_in(retraining, "evaluation");
  const json* found = member(evaluation, split);
  if (found != nullptr && found->is_object()) return *found;
  std::string known;
  for (const char* name : {"dev", "test"}) {
    if (member(evaluation, name)) known += (known.empty() ? "" : ", ") + std::string(name);
  }
  throw ConfigError("retraining " + digits_in(retraining, "id") + " has no evaluation on " + split +
                    (known.empty() ? "; it was not evaluated at all" : "; there is one on " + known));
}

void add_split(const json& split, Facts& facts) {
  facts.add("accuracy", score_text(number_in(split, "accuracy")));
  facts.add("top-5", score_text(number_in(split, "top5")));
  facts.add("macro F1", score_text(number_in(split, "macro_f1")));
  facts.add("weighted F1", score_text(number_in(split, "weighted_f1")));
  facts.add("loss", figure_text(number_in(split, "loss")));
}

void add_model(const json& retraining, Facts& facts) {
  const json& evaluation = value_in(retraining, "evaluation");
  const auto latency = number_in(evaluation, "latency_ms");
  facts.add("parameters", grouped(digits_in(retraining, "parameters")));
  facts.add("multiply-adds", grouped(digits_in(evaluation, "multiply_adds")) + " a row");
  facts.add("latency", (latency ? figure_text(latency) + " ms a row" : kAbsent) + std::string(" on ") + one_line(text_in(evaluation, "device", "?")));
}

std::string class_name(const json& split, std::size_t index) {
  const json& classes = list_in(split, "classes");
  const std::string name = index < classes.size() ? text_in(classes[index], "name") : "";
  return name.empty() ? std::to_string(index) : one_line(name);
}

std::string confusion_text(const json& split, const Terminal& terminal) {
  const json& rows = list_in(split, "confusion");
  if (rows.empty()) return "";
  std::vector<Column> columns{{"truth \\ predicted"}};
  for (std::size_t i = 0; i < rows.size(); ++i) columns.push_back({class_name(split, i), Align::right});
  Table table(columns);
  for (std::size_t truth = 0; truth < rows.size(); ++truth) {
    std::vector<Cell> cells{class_name(split, truth)};
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const bool there = rows[truth].is_array() && i < rows[truth].size();
      cells.emplace_back(there ? rows[truth][i].dump() : kAbsent, i == truth ? Style::bold : Style::plain);
    }
    table.add(std::move(cells));
  }
  return "\n" + table.text(terminal);
}

std::string classes_text(const json& split, const Terminal& terminal) {
  Table table({{"class", Align::left, true}, {"rows", Align::right}, {"precision", Align::right}, {"recall", Align::right}, {"F1", Align::right}});
  const json& classes = list_in(split, "classes");
  for (std::size_t i = 0; i < classes.size(); ++i) {
    table.add({class_name(split, i), digits_in(classes[i], "rows"), score_text(number_in(classes[i], "precision")),
               score_text(number_in(classes[i], "recall")), score_text(number_in(classes[i], "f1"))});
  }
  return table.empty() ? "" : "\n" + table.text(terminal);
}

// ---- HTML

std::string escaped(std::string_view text) {
  std::string result;
  for (const char c : one_line(text)) {
    switch (c) {
      case '&': result += "&amp;"; break;
      case '<': result += "&lt;"; break;
      case '>': result += "&gt;"; break;
      case '"': result += "&quot;"; break;
      case '\'': result += "&#39;"; break;
      default: result += c;
    }
  }
  return result;
}

std::string html_table(const std::vector<std::string>& head, const std::vector<std::vector<std::string>>& rows) {
  std::string text = "<table><tr>";
  for (const std::string& title : head) text += "<th>" + escaped(title) + "</th>";
  text += "</tr>\n";
  for (const auto& row : rows) {
    text += "<tr>";
    for (const std::string& cell : row) text += "<td>" + escaped(cell) + "</td>";
    text += "</tr>\n";
  }
  return text + "</table>\n";
}

/// Each cell as dark as its share of the row: of the rows that are of that class.
std::string html_confusion(const json& split) {
  const json& rows = list_in(split, "confusion");
  std::string text = "<h3>Confusion matrix</h3><p>Rows are the truth, columns what was predicted.</p><table class=\"matrix\"><tr><th></th>";
  for (std::size_t i = 0; i < rows.size(); ++i) text += "<th>" + escaped(class_name(split, i)) + "</th>";
  text += "</tr>\n";
  for (std::size_t truth = 0; truth < rows.size(); ++truth) {
    double sum = 0;
    for (const json& count : rows[truth]) sum += count.is_number() ? count.get<double>() : 0;
    text += "<tr><th>" + escaped(class_name(split, truth)) + "</th>";
    for (const json& count : rows[truth]) {
      const double share = sum > 0 && count.is_number() ? count.get<double>() / sum : 0;
      text += "<td style=\"background:rgba(31,95,170," + json(std::clamp(share, 0.0, 1.0)).dump() + ")" + (share > 0.5 ? ";color:#fff" : "") + "\">" +
              escaped(count.dump()) + "</td>";
    }
    text += "</tr>\n";
  }
  return text + "</table>\n";
}

std::string html_split(const json& split, const std::string& name) {
  std::string text = "<h2>" + name + "</h2>\n";
  text += html_table({"accuracy", "top-5", "macro F1", "weighted F1", "loss"},
                     {{score_text(number_in(split, "accuracy")), score_text(number_in(split, "top5")), score_text(number_in(split, "macro_f1")),
                       score_text(number_in(split, "weighted_f1")), figure_text(number_in(split, "loss"))}});
  std::vector<std::vector<std::string>> rows;
  const json& classes = list_in(split, "classes");
  for (std::size_t i = 0; i < classes.size(); ++i) {
    rows.push_back({class_name(split, i), digits_in(classes[i], "rows"), score_text(number_in(classes[i], "precision")),
                    score_text(number_in(classes[i], "recall")), score_text(number_in(classes[i], "f1"))});
  }
  if (!rows.empty()) text += "<h3>Classes</h3>" + html_table({"class", "rows", "precision", "recall", "F1"}, rows);
  if (!list_in(split, "confusion").empty()) text += html_confusion(split);
  return text;
}

}  // namespace

std::string retrainings_view(const json& retrainings, const Terminal& terminal) {
  Table table({{"id", Align::right}, {"study", Align::left, true}, {"trial", Align::right}, {"head"}, {"state"}, {"epoch", Align::right},
               {"dev score", Align::right}, {"test score", Align::right}, {"parameters", Align::right}, {"took", Align::right},
               {"architecture", Align::left, true}, {"error", Align::left, true, true}});
  for (const json& r : retrainings) {
    table.add({digits_in(r, "id"), text_in(r, "study_name", kAbsent), digits_in(r, "trial"), text_in(r, "head"), state_cell(r),
               digits_in(r, "last_epoch") + "/" + digits_in(r, "total_epochs"), score_text(number_in(r, "dev_score")),
               score_text(number_in(r, "test_score")), grouped(digits_in(r, "parameters")), duration(number_in(r, "train_s")),
               triplets_text(value_in(r, "architecture")), text_in(r, "error")});
  }
  return table.text(terminal);
}

std::string retraining_view(const json& retraining, const Terminal& terminal) {
  const std::string state = state_text(retraining);
  std::string text = "retraining " + digits_in(retraining, "id") + " (" + one_line(text_in(retraining, "head", "?")) +
                     " head): " + styled(one_line(state), style_of_state(state), terminal) + "\n";
  Facts facts;
  if (const std::string error = text_in(retraining, "error"); !error.empty()) facts.add("error", error);
  if (const std::string waits = text_in(retraining, "waits"); !waits.empty()) facts.add("now", waits);
  facts.add("found as", origin_text(retraining));
  facts.add("architecture", triplets_text(value_in(retraining, "architecture")));
  int step = 0;
  for (const std::string& line : network_lines(value_in(retraining, "architecture"), dataset_of(retraining))) {
    facts.add("step " + std::to_string(++step), line);
  }
  add_score(retraining, facts);
  facts.add("epochs", digits_in(retraining, "last_epoch") + " of " + digits_in(retraining, "total_epochs"));
  facts.add("attempts", digits_in(retraining, "attempts") + ", failures " + digits_in(retraining, "failures") + ", retries " +
                            digits_in(retraining, "retries"));
  facts.add("seed", digits_in(retraining, "seed") + ", priority " + digits_in(retraining, "priority"));
  facts.add("options", options_text(value_in(retraining, "options")));
  facts.add("folder", text_in(retraining, "folder", kAbsent));
  facts.add("created", time_text(integer_in(retraining, "created_ms")));
  facts.add("ended", time_text(integer_in(retraining, "ended_ms")));
  return text + facts.text() + attempts_text(retraining, terminal) + epochs_text(retraining, terminal) + artifacts_text(retraining, terminal);
}

std::string evaluation_view(const json& retraining, const std::string& split, const Terminal& terminal) {
  const json& figures = split_of(retraining, split);
  Facts facts;
  add_split(figures, facts);
  add_model(retraining, facts);
  return "retraining " + digits_in(retraining, "id") + " (" + one_line(text_in(retraining, "head", "?")) + " head) on " + split + "\n" +
         facts.text() + classes_text(figures, terminal) + confusion_text(figures, terminal);
}

std::string evaluation_html(const json& retraining) {
  const json& evaluation = value_in(retraining, "evaluation");
  const std::string title = "Retraining " + digits_in(retraining, "id") + " (" + text_in(retraining, "head", "?") + " head)";
  std::string text =
      "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>" + escaped(title) +
      "</title>\n<style>body{font:15px/1.4 sans-serif;margin:2em auto;max-width:70em;padding:0 1em}table{border-collapse:collapse;margin:.5em 0}"
      "td,th{border:1px solid #ccc;padding:.2em .6em;text-align:right}td:first-child,th:first-child{text-align:left}"
      ".matrix td{text-align:center;min-width:2.5em}</style></head><body>\n<h1>" + escaped(title) + "</h1>\n<p>" + escaped(origin_text(retraining)) +
      ", architecture " + escaped(triplets_text(value_in(retraining, "architecture"))) + ", dataset " + escaped(text_in(retraining, "dataset", "?")) +
      "</p>\n";
  text += html_table({"parameters", "multiply-adds a row", "latency (ms)", "device"},
                     {{grouped(digits_in(retraining, "parameters")), grouped(digits_in(evaluation, "multiply_adds")),
                       figure_text(number_in(evaluation, "latency_ms")), text_in(evaluation, "device", kAbsent)}});
  for (const char* split : {"dev", "test"}) {
    if (const json* figures = member(evaluation, split)) text += html_split(*figures, split);
  }
  return text + "</body></html>\n";
}

std::string epoch_line(const json& retraining, const json& epoch) {
  return "epoch " + digits_in(epoch, "epoch") + " of " + digits_in(retraining, "total_epochs") + ": loss " +
         figure_text(number_in(epoch, "train_loss")) + ", dev " + score_text(number_in(epoch, "dev_score")) + ", learning rate " +
         figure_text(number_in(epoch, "learning_rate")) + ", " + duration(number_in(epoch, "seconds"));
}

}  // namespace fusion::ctl
