#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/enum_names.h"
#include "base/files.h"

namespace fusion {

/// Element types of `.safetensors` and `.npy` files that we read and write.
enum class DType : std::uint8_t { f64, f32, f16, bf16, i64, i32, i16, i8, u8, boolean };
/// The names are the ones of the safetensors format.
template <>
struct EnumNames<DType> {
  static constexpr std::array<std::pair<DType, std::string_view>, 10> kTable{{{DType::f64, "F64"},
                                                                              {DType::f32, "F32"},
                                                                              {DType::f16, "F16"},
                                                                              {DType::bf16, "BF16"},
                                                                              {DType::i64, "I64"},
                                                                              {DType::i32, "I32"},
                                                                              {DType::i16, "I16"},
                                                                              {DType::i8, "I8"},
                                                                              {DType::u8, "U8"},
                                                                              {DType::boolean, "BOOL"}}};
};
std::size_t size_of(DType type);

/// A tensor in a mapped file: row-major (C order), little-endian. Copies share the mapping; never write through it.
struct TensorView {
  DType dtype = DType::f32;
  std::vector<std::int64_t> shape;
  const std::byte* data = nullptr;
  std::size_t bytes = 0;
  std::shared_ptr<const MappedFile> file;

  std::int64_t count() const;
  /// Elements converted to T (double, float or int64_t), whatever is stored; a copy.
  template <typename T>
  std::vector<T> to() const;
};

/// A tensor to write: the caller owns the bytes until the write returns.
struct TensorSource {
  DType dtype = DType::f32;
  std::vector<std::int64_t> shape;
  const void* data = nullptr;
};

/// A `.safetensors` file mapped read-only.
///
/// The header is checked wholly before any tensor is given out: header length within the file (and at most 100 MB), valid
/// JSON, known types, begin <= end <= data size, end - begin equal to shape times size, no overlap. Anything else throws
/// DataError naming the file, the tensor and the numbers. Thread-safe after construction.
class SafetensorsFile {
 public:
  static SafetensorsFile open(const std::filesystem::path& file);
  const std::map<std::string, TensorView>& tensors() const { return tensors_; }
  /// Throws DataError that names the file and lists the tensors there are.
  const TensorView& at(std::string_view name) const;
  bool contains(std::string_view name) const { return tensors_.contains(std::string(name)); }
  /// The `__metadata__` entries, text to text.
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  std::map<std::string, TensorView> tensors_;
  std::map<std::string, std::string> metadata_;
};

/// Writes atomically. Tensors keep the order given; the header is padded so that the data starts on a multiple of 64, and a
/// tensor is placed on a multiple of 64 when the previous sizes allow it (the format forbids holes, so it is not padded).
void write_safetensors(const std::filesystem::path& file,
                       const std::vector<std::pair<std::string, TensorSource>>& tensors,
                       const std::map<std::string, std::string>& metadata = {});

/// A `.npy` file (format 1.0 to 3.0, little-endian, C order) mapped read-only. Throws DataError that names file and place.
TensorView open_npy(const std::filesystem::path& file);
/// Writes format 1.0, atomically.
void write_npy(const std::filesystem::path& file, const TensorSource& tensor);

}  // namespace fusion
