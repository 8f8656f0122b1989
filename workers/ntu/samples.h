#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/enum_names.h"

namespace fusion {

/// What the name of an NTU RGB+D recording says: "S001C002P003R002A013".
struct NtuName {
  int setup = 0, camera = 0, subject = 0, replication = 0;
  int action = 0;  ///< from 1

  auto operator<=>(const NtuName&) const = default;
  int label() const { return action - 1; }
  std::string text() const;
  /// Of a file name that begins with one, such as "S001C002P003R002A013_rgb.avi"; nothing for any other.
  static std::optional<NtuName> of_file(std::string_view file_name);
};

/// Which recordings: by subject. train and dev together are the 20 official training subjects of the cross-subject protocol.
enum class NtuSplit : std::uint8_t { train, dev, test, trainexp };
template <>
struct EnumNames<NtuSplit> {
  static constexpr std::array<std::pair<NtuSplit, std::string_view>, 4> kTable{
      {{NtuSplit::train, "train"}, {NtuSplit::dev, "dev"}, {NtuSplit::test, "test"}, {NtuSplit::trainexp, "trainexp"}}};
};
std::span<const int> ntu_subjects(NtuSplit split);

/// The 302 recordings whose skeletons are missing or incomplete, as the data set's authors list them.
std::set<std::string, std::less<>> ntu_missing_skeletons();
/// Such a list from a file, a name a line. Throws DataError naming file and line for anything else.
std::set<std::string, std::less<>> read_ntu_names(const std::filesystem::path& file);

struct NtuSample {
  NtuName name;
  std::filesystem::path clip, skeleton;
};

/// The split's recordings below `root`, in the order of their names: clips `nturgbd_rgb/avi_256x256_30/*.avi` with skeletons
/// `nturgbd_skeletons/*.skeleton` of the same name, those in `left_out` left out. Files of other names are passed over. Throws DataError
/// if a folder cannot be read, or if a recording lacks its clip or its skeleton.
///
/// Differs from the reference, which pairs both listings by their index and so mixes recordings up where one file is missing.
std::vector<NtuSample> list_ntu_samples(const std::filesystem::path& root, NtuSplit split,
                                        const std::set<std::string, std::less<>>& left_out = {});

}  // namespace fusion
