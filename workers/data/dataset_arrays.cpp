// The arrays behind a DatasetManifest: opening and checking them, and making batches.
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <cstring>
#include <numeric>
#include <optional>

#include "base/error.h"
#include "workers/data/dataset.h"
#include "workers/data/file_checks.h"

namespace fusion {

/// Opens what a manifest names and collects every problem.
class DatasetChecker {
 public:
  explicit DatasetChecker(Dataset& dataset) : dataset_(dataset), folder_(dataset.file_.parent_path()) {}

  void run() {
    for (const auto& [array, file] : dataset_.manifest_.labels) {
      const auto view = open(file);
      if (!view) continue;
      if (std::string p = labels_problem(*view, dataset_.manifest_.classes, (folder_ / file).string()); !p.empty()) fail(p);
      else dataset_.labels_[array] = *view;
    }
    for (const ModalityManifest& modality : dataset_.manifest_.modalities) {
      auto& arrays = dataset_.arrays_.emplace_back();
      for (const auto& [array, file] : modality.files) check_rows(modality, array, file, arrays);
    }
    for (const auto& [name, range] : dataset_.manifest_.splits) {
      const auto labels = dataset_.labels_.find(range.of);
      if (labels != dataset_.labels_.end() && range.end > labels->second.shape[0]) {
        fail(dataset_.file_.string() + ": /splits/" + name + ": ends at row " + std::to_string(range.end) + " of \"" + range.of +
             "\", which has " + std::to_string(labels->second.shape[0]));
      }
    }
    if (!problems_.empty()) throw DataError(join_problems(problems_));
  }

 private:
  void fail(std::string problem) { problems_.push_back(std::move(problem)); }

  std::optional<TensorView> open(const std::string& name) {
    const std::filesystem::path file = folder_ / name;
    try {
      const std::string digest = remembered_sha256(file);
      const std::string& expected = dataset_.manifest_.sha256.at(name);
      if (digest != expected) {
        fail(file.string() + ": its SHA-256 is " + digest + ", but " + dataset_.file_.filename().string() + " says " + expected +
             "; the file was changed or damaged");
        return std::nullopt;
      }
      return open_npy(file);
    } catch (const DataError& error) {
      fail(error.what());
      return std::nullopt;
    }
  }

  void check_rows(const ModalityManifest& modality, const std::string& array, const std::string& name,
                  std::map<std::string, TensorView>& arrays) {
    const auto view = open(name);
    if (!view) return;
    const std::string file = (folder_ / name).string();
    const std::size_t before = problems_.size();
    if (view->dtype == DType::f16 || view->dtype == DType::bf16 || view->dtype == DType::boolean) {
      fail(file + ": element type " + std::string(name_of(view->dtype)) + " is not read here; use f4, f8 or whole numbers");
    }
    const std::int64_t rows = view->shape.empty() ? 0 : view->shape[0];
    if (rows == 0 || view->count() / rows != modality.row_count()) {
      fail(file + ": has the shape " + shape_text(view->shape) + "; expected [rows, ...] with " +
           std::to_string(modality.row_count()) + " numbers a row, as the shape " + shape_text(modality.shape) + " of \"" +
           modality.name + "\" says");
    }
    const auto labels = dataset_.labels_.find(array);
    if (labels != dataset_.labels_.end() && rows != labels->second.shape[0]) {
      fail(file + ": has " + std::to_string(rows) + " rows, but there are " + std::to_string(labels->second.shape[0]) +
           " labels of \"" + array + "\"");
    }
    if (const auto at = first_not_finite(*view); at && rows > 0) {
      fail(file + ": row " + std::to_string(*at / std::max<std::int64_t>(1, view->count() / rows)) +
           " holds a value that is not a finite number");
    }
    if (problems_.size() == before) arrays[array] = *view;
  }

  Dataset& dataset_;
  std::filesystem::path folder_;
  std::vector<std::string> problems_;
};

namespace {

template <typename T>
void normalise_rows(const TensorView& view, std::int64_t width, std::span<const std::int64_t> rows, std::int64_t first,
                    float mean, float std, float* out) {
  for (const std::int64_t row : rows) {
    const std::byte* const from = view.data + static_cast<std::size_t>((first + row) * width) * sizeof(T);
    for (std::int64_t i = 0; i < width; ++i) {
      T value;
      std::memcpy(&value, from + static_cast<std::size_t>(i) * sizeof(T), sizeof(T));
      out[i] = (static_cast<float>(value) - mean) / std;
    }
    out += width;
  }
}

}  // namespace

Dataset Dataset::open(const std::filesystem::path& manifest) {
  Dataset dataset;
  dataset.file_ = manifest;
  dataset.manifest_ = DatasetManifest::read_file(manifest);
  DatasetChecker(dataset).run();
  return dataset;
}

std::size_t Dataset::modality(const std::string& name) const {
  std::string known;
  for (std::size_t m = 0; m < manifest_.modalities.size(); ++m) {
    if (manifest_.modalities[m].name == name) return m;
    known += (known.empty() ? "" : ", ") + manifest_.modalities[m].name;
  }
  throw ConfigError(file_.string() + ": there is no modality \"" + name + "\"; there are: " + known);
}

const SplitRange& Dataset::split(const std::string& name) const {
  const auto found = manifest_.splits.find(name);
  if (found != manifest_.splits.end()) return found->second;
  throw ConfigError(file_.string() + ": there is no split \"" + name + "\"");
}

at::Tensor Dataset::labels(const std::string& name) const {
  const SplitRange& range = split(name);
  std::vector<std::int64_t> all = labels_.at(range.of).to<std::int64_t>();
  return at::from_blob(all.data() + range.begin, {range.rows()}, at::TensorOptions().dtype(c10::kLong)).clone();
}

at::Tensor Dataset::batch(std::size_t modality, const std::string& name, std::span<const std::int64_t> rows) const {
  const SplitRange& range = split(name);
  const ModalityManifest& m = manifest_.modalities.at(modality);
  const TensorView& view = arrays_.at(modality).at(range.of);
  for (const std::int64_t row : rows) {
    if (row < 0 || row >= range.rows()) {
      throw DataError(file_.string() + ": the split \"" + name + "\" has " + std::to_string(range.rows()) + " rows, none is called " +
                      std::to_string(row));
    }
  }
  std::vector<std::int64_t> shape{static_cast<std::int64_t>(rows.size())};
  shape.insert(shape.end(), m.shape.begin(), m.shape.end());
  at::Tensor out = at::empty(shape, at::TensorOptions().dtype(c10::kFloat));
  const auto normalise = [&]<typename T>(T) {
    normalise_rows<T>(view, m.row_count(), rows, range.begin, static_cast<float>(m.mean), static_cast<float>(m.std),
                      out.data_ptr<float>());
  };
  switch (view.dtype) {
    case DType::f64: normalise(double{}); break;
    case DType::f32: normalise(float{}); break;
    case DType::i64: normalise(std::int64_t{}); break;
    case DType::i32: normalise(std::int32_t{}); break;
    case DType::i16: normalise(std::int16_t{}); break;
    case DType::i8: normalise(std::int8_t{}); break;
    default: normalise(std::uint8_t{}); break;
  }
  return out;
}

at::Tensor Dataset::batch(std::size_t modality, const std::string& name, std::int64_t begin, std::int64_t end) const {
  std::vector<std::int64_t> rows(static_cast<std::size_t>(std::max<std::int64_t>(0, end - begin)));
  std::iota(rows.begin(), rows.end(), begin);
  return batch(modality, name, rows);
}

}  // namespace fusion
