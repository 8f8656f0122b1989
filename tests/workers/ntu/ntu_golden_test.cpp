// NTU RGB+D: skeleton files, frames of videos and splits against what the authors' own code made of them.
#include <algorithm>
#include <cmath>
#include <fstream>

#include "tests/golden.h"
#include "tests/temporary_folder.h"
#include "workers/ntu/frames.h"
#include "workers/ntu/samples.h"
#include "workers/ntu/skeleton.h"

namespace fusion {
namespace {

void expect_values(const std::vector<float>& got, const SafetensorsFile& file, const std::string& name, double tolerance) {
  const std::vector<double> expected = file.at(name).to<double>();
  ASSERT_EQ(got.size(), expected.size()) << name;
  double worst = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double off = std::abs(static_cast<double>(got[i]) - expected[i]);
    worst = std::isnan(off) ? INFINITY : std::max(worst, off);
  }
  EXPECT_LE(worst, tolerance) << name;
}

/// file0, file1, ...: a skeleton file each, with what became of it.
void skeletons(const std::filesystem::path& sidecar, const nlohmann::json& facts) {
  const SafetensorsFile tensors = golden::tensors_of(sidecar, facts);
  const double raw = facts.at("tolerance").at("raw"), val = facts.at("tolerance").at("val");
  for (const auto& [file, name] : facts.at("inputs").items()) {
    const std::filesystem::path path = sidecar.parent_path() / name.get<std::string>();
    const SkeletonClip clip = read_skeleton(path);
    EXPECT_EQ(clip.frames, tensors.at(file + ".raw").shape.at(1)) << file;
    expect_values(clip.values, tensors, file + ".raw", raw);
    const SkeletonOptions window{tensors.at(file + ".val").shape.at(1), true};
    expect_values(skeleton_input(clip, window, file).values, tensors, file + ".val", val);
    expect_values(skeleton_input(clip, {window.window, false}, file).values, tensors, file + ".val_no_norm", val);
    if (tensors.contains(file + ".aug") && clip.frames <= 64) {
      Rng rng(1);
      expect_values(skeleton_input(clip, window, file, &rng).values, tensors, file + ".aug", val);
    }
    const auto recording = NtuName::of_file(facts.at("sample_names").at(file).get<std::string>());
    ASSERT_TRUE(recording) << file;
    EXPECT_EQ(recording->label(), tensors.at(file + ".label").to<std::int64_t>().at(0)) << file;
  }
}

/// v0, v1, ...: the decoded frames, blue first, the 24 kept and the network's input.
void frames(const std::filesystem::path& sidecar, const nlohmann::json& facts) {
  const SafetensorsFile tensors = golden::tensors_of(sidecar, facts);
  const double tolerance = facts.at("tolerance").at("all");
  FrameOptions options;
  options.frames = facts.at("config").at("vid_len").at(0);
  options.spread = options.channels = NtuRule::reference;
  int checked = 0;
  for (; tensors.contains("v" + std::to_string(checked) + ".frames"); ++checked) {
    const std::string v = "v" + std::to_string(checked);
    const TensorView& decoded = tensors.at(v + ".frames");
    const std::vector<std::int64_t> values = decoded.to<std::int64_t>();
    const std::size_t size = values.size() / static_cast<std::size_t>(decoded.shape.at(0));
    std::size_t at = 0;
    const Video video{decoded.shape.at(0), decoded.shape.at(1), decoded.shape.at(2), [&](std::span<std::uint8_t> pixels) {
                        if (at == values.size()) return false;
                        for (std::size_t i = 0; i < size; ++i) {  // a decoder of ours gives red first
                          pixels[i - i % 3 + 2 - i % 3] = static_cast<std::uint8_t>(values[at + i]);
                        }
                        at += size;
                        return true;
                      }};
    options.slots = tensors.at(v + ".loaded24").shape.at(0);
    const FrameSlots slots = load_slots(video, options, v);
    expect_values({slots.pixels.begin(), slots.pixels.end()}, tensors, v + ".loaded24", tolerance);
    expect_values(clip_input(slots, options), tensors, v + ".net_input", tolerance);
  }
  EXPECT_GT(checked, 0);
}

/// Empty files of the recordings that the sidecar describes.
void make_files(const std::filesystem::path& root, const nlohmann::json& facts) {
  std::vector<NtuName> names;
  for (int subject = 1; subject <= 40; ++subject) names.push_back({1, 1, subject, 1, 1});
  for (const auto& name : facts.at("extra_samples")) names.push_back(NtuName::of_file(name.get<std::string>()).value());
  const auto clips = root / "nturgbd_rgb" / "avi_256x256_30", skeletons = root / "nturgbd_skeletons";
  std::filesystem::create_directories(clips);
  std::filesystem::create_directories(skeletons);
  for (const NtuName& name : names) {
    std::ofstream(clips / (name.text() + "_rgb.avi"));
    std::ofstream(skeletons / (name.text() + ".skeleton"));
  }
}

void splits(const std::filesystem::path& sidecar, const nlohmann::json& facts) {
  const SafetensorsFile tensors = golden::tensors_of(sidecar, facts);
  const testing::TemporaryFolder root;
  make_files(root.path(), facts);
  const auto missing = ntu_missing_skeletons();
  EXPECT_EQ(missing.size(), facts.at("bad_list_entries").get<std::size_t>());
  for (const auto& [split, name] : EnumNames<NtuSplit>::kTable) {
    for (const bool all : {true, false}) {
      std::vector<std::int64_t> subjects;
      for (const NtuSample& sample : list_ntu_samples(root.path(), split, all ? std::set<std::string, std::less<>>{} : missing)) {
        subjects.push_back(sample.name.subject);
      }
      std::sort(subjects.begin(), subjects.end());
      const std::string key = std::string(name) + (all ? ".all" : ".no_bad_skel");
      EXPECT_EQ(subjects, tensors.at(key).to<std::int64_t>()) << key;
    }
  }
}

}  // namespace
}  // namespace fusion

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  fusion::golden::register_kinds("Ntu", {{"NTU RGB+D .skeleton loading", fusion::skeletons},
                                         {"NTU RGB+D video loading", fusion::frames},
                                         {"NTU split and bad-skeleton handling", fusion::splits}});
  return RUN_ALL_TESTS();
}
