#include "workers/ntu/samples.h"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <map>

#include "base/error.h"
#include "base/files.h"

namespace fusion {
namespace {

constexpr std::string_view kMissing[] = {
#include "workers/ntu/missing_skeletons.inc"
};

constexpr int kTrain[] = {1, 4, 8, 13, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38};
constexpr int kDev[] = {2, 5, 9, 14};
constexpr int kTest[] = {3, 6, 7, 10, 11, 12, 20, 21, 22, 23, 24, 26, 29, 30, 32, 33, 36, 37, 39, 40};
constexpr int kTrainexp[] = {1, 4, 8, 13, 15, 17, 19};

constexpr std::size_t kNameLength = 20;

std::map<NtuName, std::filesystem::path> files_of(const std::filesystem::path& folder, const std::string& extension) {
  std::map<NtuName, std::filesystem::path> files;
  std::error_code error;
  std::filesystem::directory_iterator entries(folder, error);
  for (; !error && entries != std::filesystem::directory_iterator(); entries.increment(error)) {
    const std::filesystem::path& file = entries->path();
    const auto name = NtuName::of_file(file.filename().string());
    if (name && file.extension() == extension) files[*name] = file;
  }
  if (error) throw DataError(folder.string() + ": cannot be read: " + error.message());
  return files;
}

}  // namespace

std::string NtuName::text() const {
  char text[64];
  std::snprintf(text, sizeof text, "S%03dC%03dP%03dR%03dA%03d", setup, camera, subject, replication, action);
  return text;
}

std::optional<NtuName> NtuName::of_file(std::string_view file_name) {
  if (file_name.size() < kNameLength) return std::nullopt;
  if (file_name.size() > kNameLength && file_name[kNameLength] >= '0' && file_name[kNameLength] <= '9') return std::nullopt;
  NtuName name;
  int* const numbers[] = {&name.setup, &name.camera, &name.subject, &name.replication, &name.action};
  for (std::size_t i = 0; i < 5; ++i) {
    const char* const begin = file_name.data() + 4 * i;
    if (*begin != "SCPRA"[i] || !std::all_of(begin + 1, begin + 4, [](char c) { return c >= '0' && c <= '9'; })) return std::nullopt;
    std::from_chars(begin + 1, begin + 4, *numbers[i]);
  }
  if (name.action < 1) return std::nullopt;
  return name;
}

std::span<const int> ntu_subjects(NtuSplit split) {
  switch (split) {
    case NtuSplit::train: return kTrain;
    case NtuSplit::dev: return kDev;
    case NtuSplit::test: return kTest;
    case NtuSplit::trainexp: return kTrainexp;
  }
  return {};
}

std::set<std::string, std::less<>> ntu_missing_skeletons() { return {std::begin(kMissing), std::end(kMissing)}; }

std::set<std::string, std::less<>> read_ntu_names(const std::filesystem::path& file) {
  std::set<std::string, std::less<>> names;
  const std::string text = read_text(file);
  std::size_t begin = 0;
  for (std::size_t number = 1; begin < text.size(); ++number) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    std::string line = text.substr(begin, end - begin);
    while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) line.pop_back();
    begin = end + 1;
    if (line.empty()) continue;
    if (line.size() != kNameLength || !NtuName::of_file(line)) {
      throw DataError(file.string() + ": line " + std::to_string(number) + ": expected a recording's name such as " +
                      "S001C002P003R002A013, got \"" + line.substr(0, 40) + "\"");
    }
    names.insert(line);
  }
  return names;
}

std::vector<NtuSample> list_ntu_samples(const std::filesystem::path& root, NtuSplit split,
                                        const std::set<std::string, std::less<>>& left_out) {
  const auto clips = files_of(root / "nturgbd_rgb" / "avi_256x256_30", ".avi");
  const auto skeletons = files_of(root / "nturgbd_skeletons", ".skeleton");
  const std::span<const int> subjects = ntu_subjects(split);
  const auto wanted = [&](const NtuName& name) {
    return std::find(subjects.begin(), subjects.end(), name.subject) != subjects.end() && !left_out.contains(name.text());
  };
  std::vector<NtuSample> samples;
  std::vector<std::string> alone;
  for (const auto& [name, clip] : clips) {
    if (!wanted(name)) continue;
    const auto skeleton = skeletons.find(name);
    if (skeleton == skeletons.end()) {
      alone.push_back(name.text() + " has no skeleton");
    } else {
      samples.push_back({name, clip, skeleton->second});
    }
  }
  for (const auto& [name, skeleton] : skeletons) {
    if (wanted(name) && !clips.contains(name)) alone.push_back(name.text() + " has no clip");
  }
  if (!alone.empty()) {
    throw DataError(root.string() + ": " + alone.front() +
                    (alone.size() > 1 ? ", and " + std::to_string(alone.size() - 1) + " more recordings lack one" : "") +
                    "; complete the folders or leave these recordings out");
  }
  return samples;
}

}  // namespace fusion
