#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/tensor_files.h"

namespace fusion {

/// The SHA-256 of a file, remembered by (path, size, mtime, inode) within the process: a file that did not change is read once.
/// Thread-safe. Throws DataError naming the file.
std::string remembered_sha256(const std::filesystem::path& file);

/// Where the first value stands that is not finite, or nullopt. Only floating types can hold one.
std::optional<std::int64_t> first_not_finite(const TensorView& view);

/// A sentence about a tensor of labels, or "" if it is a list of whole numbers in [0, classes): its type, its rank, or the first
/// row that is out of range. `subject` (file and tensor) stands in front.
std::string labels_problem(const TensorView& view, std::int64_t classes, const std::string& subject);

/// "[55000, 112, 112]".
std::string shape_text(const std::vector<std::int64_t>& shape);

}  // namespace fusion
