#include "tools/data_tables.h"

#include <algorithm>
#include <cstdio>

namespace fusion {

namespace {

void print_line(const std::string& name, std::size_t width, const std::map<std::string, double>& accuracy) {
  std::printf("%-*s", static_cast<int>(width), name.c_str());
  for (const char* split : {"train", "dev", "test"}) {
    const auto found = accuracy.find(split);
    if (found == accuracy.end()) std::printf("  %7s", "-");
    else std::printf("  %7.2f", 100 * found->second);
  }
  std::printf("\n");
}

}  // namespace

void print_baselines(const FeatureManifest& manifest) {
  const Baselines& baselines = manifest.baselines;
  if (baselines.unimodal.empty()) return;
  std::size_t width = std::string("late fusion, log-softmax").size();
  for (const auto& [name, accuracy] : baselines.unimodal) width = std::max(width, name.size() + 6);
  std::printf("%-*s  %7s  %7s  %7s\n", static_cast<int>(width), "accuracy, %", "train", "dev", "test");
  for (const auto& [name, accuracy] : baselines.unimodal) print_line(name + " alone", width, accuracy);
  if (!baselines.sum_logits.empty()) print_line("late fusion, logits", width, baselines.sum_logits);
  if (!baselines.sum_log_softmax.empty()) print_line("late fusion, log-softmax", width, baselines.sum_log_softmax);
}

}  // namespace fusion
