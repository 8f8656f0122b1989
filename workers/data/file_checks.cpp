#include "workers/data/file_checks.h"

#include <sys/stat.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <map>
#include <mutex>
#include <tuple>

#include "base/digest.h"

namespace fusion {

namespace {

/// What tells one state of a file from another without reading it.
using FileState = std::tuple<std::string, std::int64_t, std::int64_t, std::int64_t, std::uint64_t>;

std::optional<FileState> state_of(const std::filesystem::path& file) {
  struct stat s {};
  if (::stat(file.c_str(), &s) != 0) return std::nullopt;
  return FileState{std::filesystem::absolute(file).lexically_normal().string(), s.st_size, s.st_mtim.tv_sec, s.st_mtim.tv_nsec,
                   s.st_ino};
}

/// A number is not finite if and only if all bits of its exponent are set.
template <typename Bits, Bits kExponent>
std::optional<std::int64_t> scan(const TensorView& view) {
  const std::int64_t n = view.count();
  for (std::int64_t i = 0; i < n; ++i) {
    Bits bits;
    std::memcpy(&bits, view.data + static_cast<std::size_t>(i) * sizeof(Bits), sizeof(Bits));
    if ((bits & kExponent) == kExponent) return i;
  }
  return std::nullopt;
}

}  // namespace

std::string remembered_sha256(const std::filesystem::path& file) {
  static std::mutex mutex;
  static std::map<FileState, std::string> known;
  const auto state = state_of(file);
  if (state) {
    const std::lock_guard lock(mutex);
    if (const auto found = known.find(*state); found != known.end()) return found->second;
  }
  std::string digest = sha256_of_file(file);
  if (state && state == state_of(file)) {
    const std::lock_guard lock(mutex);
    known[*state] = digest;
  }
  return digest;
}

std::optional<std::int64_t> first_not_finite(const TensorView& view) {
  switch (view.dtype) {
    case DType::f64: return scan<std::uint64_t, 0x7FF0'0000'0000'0000u>(view);
    case DType::f32: return scan<std::uint32_t, 0x7F80'0000u>(view);
    case DType::f16: return scan<std::uint16_t, 0x7C00u>(view);
    case DType::bf16: return scan<std::uint16_t, 0x7F80u>(view);
    default: return std::nullopt;
  }
}

std::string labels_problem(const TensorView& view, std::int64_t classes, const std::string& subject) {
  const bool whole = view.dtype == DType::i64 || view.dtype == DType::i32 || view.dtype == DType::i16 || view.dtype == DType::i8 ||
                     view.dtype == DType::u8;
  if (!whole) return subject + ": labels have the type " + std::string(name_of(view.dtype)) + "; expected whole numbers";
  if (view.shape.size() != 1) return subject + ": labels have the shape " + shape_text(view.shape) + "; expected [rows]";
  const std::vector<std::int64_t> labels = view.to<std::int64_t>();
  for (std::size_t row = 0; row < labels.size(); ++row) {
    if (labels[row] >= 0 && labels[row] < classes) continue;
    return subject + ": the label of row " + std::to_string(row) + " is " + std::to_string(labels[row]) + "; expected 0 to " +
           std::to_string(classes - 1);
  }
  return "";
}

std::string shape_text(const std::vector<std::int64_t>& shape) {
  std::string text;
  for (const std::int64_t n : shape) text += (text.empty() ? "" : ", ") + std::to_string(n);
  return "[" + text + "]";
}

}  // namespace fusion
