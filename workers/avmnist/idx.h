#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace fusion {

/// An array of unsigned bytes out of an IDX file, row-major.
struct IdxArray {
  std::vector<std::int64_t> shape;
  std::vector<std::uint8_t> data;
};

/// Reads an IDX file of unsigned bytes, plain or gzipped (told by content, not by name).
///
/// IDX: two zero bytes, a type byte (8: unsigned byte), a byte with the number of dimensions, the sizes as big-endian 32-bit
/// integers, the data. Throws DataError naming the file for another magic number, for a file that ends early or goes on too
/// long, and for damaged gzip data.
IdxArray read_idx(const std::filesystem::path& file);

/// Images (N, 28, 28) and labels (N) of one half of MNIST.
struct MnistPart {
  std::vector<std::uint8_t> pixels;  ///< [N, 784], 0 (paper) to 255 (ink)
  std::vector<std::uint8_t> labels;  ///< [N], 0 to 9
  std::int64_t rows() const { return static_cast<std::int64_t>(labels.size()); }
};

/// `<part>-images-idx3-ubyte` and `<part>-labels-idx1-ubyte` in a folder, with .gz where there is one, else without; `part` is
/// "train" or "t10k". Throws DataError for a missing folder or file.
std::array<std::filesystem::path, 2> mnist_files(const std::filesystem::path& folder, const std::string& part);

/// Reads the two. `limit` keeps the first rows only. Throws DataError for counts that differ, images that are not 28 by 28
/// and labels beyond 9.
MnistPart read_mnist(const std::filesystem::path& folder, const std::string& part,
                     std::optional<std::int64_t> limit = {});

}  // namespace fusion
