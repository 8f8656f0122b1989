#include "tools/ctl/trial_views.h"

#include <map>
#include <utility>
#include <vector>

#include "tools/ctl/figures.h"
#include "tools/ctl/networks.h"
#include "tools/ctl/study_views.h"
#include "tools/ctl/table.h"

namespace fusion::ctl {

using nlohmann::json;

namespace {

const json& architecture_of(const json& trial) { return value_in(trial, "architecture"); }

/// Milliseconds between two times of a record, as seconds.
std::optional<double> between(const json& record, const char* from, const char* to) {
  const auto began = integer_in(record, from), ended = integer_in(record, to);
  if (!began || !ended) return std::nullopt;
  return static_cast<double>(*ended - *began) / 1000.0;
}

/// "lost (died)": the worker went down with it.
Cell outcome_cell(const json& attempt) {
  const std::string outcome = state_text(attempt, "outcome");
  return Cell(outcome + (integer_in(attempt, "died").value_or(0) != 0 ? " (died)" : ""), style_of_state(outcome));
}

std::string attempts_text(const json& attempts, const Terminal& terminal) {
  Table table({{"attempt", Align::right},
               {"worker", Align::left, true},
               {"outcome"},
               {"took", Align::right},
               {"device"},
               {"engine"},
               {"code"},
               {"LibTorch"},
               {"started"},
               {"error", Align::left, true, true}});
  for (const json& attempt : attempts) {
    const std::string name = text_in(attempt, "worker_name");
    const std::string worker = digits_in(attempt, "worker");
    table.add({digits_in(attempt, "attempt"), name.empty() ? worker : name + " (" + worker + ")",
               outcome_cell(attempt), duration(between(attempt, "started_ms", "ended_ms")),
               text_in(attempt, "device", kAbsent), text_in(attempt, "engine", kAbsent),
               text_in(attempt, "code_version", kAbsent), text_in(attempt, "torch_version", kAbsent),
               time_text(integer_in(attempt, "started_ms")), text_in(attempt, "error")});
  }
  return table.text(terminal);
}

/// A course over the epochs of one attempt: sparkline, first and last value.
std::string course(const std::vector<const json*>& epochs, const char* key, std::string (*shown)(std::optional<double>)) {
  std::vector<std::optional<double>> values;
  for (const json* epoch : epochs) values.push_back(number_in(*epoch, key));
  return sparkline(values) + "  " + shown(values.front()) + " to " + shown(values.back());
}

std::string epochs_text(const json& epochs, const Terminal& terminal) {
  std::map<std::int64_t, std::vector<const json*>> by_attempt;
  for (const json& epoch : epochs) by_attempt[integer_in(epoch, "attempt").value_or(0)].push_back(&epoch);
  std::string text;
  for (const auto& [attempt, rows] : by_attempt) {
    text += "\nepochs of attempt " + std::to_string(attempt) + "\n";
    Facts courses;
    courses.add("dev score", course(rows, "dev_score", score_text));
    courses.add("train loss", course(rows, "train_loss", figure_text));
    Table table({{"epoch", Align::right},
                 {"dev score", Align::right},
                 {"train loss", Align::right},
                 {"learning rate", Align::right},
                 {"took", Align::right}});
    for (const json* epoch : rows) {
      table.add({digits_in(*epoch, "epoch"), score_text(number_in(*epoch, "dev_score")),
                 figure_text(number_in(*epoch, "train_loss")), figure_text(number_in(*epoch, "learning_rate")),
                 duration(number_in(*epoch, "seconds"))});
    }
    text += courses.text() + table.text(terminal);
  }
  return text;
}

/// What the strategy noted, as it wrote it: a JSON text or an object.
std::string facts_text(const json& trial) {
  const json* facts = member(trial, "facts");
  if (facts == nullptr) return "";
  if (facts->is_string()) return facts->get<std::string>();
  return facts->empty() ? "" : facts->dump(-1, ' ', false, json::error_handler_t::replace);
}

/// "4, retries used 1: failed 1, lost 2, of these 1 with its worker; the next one alone"
std::string attempts_summary(const json& trial) {
  std::string text = digits_in(trial, "attempts") + ", retries used " + digits_in(trial, "failures");
  const json& outcomes = value_in(trial, "outcomes");
  const char* separator = ": ";
  for (const char* outcome : {"failed", "oom", "preempted", "lost"}) {
    const std::int64_t count = integer_in(outcomes, outcome).value_or(0);
    if (count == 0) continue;
    text += std::exchange(separator, ", ") + std::string(outcome) + " " + std::to_string(count);
  }
  if (const std::int64_t deaths = integer_in(outcomes, "deaths").value_or(0); deaths > 0) {
    text += ", of these " + std::to_string(deaths) + " alone with a worker that died";
  }
  const bool waits = text_in(trial, "state") == "queued" && value_in(trial, "alone") == json(true);
  return text + (waits ? "; the next one is trained alone" : "");
}

std::string score_facts(const json& trial) {
  return score_text(number_in(trial, "dev_score")) + " in epoch " + digits_in(trial, "best_epoch") + " (accuracy " +
         score_text(number_in(trial, "dev_accuracy")) + ", weighted F1 " + score_text(number_in(trial, "dev_weighted_f1")) +
         ", macro F1 " + score_text(number_in(trial, "dev_macro_f1")) + ")";
}

}  // namespace

std::string trials_view(const json& trials, const std::optional<DatasetSpec>& dataset, const Terminal& terminal) {
  Table table({{"trial", Align::right},
               {"ask", Align::right},
               {"state"},
               {"dev score", Align::right},
               {"test score", Align::right},
               {"train loss", Align::right},
               {"took", Align::right},
               {"attempts", Align::right},
               {"architecture", Align::left, true},
               {"network", Align::left, true, true},
               {"error", Align::left, true, true}});
  for (const json& trial : trials) {
    table.add({digits_in(trial, "id"), digits_in(trial, "ask_index"), state_cell(trial), score_text(number_in(trial, "dev_score")),
               score_text(number_in(trial, "test_score")), figure_text(number_in(trial, "train_loss")),
               duration(number_in(trial, "train_s")), digits_in(trial, "attempts"), triplets_text(architecture_of(trial)),
               network_text(architecture_of(trial), dataset), text_in(trial, "error")});
  }
  return table.text(terminal);
}

std::string best_view(const json& trials, const std::optional<DatasetSpec>& dataset, const Terminal& terminal) {
  Table table({{"place", Align::right},
               {"trial", Align::right},
               {"dev score", Align::right},
               {"test score", Align::right},
               {"epoch", Align::right},
               {"parameters", Align::right},
               {"took", Align::right},
               {"architecture", Align::left, true},
               {"network", Align::left, true, true}});
  int place = 0;
  for (const json& trial : trials) {
    table.add({std::to_string(++place), digits_in(trial, "id"), Cell(score_text(number_in(trial, "dev_score")), Style::bold),
               score_text(number_in(trial, "test_score")), digits_in(trial, "best_epoch"),
               grouped(digits_in(trial, "parameters")), duration(number_in(trial, "train_s")),
               triplets_text(architecture_of(trial)), network_text(architecture_of(trial), dataset)});
  }
  return table.text(terminal);
}

std::string trial_view(const json& trial, const std::optional<DatasetSpec>& dataset, const Terminal& terminal) {
  const std::string state = state_text(trial);
  std::string text = "trial " + digits_in(trial, "id") + " of study " + digits_in(trial, "study") + ": " +
                     styled(one_line(state), style_of_state(state), terminal) + "\n";
  Facts facts;
  if (const std::string error = text_in(trial, "error"); !error.empty()) facts.add("error", error);
  facts.add("architecture", triplets_text(architecture_of(trial)));
  int step = 0;
  for (const std::string& line : network_lines(architecture_of(trial), dataset)) facts.add("step " + std::to_string(++step), line);
  if (member(trial, "dev_score")) {
    facts.add("dev score", score_facts(trial));
    facts.add("test score", score_text(number_in(trial, "test_score")));
    facts.add("train loss", figure_text(number_in(trial, "train_loss")));
    facts.add("parameters", grouped(digits_in(trial, "parameters")));
    facts.add("took", duration(number_in(trial, "train_s")));
  }
  facts.add("order", "asked as " + digits_in(trial, "ask_index") + ", told as " + digits_in(trial, "told_index"));
  facts.add("seed", digits_in(trial, "seed") + ", replica " + digits_in(trial, "replica"));
  facts.add("attempts", attempts_summary(trial));
  if (const std::string noted = facts_text(trial); !noted.empty()) facts.add("facts", noted);
  facts.add("created", time_text(integer_in(trial, "created_ms")));
  facts.add("ended", time_text(integer_in(trial, "ended_ms")));
  text += facts.text();
  if (const json& attempts = list_in(trial, "attempt_log"); !attempts.empty()) text += "\n" + attempts_text(attempts, terminal);
  if (const json& epochs = list_in(trial, "epochs"); !epochs.empty()) text += epochs_text(epochs, terminal);
  return text;
}

}  // namespace fusion::ctl
