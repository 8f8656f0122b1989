#include "base/tensor_files.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstring>
#include <nlohmann/json.hpp>
#include <ostream>

#include "base/json_depth.h"

namespace fusion {

static_assert(std::endian::native == std::endian::little, "files are little-endian and mapped as they are");

std::size_t size_of(DType type) {
  switch (type) {
    case DType::f64:
    case DType::i64:
      return 8;
    case DType::f32:
    case DType::i32:
      return 4;
    case DType::f16:
    case DType::bf16:
    case DType::i16:
      return 2;
    case DType::i8:
    case DType::u8:
    case DType::boolean:
      return 1;
  }
  return 1;
}

std::int64_t TensorView::count() const {
  std::int64_t n = 1;
  for (const std::int64_t d : shape) n *= d;
  return n;
}

namespace {

float half_to_float(std::uint16_t h) {
  const std::uint32_t sign = static_cast<std::uint32_t>(h & 0x8000u) << 16;
  const std::uint32_t exponent = (h >> 10) & 31u;
  const std::uint32_t mantissa = h & 0x3FFu;
  if (exponent == 0) {  // zero and subnormal: mantissa * 2^-24
    const float value = static_cast<float>(mantissa) * 0x1p-24f;
    return sign != 0 ? -value : value;
  }
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7F800000u | (mantissa << 13));
  return std::bit_cast<float>(sign | ((exponent + 112u) << 23) | (mantissa << 13));
}

template <typename From, typename T>
void convert(const std::byte* data, std::vector<T>& out) {
  for (std::size_t i = 0; i < out.size(); ++i) {
    From value;
    std::memcpy(&value, data + i * sizeof(From), sizeof(From));
    out[i] = static_cast<T>(value);
  }
}

std::string shape_text(const std::vector<std::int64_t>& shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) text += (i > 0 ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

/// Bytes of a tensor of that shape, or nullopt where a size is negative or the product of some of them overflows a signed integer.
std::optional<std::uint64_t> bytes_of(const std::vector<std::int64_t>& shape, DType dtype) {
  auto bytes = static_cast<std::int64_t>(size_of(dtype));
  for (const std::int64_t d : shape) {
    if (d < 0 || __builtin_mul_overflow(bytes, d, &bytes)) return std::nullopt;
  }
  return static_cast<std::uint64_t>(bytes);
}

}  // namespace

template <typename T>
std::vector<T> TensorView::to() const {
  std::vector<T> out(static_cast<std::size_t>(count()));
  switch (dtype) {
    case DType::f64: convert<double>(data, out); break;
    case DType::f32: convert<float>(data, out); break;
    case DType::i64: convert<std::int64_t>(data, out); break;
    case DType::i32: convert<std::int32_t>(data, out); break;
    case DType::i16: convert<std::int16_t>(data, out); break;
    case DType::i8: convert<std::int8_t>(data, out); break;
    case DType::u8:
    case DType::boolean: convert<std::uint8_t>(data, out); break;
    case DType::f16:
    case DType::bf16:
      for (std::size_t i = 0; i < out.size(); ++i) {
        std::uint16_t bits;
        std::memcpy(&bits, data + 2 * i, 2);
        out[i] = static_cast<T>(dtype == DType::f16 ? half_to_float(bits)
                                                    : std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16));
      }
      break;
  }
  return out;
}
template std::vector<double> TensorView::to<double>() const;
template std::vector<float> TensorView::to<float>() const;
template std::vector<std::int64_t> TensorView::to<std::int64_t>() const;

// ---------------------------------------------------------------------------------------------- safetensors

