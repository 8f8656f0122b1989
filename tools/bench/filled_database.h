#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

namespace fusion::bench {

/// Writes `folder/features.json`: the head of a feature manifest of two modalities of four taps each (a space of 5.3 million
/// architectures of one to four steps). No files behind it: nothing here is trained.
std::filesystem::path write_manifest_head(const std::filesystem::path& folder);

/// A study of `trials` random distinct architectures on that manifest.
nlohmann::json control_study(std::int64_t trials, int parallel);

/// Makes `folder/fusion.db` with one study that has `rows` trials, all completed but the last `open`, which are queued; the study is
/// running if there are any, else completed. As the daemon would have written it (the strategy's own proposals), but in bulk.
void fill_database(const std::filesystem::path& folder, std::int64_t rows, std::int64_t open);

}  // namespace fusion::bench
