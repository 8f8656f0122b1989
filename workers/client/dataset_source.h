#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/enum_names.h"
#include "workers/client/blob_cache.h"

namespace fusion {

/// Whether a worker fetches data from the daemon.
enum class BlobUse : std::uint8_t {
  automatic,  ///< where the path that the daemon names cannot be read here, or holds other features
  always,     ///< whatever lies at that path here
  never,      ///< a shared path, or nothing
};
template <>
struct EnumNames<BlobUse> {
  static constexpr std::array<std::pair<BlobUse, std::string_view>, 3> kTable{
      {{BlobUse::automatic, "auto"}, {BlobUse::always, "always"}, {BlobUse::never, "never"}}};
};

struct DatasetSourceOptions {
  BlobUse use = BlobUse::automatic;
  std::filesystem::path cache;         ///< empty: `default_cache_folder()`
  std::uint64_t cache_bytes = 100'000'000'000;
  BlobFetcherOptions fetcher;
};

/// $FUSION_CACHE, else fusiond below $XDG_CACHE_HOME or ~/.cache, else one of this user's in the folder of temporary files.
std::filesystem::path default_cache_folder();

/// Finds the files of a dataset for a worker: at the path that the daemon names, which is then a shared one, or, where no file system is shared,
/// fetched by digest into a cache (blob_cache.h).
///
/// What was fetched looks like the original: below `<cache>/datasets/<digest>` a link to each blob stands where the manifest expects the
/// file, so whoever reads manifests needs not know of the cache. The cache is not touched before something is fetched. Used by the training thread only.
class DatasetSource {
 public:
  explicit DatasetSource(DatasetSourceOptions options) : options_(std::move(options)) {}

  /// What of a dataset is needed.
  enum class Depth {
    features,  ///< what a search reads
    inputs,    ///< also the dataset and the backbones, where the manifest names them
  };
  struct Located {
    std::filesystem::path manifest;  ///< features.json
    bool fetched = false;
    std::vector<CachedBlob> blobs;   ///< not evicted as long as this lives
    std::vector<ManifestFile> files; ///< of `blobs`
  };

  /// `path` and `digest`: what the daemon names. Throws UnreadableData with a sentence, FetchStopped, and, if the features at `path` are others
  /// and the daemon has these neither, DataError.
  Located locate(const std::string& path, const std::string& digest, Depth depth, const std::function<bool()>& stopped);
  /// After it was said that the files are wrong: removes from the cache what is damaged there. True if locating again may help.
  bool drop_damaged(const Located& located);
  const DatasetSourceOptions& options() const { return options_; }

 private:
  Located fetch(const std::string& digest, Depth depth, const std::function<bool()>& stopped);

  DatasetSourceOptions options_;
  std::optional<BlobCache> cache_;
  std::optional<BlobFetcher> fetcher_;
};

}  // namespace fusion
