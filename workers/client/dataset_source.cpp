#include "workers/client/dataset_source.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "base/files.h"
#include "base/log.h"
#include "space/feature_manifest.h"
#include "workers/client/worker_condition.h"

namespace fusion {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

/// Why the features at `path` are not the wanted ones, or cannot be read here; empty if they are.
struct LocalCheck {
  bool readable = false;
  std::string problem;
};

LocalCheck check_local(const std::string& path, const std::string& digest) {
  if (::access(path.c_str(), R_OK) != 0 || fs::is_directory(path)) return {false, path + ": cannot be read on this host"};
  try {
    const std::string found = read_feature_manifest(path).digest;
    if (found == digest) return {true, ""};
    return {true, path + ": its digest is " + found + ", expected " + digest + "; the features were made anew since"};
  } catch (const Error& error) {
    return {true, error.what()};
  }
}

/// How many folders a path climbs: 2 for "../../a".
std::size_t climbs(const std::string& path) {
  std::size_t n = 0;
  for (const fs::path& part : fs::path(path)) n += part == ".." ? 1 : 0;
  return n;
}

/// A link in one step, whatever stood there.
void place_link(const fs::path& to, const fs::path& at) {
  std::error_code error;
  fs::create_directories(at.parent_path(), error);
  if (fs::read_symlink(at, error) == to) return;
  const fs::path temporary = at.string() + ".tmp." + std::to_string(::getpid());
  fs::remove(temporary, error);
  fs::create_symlink(to, temporary, error);
  if (!error) fs::rename(temporary, at, error);
  if (error) throw DataError(at.string() + ": cannot be made a link: " + error.message());
}

}  // namespace

fs::path default_cache_folder() {
  if (const char* named = std::getenv("FUSION_CACHE"); named != nullptr && *named != '\0') return named;
  if (const char* base = std::getenv("XDG_CACHE_HOME"); base != nullptr && *base == '/') return fs::path(base) / "fusiond";
  if (const char* home = std::getenv("HOME"); home != nullptr && *home == '/' && ::access(home, W_OK) == 0) return fs::path(home) / ".cache/fusiond";
  std::error_code error;
  const fs::path temporary = fs::temp_directory_path(error);
  return (error ? fs::path("/tmp") : temporary) / ("fusiond-cache-" + std::to_string(::geteuid()));
}

DatasetSource::Located DatasetSource::locate(const std::string& path, const std::string& digest, Depth depth,
                                             const std::function<bool()>& stopped) {
  LocalCheck local;
  if (options_.use != BlobUse::always) local = check_local(path, digest);
  const bool here = options_.use != BlobUse::always && local.readable && local.problem.empty();
  if (here) return {path, false, {}, {}};
  if (options_.use == BlobUse::never) {
    if (local.readable) throw DataError(local.problem);
    throw UnreadableData(local.problem + ", and it fetches nothing from the daemon (--blobs never)");
  }
  try {
    return fetch(digest, depth, stopped);
  } catch (const UnreadableData&) {
    if (local.readable) throw DataError(local.problem);
    throw;
  } catch (const ConfigError& error) {  // the cache's folder
    throw UnreadableData(error.what());
  } catch (const DataError& error) {
    throw UnreadableData(error.what());
  }
}

DatasetSource::Located DatasetSource::fetch(const std::string& digest, Depth depth, const std::function<bool()>& stopped) {
  if (!is_digest(digest)) throw DataError("the study's dataset digest is no digest: \"" + digest + "\"");
  if (!cache_) cache_.emplace(options_.cache.empty() ? default_cache_folder() : options_.cache, options_.cache_bytes);
  if (!fetcher_) fetcher_.emplace(options_.fetcher);
  Located located;
  located.fetched = true;
  const auto get = [&](const ManifestFile& file) -> const fs::path& {
    located.blobs.push_back(cache_->get(file, *fetcher_, stopped));
    located.files.push_back(file);
    return located.blobs.back().file;
  };
  const json features = parse_json_file(get({"features.json", digest, true}));
  for (const ManifestFile& file : feature_files(features)) get(file);
  for (const ManifestFile& file : depth == Depth::inputs ? input_files(features) : std::vector<ManifestFile>{}) {
    const fs::path blob = get(file);
    if (!file.manifest) continue;
    for (ManifestFile array : dataset_files(parse_json_file(blob))) {
      array.path = path_beside(file.path, array.path);
      get(array);
    }
  }
  std::size_t depth_needed = 0;
  for (const ManifestFile& file : located.files) depth_needed = std::max(depth_needed, climbs(file.path));
  fs::path folder = cache_->folder() / "datasets" / digest;
  for (std::size_t i = 0; i < depth_needed; ++i) folder /= "below";
  for (std::size_t i = 0; i < located.files.size(); ++i) {
    place_link(located.blobs[i].file, (folder / located.files[i].path).lexically_normal());
  }
  located.manifest = folder / "features.json";
  logger("worker")->info("dataset fetched dataset_digest={} files={} cache={} cache_bytes={}", digest, located.files.size(), cache_->folder().string(),
                         cache_->bytes());
  return located;
}

bool DatasetSource::drop_damaged(const Located& located) {
  bool any = false;
  for (const ManifestFile& file : located.files) any = cache_->drop_if_damaged(file) || any;
  return any;
}

}  // namespace fusion