namespace {

using nlohmann::json;
constexpr std::uint64_t kHeaderCap = 100'000'000;

struct Range {
  std::uint64_t begin, end;
  std::string name;
};

TensorView parse_entry(const std::string& where, const json& entry, const std::byte* base, std::uint64_t data_bytes,
                       std::vector<Range>& ranges, const std::string& name) {
  const auto bad = [&](const std::string& what) { return DataError(where + ": " + what); };
  if (!entry.is_object() || !entry.contains("dtype") || !entry.contains("shape") || !entry.contains("data_offsets")) {
    throw bad("expected an object with dtype, shape and data_offsets");
  }
  const json& dtype = entry["dtype"];
  const auto type = dtype.is_string() ? enum_from_name<DType>(dtype.get_ref<const std::string&>()) : std::nullopt;
  if (!type) throw bad("unknown dtype " + dtype.dump() + "; allowed are " + enum_choices<DType>());
  TensorView view;
  view.dtype = *type;
  const json& shape = entry["shape"];
  if (!shape.is_array()) throw bad("shape is not a list");
  for (const json& d : shape) {
    if (!d.is_number_integer() || (d.is_number_unsigned() && d.get<std::uint64_t>() > INT64_MAX)) {
      throw bad("shape holds " + d.dump() + ", not a size");
    }
    view.shape.push_back(d.get<std::int64_t>());
  }
  const json& offsets = entry["data_offsets"];
  if (!offsets.is_array() || offsets.size() != 2 || !offsets[0].is_number_unsigned() ||
      !offsets[1].is_number_unsigned()) {
    throw bad("data_offsets is not a pair of offsets: " + offsets.dump());
  }
  const std::uint64_t begin = offsets[0].get<std::uint64_t>(), end = offsets[1].get<std::uint64_t>();
  if (begin > end || end > data_bytes) {
    throw bad("data_offsets " + offsets.dump() + " do not lie within the " + std::to_string(data_bytes) +
              " bytes of data (is the file truncated?)");
  }
  const auto bytes = bytes_of(view.shape, view.dtype);
  if (!bytes || *bytes != end - begin) {
    throw bad("shape " + shape_text(view.shape) + " of " + std::string(name_of(view.dtype)) + " does not fill data_offsets " +
              offsets.dump());
  }
  view.data = base + begin;
  view.bytes = end - begin;
  ranges.push_back({begin, end, name});
  return view;
}

}  // namespace

SafetensorsFile SafetensorsFile::open(const std::filesystem::path& file) {
  SafetensorsFile result;
  result.path_ = file;
  const auto mapped = MappedFile::open(file);
  const std::string where = file.string();
  if (mapped->size() < 8) throw DataError(where + ": " + std::to_string(mapped->size()) + " bytes are too few for a .safetensors file");
  std::uint64_t header_bytes;
  std::memcpy(&header_bytes, mapped->data(), 8);
  if (header_bytes > kHeaderCap || header_bytes > mapped->size() - 8) {
    throw DataError(where + ": the header is said to have " + std::to_string(header_bytes) + " bytes, the file has " +
                    std::to_string(mapped->size()) + " (truncated, or not a .safetensors file)");
  }
  const auto* text = reinterpret_cast<const char*>(mapped->data() + 8);
  if (json_depth({text, header_bytes}) > kMaxJsonDepth) throw DataError(where + ": the header is nested too deep (not a .safetensors file)");
  json header = json::parse(text, text + header_bytes, nullptr, false);
  if (!header.is_object()) throw DataError(where + ": the header is not a JSON object (not a .safetensors file)");
  const std::byte* base = mapped->data() + 8 + header_bytes;
  const std::uint64_t data_bytes = mapped->size() - 8 - header_bytes;
  std::vector<Range> ranges;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") {
      if (!entry.is_object()) throw DataError(where + ": __metadata__ is not an object");
      for (const auto& [key, value] : entry.items()) {
        result.metadata_[key] = value.is_string() ? value.get<std::string>() : value.dump();
      }
      continue;
    }
    TensorView view = parse_entry(where + ": tensor \"" + name + "\"", entry, base, data_bytes, ranges, name);
    view.file = mapped;
    result.tensors_.emplace(name, std::move(view));
  }
  std::sort(ranges.begin(), ranges.end(), [](const Range& a, const Range& b) { return a.begin < b.begin || (a.begin == b.begin && a.end < b.end); });
  for (std::size_t i = 1; i < ranges.size(); ++i) {
    if (ranges[i].begin < ranges[i - 1].end) {
      throw DataError(where + ": tensors \"" + ranges[i - 1].name + "\" and \"" + ranges[i].name + "\" overlap");
    }
  }
  return result;
}

