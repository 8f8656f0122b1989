#include "tools/crash/verdict.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

namespace fusion {

namespace {

constexpr std::size_t kMostInWords = 20;

std::vector<std::string> in_words(const HistoryFindings& findings) {
  std::vector<std::string> words;
  const auto add = [&](const char* what, const std::vector<std::string>& sentences) {
    for (const std::string& sentence : sentences) {
      if (words.size() < kMostInWords) words.push_back(std::string(what) + ": " + sentence);
    }
  };
  add("lost", findings.lost);
  add("doubled", findings.doubled);
  add("illegal", findings.illegal);
  add("stuck", findings.stuck);
  return words;
}

}  // namespace

double percentile(std::vector<double> values, double share) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const double rank = std::ceil(share * static_cast<double>(values.size()));
  return values[static_cast<std::size_t>(std::clamp(rank - 1, 0.0, static_cast<double>(values.size() - 1)))];
}

nlohmann::json verdict_json(const HistoryFindings& findings) {
  return {{"studies", findings.studies},
          {"trials", findings.trials},
          {"attempts", findings.attempts},
          {"epochs", findings.epochs},
          {"results_acknowledged", findings.results_acknowledged},
          {"epochs_acknowledged", findings.epochs_acknowledged},
          {"lost", findings.lost.size()},
          {"doubled", findings.doubled.size()},
          {"stuck", findings.stuck.size()},
          {"illegal", findings.illegal.size()},
          {"findings", in_words(findings)}};
}

std::string verdict_text(const HistoryFindings& findings) {
  std::string text = "studies " + std::to_string(findings.studies) + ", trials " + std::to_string(findings.trials) + ", attempts " +
                     std::to_string(findings.attempts) + ", acknowledged: results " + std::to_string(findings.results_acknowledged) + ", epochs " +
                     std::to_string(findings.epochs_acknowledged) + "\nlost " + std::to_string(findings.lost.size()) + ", doubled " +
                     std::to_string(findings.doubled.size()) + ", stuck " + std::to_string(findings.stuck.size()) + ", illegal " +
                     std::to_string(findings.illegal.size()) + "\n";
  for (const std::string& sentence : in_words(findings)) text += "  " + sentence + "\n";
  return text;
}

}  // namespace fusion
