#include "workers/train/checkpoint.h"

#include <algorithm>
#include <charconv>

#include "base/digest.h"
#include "base/error.h"
#include "base/json_reader.h"
#include "model/tensor_io.h"

namespace fusion {

namespace fs = std::filesystem;

namespace {

constexpr const char* kFormat = "fusiond-checkpoint-1";
constexpr const char* kPrefix = "checkpoint-";
constexpr std::size_t kKept = 2;

void add(Sha256& digest, const std::string& name, const void* data, std::size_t bytes) {
  digest.update(name);
  digest.update(std::to_string(bytes));
  digest.update(data, bytes);
}

/// Of what is in a file, read back. Tensors in the order of their names.
std::string content_of(const SafetensorsFile& file, const std::string& state) {
  Sha256 digest;
  digest.update(state);
  for (const auto& [name, view] : file.tensors()) add(digest, name, view.data, view.bytes);
  return digest.hex();
}

std::string content_of(NamedTensors& tensors, const std::string& state) {
  Sha256 digest;
  digest.update(state);
  std::sort(tensors.begin(), tensors.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  for (auto& [name, tensor] : tensors) {
    tensor = tensor.detach().to(at::kCPU).contiguous();
    add(digest, name, tensor.data_ptr(), tensor.nbytes());
  }
  return digest.hex();
}

}  // namespace

CheckpointFolder::CheckpointFolder(fs::path folder, std::string binding) : folder_(std::move(folder)), binding_(std::move(binding)) {}

std::vector<std::pair<int, fs::path>> CheckpointFolder::files() const {
  std::vector<std::pair<int, fs::path>> found;
  std::error_code absent;
  for (const auto& entry : fs::directory_iterator(folder_, absent)) {
    const std::string name = entry.path().filename().string(), prefix = kPrefix;
    if (!name.starts_with(prefix) || entry.path().extension() != ".safetensors") continue;
    int epoch = 0;
    const char* const end = name.data() + name.size() - std::string(".safetensors").size();
    if (std::from_chars(name.data() + prefix.size(), end, epoch).ptr == end) found.emplace_back(epoch, entry.path());
  }
  std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
  return found;
}

void CheckpointFolder::write(const Checkpoint& checkpoint) const {
  NamedTensors tensors = checkpoint.tensors;
  const std::string state = checkpoint.state.dump();
  const std::string content = content_of(tensors, state);
  write_tensors(folder_ / (kPrefix + std::to_string(checkpoint.epoch) + ".safetensors"), tensors,
                {{"format", kFormat}, {"binding", binding_}, {"state", state}, {"content", content},
                 {"epoch", std::to_string(checkpoint.epoch)}});
  const auto all = files();
  std::error_code ignored;
  for (std::size_t i = kKept; i < all.size(); ++i) fs::remove(all[i].second, ignored);
}

std::optional<Checkpoint> CheckpointFolder::newest() const {
  for (const auto& [epoch, path] : files()) {
    std::optional<SafetensorsFile> file;
    std::map<std::string, std::string> metadata;
    try {
      file.emplace(SafetensorsFile::open(path));
      metadata = file->metadata();
      if (metadata["format"] != kFormat || content_of(*file, metadata["state"]) != metadata["content"]) continue;
    } catch (const DataError&) {
      continue;  // damaged: the one before counts
    }
    if (metadata["binding"] != binding_) {
      throw DataError(path.string() + ": is the checkpoint of another retraining (other architecture, options, seed or features); give this "
                      "one a folder of its own, or remove the file to begin anew");
    }
    Checkpoint checkpoint{epoch, parse_json(metadata["state"], path.string() + ": state"), {}};
    for (const auto& [name, view] : file->tensors()) checkpoint.tensors.emplace_back(name, copy_tensor(view));
    return checkpoint;
  }
  return std::nullopt;
}

}  // namespace fusion