const TensorView& SafetensorsFile::at(std::string_view name) const {
  const auto found = tensors_.find(std::string(name));
  if (found != tensors_.end()) return found->second;
  std::string there;
  for (const auto& [key, view] : tensors_) {
    if (there.size() > 300) { there += ", ..."; break; }
    there += (there.empty() ? "" : ", ") + key;
  }
  throw DataError(path_.string() + ": has no tensor \"" + std::string(name) + "\"; there are: " + there);
}

void write_safetensors(const std::filesystem::path& file,
                       const std::vector<std::pair<std::string, TensorSource>>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::uint64_t offset = 0;
  std::vector<std::uint64_t> sizes;
  for (const auto& [name, tensor] : tensors) {
    const auto bytes = bytes_of(tensor.shape, tensor.dtype);
    if (!bytes) throw DataError(file.string() + ": tensor \"" + name + "\" has the impossible shape " + shape_text(tensor.shape));
    header[name] = {{"dtype", std::string(name_of(tensor.dtype))}, {"shape", tensor.shape}, {"data_offsets", {offset, offset + *bytes}}};
    offset += *bytes;
    sizes.push_back(*bytes);
  }
  std::string text = header.dump();
  text.append((64 - (8 + text.size()) % 64) % 64, ' ');
  write_atomically(file, [&](std::ostream& out) {
    const std::uint64_t length = text.size();
    out.write(reinterpret_cast<const char*>(&length), 8);
    out.write(text.data(), static_cast<std::streamsize>(text.size()));
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      out.write(static_cast<const char*>(tensors[i].second.data), static_cast<std::streamsize>(sizes[i]));
    }
  });
}

// ---------------------------------------------------------------------------------------------- npy

namespace {

constexpr std::array<std::pair<DType, std::string_view>, 9> kNpyTypes{{{DType::f64, "<f8"},
                                                                       {DType::f32, "<f4"},
                                                                       {DType::f16, "<f2"},
                                                                       {DType::i64, "<i8"},
                                                                       {DType::i32, "<i4"},
                                                                       {DType::i16, "<i2"},
                                                                       {DType::i8, "|i1"},
                                                                       {DType::u8, "|u1"},
                                                                       {DType::boolean, "|b1"}}};

/// The value after `'key':` in the header's Python dict, up to the next comma or brace outside brackets; trimmed.
std::string_view dict_value(std::string_view header, std::string_view key) {
  const std::string quoted = "'" + std::string(key) + "'";
  std::size_t at = header.find(quoted);
  if (at == std::string_view::npos) return {};
  at = header.find(':', at);
  if (at == std::string_view::npos) return {};
  std::size_t end = ++at;
  for (int depth = 0; end < header.size(); ++end) {
    const char c = header[end];
    if (c == '(' || c == '[') ++depth;
    if (c == ')' || c == ']') --depth;
    if (depth == 0 && (c == ',' || c == '}')) break;
  }
  while (at < end && header[at] == ' ') ++at;
  while (end > at && header[end - 1] == ' ') --end;
  return header.substr(at, end - at);
}

}  // namespace

