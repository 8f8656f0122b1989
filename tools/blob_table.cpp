#include "tools/blob_table.h"

#include <sys/stat.h>

#include <nlohmann/json.hpp>
#include <optional>

#include "base/json_reader.h"
#include "space/feature_manifest.h"
#include "space/manifest_files.h"

namespace fusion {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

constexpr const char* kDatasets = "SELECT dataset_path, dataset_digest FROM studies UNION SELECT dataset_path, dataset_digest FROM retrainings";

/// Changes when the file does, comes or goes.
std::string stamp_of(const std::string& file) {
  struct stat state {};
  if (::stat(file.c_str(), &state) != 0) return "none;";
  std::string text;
  for (const auto value : {static_cast<std::int64_t>(state.st_dev), static_cast<std::int64_t>(state.st_ino), static_cast<std::int64_t>(state.st_size),
                           static_cast<std::int64_t>(state.st_mtim.tv_sec), static_cast<std::int64_t>(state.st_mtim.tv_nsec)}) {
    text += std::to_string(value) + ",";
  }
  return text + ";";
}

class TableMaker {
 public:
  TableMaker(const std::vector<fs::path>& roots, BlobTable& table) : table_(table) {
    for (const fs::path& root : roots) roots_.push_back(fs::weakly_canonical(root));
  }

  void add_features(const fs::path& manifest, const std::string& digest) {
    try {
      const json features = read_registered(manifest, digest);
      for (const ManifestFile& file : feature_files(features)) add(manifest, file);
      add_inputs(manifest, features);
    } catch (const Error& error) {
      table_.problems[digest] = error.what();
    }
  }

 private:
  /// Before it is read: what changes meanwhile is seen the next time.
  void look_at(const fs::path& file) {
    table_.looked_at.push_back(file.string());
    table_.state += stamp_of(file.string());
  }

  json read_registered(const fs::path& manifest, const std::string& digest) {
    look_at(manifest);
    const auto file = resolved(manifest);
    if (!file) throw DataError(manifest.string() + " is not there, or lies below none of the daemon's data roots");
    json document = parse_json_file(*file);
    if (const std::string found = manifest_digest(document); found != digest) {
      throw DataError(manifest.string() + " has the digest " + found + " now, it was registered with " + digest +
                      "; the features were made anew since, submit the study again");
    }
    table_.files[digest] = file->string();
    return document;
  }

  /// A problem here is one of retrainings only: searches read features.
  void add_inputs(const fs::path& manifest, const json& features) {
    try {
      for (const ManifestFile& file : input_files(features)) {
        add(manifest, file);
        if (!file.manifest || !table_.files.contains(file.digest)) continue;
        const fs::path dataset = table_.files.at(file.digest);
        look_at(dataset);
        for (const ManifestFile& array : dataset_files(parse_json_file(dataset))) add(dataset, array);
      }
    } catch (const Error&) {
      return;
    }
  }

  void add(const fs::path& manifest, const ManifestFile& file) {
    const fs::path named = manifest.parent_path() / file.path;
    if (const auto found = resolved(named)) table_.files[file.digest] = found->string();
    else look_at(named);
  }

  std::optional<fs::path> resolved(const fs::path& named) const {
    std::error_code error;
    const fs::path file = fs::canonical(named, error);
    if (error || !fs::is_regular_file(file, error)) return std::nullopt;
    for (const fs::path& root : roots_) {
      const fs::path below = file.lexically_relative(root);
      if (!below.empty() && *below.begin() != "..") return file;
    }
    return std::nullopt;
  }

  std::vector<fs::path> roots_;
  BlobTable& table_;
};

}  // namespace

std::shared_ptr<const BlobTable> find_blobs(const StoreReader& reader, const std::vector<fs::path>& roots, const std::shared_ptr<const BlobTable>& known) {
  const json found = reader.query(kDatasets, 1'000'000, std::chrono::seconds(10));
  const std::string rows = found.at("rows").dump();
  if (known && !known->state.empty()) {
    std::string state = rows;
    for (const std::string& file : known->looked_at) state += stamp_of(file);
    if (state == known->state) return known;
  }
  const auto table = std::make_shared<BlobTable>();
  table->state = rows;
  TableMaker maker(roots, *table);
  for (const json& row : found.at("rows")) {
    maker.add_features(row.at(0).get<std::string>(), row.at(1).get<std::string>());
  }
  return table;
}

}  // namespace fusion
