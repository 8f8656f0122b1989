#include "tools/ctl/study_views.h"

#include <cmath>
#include <cstdio>

#include "tools/ctl/figures.h"
#include "tools/ctl/networks.h"

namespace fusion::ctl {

using nlohmann::json;

namespace {

std::string percent(double share) {
  char text[16];
  std::snprintf(text, sizeof text, "%.0f %%", std::floor(100 * share));
  return text;
}

/// "0.9123 by trial 17, [[3,2,0]]"
std::string best_text(const json& study) {
  const json* best = member(study, "best");
  if (best == nullptr) return "none yet";
  return score_text(number_in(*best, "dev_score")) + " by trial " + digits_in(*best, "trial") + ", " +
         triplets_text(value_in(*best, "architecture"));
}

std::string dataset_text(const json& study) {
  const std::string digest = text_in(study, "dataset_digest").substr(0, 12);
  return text_in(study, "dataset", kAbsent) + (digest.empty() ? "" : " (digest " + digest + "...)");
}

std::string fit_text(const json& fit) {
  return text_in(fit, "surrogate", "surrogate") + ", fit " + digits_in(fit, "fit_index") + " on " +
         digits_in(fit, "observations") + " observations: loss " + figure_text(number_in(fit, "loss")) + ", rank correlation " +
         figure_text(number_in(fit, "rank_correlation")) + ", in " + duration(number_in(fit, "seconds"));
}

std::string rate_text(const json& study) {
  return figure_text(number_in(study, "trials_per_min")) + " trials/min, " +
         (member(study, "eta_s") ? duration(number_in(study, "eta_s")) + " to go" : "end not known");
}

std::string counts_text(const TrialCounts& counts) {
  return counts.progress() + " ended" + (counts.total > 0 ? " (" + percent(counts.share()) + ")" : "") + ": " +
         std::to_string(counts.completed) + " completed" +
         (counts.pruned > 0 ? " (" + std::to_string(counts.pruned) + " of them pruned)" : "") + ", " + std::to_string(counts.failed) + " failed, " +
         std::to_string(counts.cancelled) + " cancelled; " + std::to_string(counts.queued) + " queued, " +
         std::to_string(counts.leased) + " leased";
}

}  // namespace

TrialCounts TrialCounts::of(const json& study) {
  TrialCounts counts;
  const json* trials = member(study, "trials");
  if (trials == nullptr) return counts;
  counts.queued = integer_in(*trials, "queued").value_or(0);
  counts.leased = integer_in(*trials, "leased").value_or(0);
  counts.completed = integer_in(*trials, "completed").value_or(0);
  counts.failed = integer_in(*trials, "failed").value_or(0);
  counts.cancelled = integer_in(*trials, "cancelled").value_or(0);
  counts.total = integer_in(*trials, "total").value_or(0);
  counts.pruned = integer_in(*trials, "pruned").value_or(0);
  return counts;
}

std::string TrialCounts::progress() const {
  return total > 0 ? grouped(std::to_string(ended())) + " of " + plural(total, "trial") : plural(ended(), "trial");
}

Style style_of_state(const std::string& state) {
  if (state == "completed") return Style::good;
  if (state == "failed" || state == "cancelled" || state == "oom" || state == "lost") return Style::bad;
  return state == "running" || state == "leased" ? Style::plain : Style::faint;
}

std::string state_text(const json& record, const char* key) {
  const json* pruned = member(record, "pruned");
  return pruned != nullptr && pruned->is_boolean() && pruned->get<bool>() ? "pruned" : text_in(record, key, kAbsent);
}

Cell state_cell(const json& record, const char* key) {
  const std::string state = state_text(record, key);
  return Cell(state, style_of_state(state));
}

std::string studies_view(const json& studies, const Terminal& terminal) {
  Table table({{"study", Align::right},
               {"name", Align::left, true},
               {"state"},
               {"strategy", Align::left, true},
               {"ended", Align::right},
               {"total", Align::right},
               {"failed", Align::right},
               {"best", Align::right},
               {"trial", Align::right},
               {"priority", Align::right},
               {"created"},
               {"error", Align::left, true, true}});
  for (const json& study : studies) {
    const TrialCounts counts = TrialCounts::of(study);
    const json& best = value_in(study, "best");
    table.add({digits_in(study, "id"), text_in(study, "name", kAbsent), state_cell(study), text_in(study, "strategy", kAbsent),
               std::to_string(counts.ended()), counts.total > 0 ? std::to_string(counts.total) : std::string(kAbsent),
               std::to_string(counts.failed), Cell(score_text(number_in(best, "dev_score")), Style::bold),
               digits_in(best, "trial"), digits_in(study, "priority"), time_text(integer_in(study, "created_ms")), text_in(study, "error")});
  }
  return table.text(terminal);
}

std::string study_view(const json& study, const Terminal& terminal) {
  const std::string state = text_in(study, "state", kAbsent);
  std::string text = "study " + digits_in(study, "id") + " \"" + one_line(text_in(study, "name")) +
                     "\": " + styled(one_line(state), style_of_state(state), terminal) + "\n";
  Facts facts;
  if (const std::string error = text_in(study, "error"); !error.empty()) facts.add("error", error);
  facts.add("trials", counts_text(TrialCounts::of(study)));
  if (state == "running") facts.add("rate", rate_text(study));
  facts.add("best", best_text(study));
  const json& best = value_in(study, "best");
  for (const std::string& line : network_lines(value_in(best, "architecture"), dataset_of(study))) {
    facts.add("", line);
  }
  if (const json* fit = member(study, "last_fit")) facts.add("last fit", fit_text(*fit));
  facts.add("strategy", text_in(study, "strategy", kAbsent));
  facts.add("dataset", dataset_text(study));
  facts.add("seed", digits_in(study, "seed") + ", priority " + digits_in(study, "priority"));
  facts.add("created", time_text(integer_in(study, "created_ms")));
  facts.add("updated", time_text(integer_in(study, "updated_ms")));
  return text + facts.text();
}

std::string fits_view(const json& fits, const Terminal& terminal) {
  Table table({{"fit", Align::right},
               {"surrogate", Align::left, true},
               {"observations", Align::right},
               {"loss", Align::right},
               {"rank correlation", Align::right},
               {"mean error", Align::right},
               {"took", Align::right},
               {"at"}});
  for (const json& fit : fits) {
    table.add({digits_in(fit, "fit_index"), text_in(fit, "surrogate", kAbsent), digits_in(fit, "observations"),
               figure_text(number_in(fit, "loss")), figure_text(number_in(fit, "rank_correlation")),
               figure_text(number_in(fit, "mean_abs_error")), duration(number_in(fit, "seconds")),
               time_text(integer_in(fit, "at_ms"))});
  }
  return table.text(terminal);
}

}  // namespace fusion::ctl