TensorView open_npy(const std::filesystem::path& file) {
  const auto mapped = MappedFile::open(file);
  const auto bad = [&](const std::string& what) { return DataError(file.string() + ": " + what); };
  if (mapped->size() < 10 || std::memcmp(mapped->data(), "\x93NUMPY", 6) != 0) {
    throw bad("is not a .npy file (the first six bytes are not \\x93NUMPY)");
  }
  const int major = static_cast<int>(mapped->data()[6]);
  if (major < 1 || major > 3) throw bad(".npy format " + std::to_string(major) + " is not known; 1 to 3 are");
  const std::size_t length_bytes = major == 1 ? 2 : 4;
  std::uint32_t header_bytes = 0;
  if (mapped->size() < 8 + length_bytes) throw bad("is truncated within its header");
  std::memcpy(&header_bytes, mapped->data() + 8, length_bytes);
  const std::size_t start = 8 + length_bytes + header_bytes;
  if (start > mapped->size()) throw bad("is truncated within its header");
  const std::string_view header(reinterpret_cast<const char*>(mapped->data()) + 8 + length_bytes, header_bytes);

  TensorView view;
  const std::string_view descr = dict_value(header, "descr");
  const auto type = std::find_if(kNpyTypes.begin(), kNpyTypes.end(), [&](const auto& entry) {
    return descr.size() == 5 && descr.substr(1, 3) == entry.second;
  });
  if (type == kNpyTypes.end()) {
    throw bad("element type " + std::string(descr) + " is not read; allowed are <f8 <f4 <f2 <i8 <i4 <i2 |i1 |u1 |b1");
  }
  view.dtype = type->first;
  if (dict_value(header, "fortran_order") != "False") throw bad("is stored in Fortran order; save it with numpy.ascontiguousarray");
  const std::string_view shape = dict_value(header, "shape");
  if (shape.size() < 2 || shape.front() != '(' || shape.back() != ')') throw bad("has no shape in its header");
  for (std::size_t at = 1; at < shape.size() - 1;) {
    if (shape[at] == ' ' || shape[at] == ',') { ++at; continue; }
    std::int64_t value = 0;
    const auto [end, ec] = std::from_chars(shape.data() + at, shape.data() + shape.size() - 1, value);
    if (ec != std::errc{} || value < 0) throw bad("has the unreadable shape " + std::string(shape));
    view.shape.push_back(value);
    at = static_cast<std::size_t>(end - shape.data());
  }
  const auto bytes = bytes_of(view.shape, view.dtype);
  if (!bytes || *bytes != mapped->size() - start) {
    throw bad("shape " + shape_text(view.shape) + " of " + std::string(descr) + " needs " +
              (bytes ? std::to_string(*bytes) : "too many") + " bytes of data, the file has " +
              std::to_string(mapped->size() - start) + (bytes && *bytes > mapped->size() - start ? " (truncated)" : ""));
  }
  view.data = mapped->data() + start;
  view.bytes = *bytes;
  view.file = mapped;
  return view;
}

void write_npy(const std::filesystem::path& file, const TensorSource& tensor) {
  const auto type = std::find_if(kNpyTypes.begin(), kNpyTypes.end(), [&](const auto& entry) { return entry.first == tensor.dtype; });
  const auto bytes = bytes_of(tensor.shape, tensor.dtype);
  if (type == kNpyTypes.end() || !bytes) throw DataError(file.string() + ": cannot be written as .npy with that type or shape");
  std::string shape = "(";
  for (const std::int64_t d : tensor.shape) shape += std::to_string(d) + ", ";
  if (tensor.shape.size() > 1) shape.resize(shape.size() - 2);
  if (tensor.shape.size() == 1) shape.pop_back();
  shape += ")";
  std::string header = "{'descr': '" + std::string(type->second) + "', 'fortran_order': False, 'shape': " + shape + ", }";
  header.append((64 - (10 + header.size() + 1) % 64) % 64, ' ');
  header += '\n';
  write_atomically(file, [&](std::ostream& out) {
    const auto length = static_cast<std::uint16_t>(header.size());
    out.write("\x93NUMPY\x01\x00", 8);
    out.write(reinterpret_cast<const char*>(&length), 2);
    out.write(header.data(), static_cast<std::streamsize>(header.size()));
    out.write(static_cast<const char*>(tensor.data), static_cast<std::streamsize>(*bytes));
  });
}

}  // namespace fusion
