#include "model/lenet.h"

#include <ATen/ops/addmm.h>
#include <ATen/ops/batch_norm.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/max_pool2d.h>
#include <ATen/ops/relu.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "model/initialise.h"
#include "model/random_streams.h"
#include "model/tensor_io.h"
#include "model/torch_compat.h"

namespace fusion {
namespace {

constexpr std::int64_t kMaxBlocks = 8;
constexpr std::int64_t kMaxSize = 1 << 16;

void check(const LeNetOptions& o) {
  std::vector<std::string> problems;
  const auto range = [&](const char* name, std::int64_t value, std::int64_t max) {
    if (value < 1 || value > max) {
      problems.push_back(std::string("lenet: ") + name + ": expected 1 to " + std::to_string(max) + ", got " +
                         std::to_string(value));
    }
  };
  range("blocks", o.blocks, kMaxBlocks);
  range("channels", o.channels, 4096);
  range("input_channels", o.input_channels, 4096);
  range("height", o.height, kMaxSize);
  range("width", o.width, kMaxSize);
  range("classes", o.classes, 1'000'000);
  if (problems.empty() && (std::min(o.height, o.width) >> (o.blocks - 1)) < 1) {
    problems.push_back("lenet: an image of " + std::to_string(o.height) + " x " + std::to_string(o.width) +
                       " is too small for " + std::to_string(o.blocks) + " blocks, each of which halves it");
  }
  if (!problems.empty()) throw ModelError(join_problems(problems));
}

}  // namespace

LeNetOptions LeNetOptions::image(std::int64_t channels, std::int64_t classes) {
  LeNetOptions options;
  options.channels = channels;
  options.classes = classes;
  return options;
}

LeNetOptions LeNetOptions::audio(std::int64_t channels, std::int64_t classes) {
  LeNetOptions options = image(channels, classes);
  options.blocks = 5;
  options.height = options.width = 112;
  options.first_tap_after_pool = true;
  return options;
}

std::vector<std::int64_t> LeNetOptions::tap_widths() const {
  std::vector<std::int64_t> widths;
  for (std::int64_t i = 0; i < blocks; ++i) widths.push_back(channels << i);
  return widths;
}

void LeNetOptions::check_input(const std::vector<std::int64_t>& row_shape, const std::string& subject) const {
  const std::vector<std::int64_t> expected{input_channels, height, width};
  if (row_shape == expected) return;
  throw ModelError(subject + ": expected rows of shape " + nlohmann::json(expected).dump() + ", got " +
                   nlohmann::json(row_shape).dump());
}

nlohmann::json LeNetOptions::to_json() const {
  return {{"blocks", blocks},   {"channels", channels}, {"input_channels", input_channels},
          {"height", height},   {"width", width},       {"classes", classes},
          {"first_tap_after_pool", first_tap_after_pool}};
}

LeNetOptions LeNetOptions::read(JsonReader& reader) {
  LeNetOptions o;
  o.blocks = reader.integer("blocks", 1, kMaxBlocks);
  o.channels = reader.integer("channels", 1, 4096);
  o.input_channels = reader.integer("input_channels", 1, 4096, 1);
  o.height = reader.integer("height", 1, kMaxSize);
  o.width = reader.integer("width", 1, kMaxSize);
  o.classes = reader.integer("classes", 1, 1'000'000);
  o.first_tap_after_pool = reader.boolean("first_tap_after_pool", false);
  return o;
}

LeNet::LeNet(const LeNetOptions& options, std::uint64_t seed, const at::TensorOptions& tensors) : options_(options) {
  check(options);
  const at::NoGradGuard no_grad;
  const at::TensorOptions kind = tensors.has_dtype() ? tensors : tensors.dtype(c10::kFloat);
  const std::vector<std::int64_t> widths = options.tap_widths();
  FlatTensors::Shapes shapes, buffer_shapes;
  std::int64_t inputs = options.input_channels;
  for (std::size_t i = 0; i < widths.size(); ++i) {
    const std::string n = std::to_string(i + 1);
    const std::int64_t kernel = i == 0 ? 5 : 3;
    shapes.push_back({"conv" + n + ".weight", {widths[i], inputs, kernel, kernel}});
    shapes.push_back({"bn" + n + ".weight", {widths[i]}});
    shapes.push_back({"bn" + n + ".bias", {widths[i]}});
    buffer_shapes.push_back({"bn" + n + ".running_mean", {widths[i]}});
    buffer_shapes.push_back({"bn" + n + ".running_var", {widths[i]}});
    inputs = widths[i];
  }
  shapes.push_back({"classifier.weight", {options.classes, inputs}});
  shapes.push_back({"classifier.bias", {options.classes}});
  parameters_ = FlatTensors(shapes, kind, true);
  buffers_ = FlatTensors(buffer_shapes, kind, false);

  for (std::size_t i = 0; i < widths.size(); ++i) {
    const std::string n = std::to_string(i + 1);
    const Block& block = blocks_.emplace_back(
        Block{parameters_.at("conv" + n + ".weight"), parameters_.at("bn" + n + ".weight"), parameters_.at("bn" + n + ".bias"),
              buffers_.at("bn" + n + ".running_mean"), buffers_.at("bn" + n + ".running_var"), i == 0 ? 2 : 1});
    Rng rng(seed, random_stream(StreamKind::backbone, static_cast<std::uint32_t>(i)));
    initialise_kaiming(block.conv, rng);
    block.bn_weight.fill_(1.0);
    block.bn_var.fill_(1.0);
  }
  classifier_weight_ = parameters_.at("classifier.weight");
  classifier_bias_ = parameters_.at("classifier.bias");
  Rng rng(seed, random_stream(StreamKind::backbone, kMaxBlocks));
  initialise_linear(classifier_weight_, classifier_bias_, rng);
  initialise_kaiming(classifier_weight_, rng);
}

void LeNet::check_batch(const at::Tensor& x) const {
  TORCH_CHECK(x.dim() == 4 && x.size(1) == options_.input_channels && x.size(2) == options_.height &&
                  x.size(3) == options_.width,
              "expected a batch [B, ", options_.input_channels, ", ", options_.height, ", ", options_.width, "], got ",
              x.sizes());
}

at::Tensor LeNet::run(const Block& block, const at::Tensor& x, bool training) const {
  at::Tensor h = at::conv2d(x, block.conv, {}, at::IntArrayRef{1}, at::IntArrayRef{block.padding});
  h = at::batch_norm(h, block.bn_weight, block.bn_bias, block.bn_mean, block.bn_var, training, 0.1, 1e-5, false);
  return at::relu(h);  // [B, C_i, H_i, W_i]
}

BackboneOutput LeNet::forward(const at::Tensor& x, bool training) const {
  check_batch(x);
  BackboneOutput out;
  at::Tensor h = x;
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    if (i > 0) h = at::max_pool2d(h, {2, 2});
    if (i == 1 && options_.first_tap_after_pool) out.taps.front() = pool_tap(h);
    h = run(blocks_[i], h, training);
    out.taps.push_back(pool_tap(h));
  }
  if (blocks_.size() == 1 && options_.first_tap_after_pool) out.taps.front() = pool_tap(at::max_pool2d(h, {2, 2}));
  out.logits = at::addmm(classifier_bias_, out.taps.back(), classifier_weight_.t());  // [B, classes]
  return out;
}

at::Tensor LeNet::stage(std::size_t i, const at::Tensor& before, bool training) const {
  if (i == 0) check_batch(before);
  return run(blocks_.at(i), i == 0 ? before : at::max_pool2d(before, {2, 2}), training);
}

at::Tensor LeNet::tap_map(std::size_t i, const at::Tensor& map) const {
  return i == 0 && options_.first_tap_after_pool ? at::max_pool2d(map, {2, 2}) : map;
}

at::Tensor LeNet::classify(const at::Tensor& last) const {
  return at::addmm(classifier_bias_, pool_tap(tap_map(blocks_.size() - 1, last)), classifier_weight_.t());
}

void LeNet::save(const std::filesystem::path& file, const std::map<std::string, std::string>& facts) const {
  std::map<std::string, std::string> metadata = facts;
  metadata["kind"] = "lenet";
  metadata["arch"] = options_.to_json().dump();
  NamedTensors all = parameters_.named();
  all.insert(all.end(), buffers_.named().begin(), buffers_.named().end());
  write_tensors(file, all, metadata);
}

LeNet LeNet::load(const std::filesystem::path& file, const at::TensorOptions& tensors) {
  const SafetensorsFile weights = SafetensorsFile::open(file);
  const auto& metadata = weights.metadata();
  const auto kind = metadata.find("kind");
  const auto arch = metadata.find("arch");
  if (kind == metadata.end() || kind->second != "lenet" || arch == metadata.end()) {
    throw ModelError(file.string() + ": expected a backbone with metadata kind \"lenet\" and its arch, got " +
                     (kind == metadata.end() ? "no kind" : "kind \"" + kind->second + "\"") +
                     (arch == metadata.end() ? " and no arch" : ""));
  }
  const std::string source = file.string() + ": arch";
  const nlohmann::json document = parse_json(arch->second, source);
  JsonProblems problems;
  JsonReader reader(document, source, problems);
  const LeNetOptions options = LeNetOptions::read(reader);
  reader.finish();
  problems.throw_if_any();
  LeNet network(options, 0, tensors);
  NamedTensors all = network.parameters_.named();
  all.insert(all.end(), network.buffers_.named().begin(), network.buffers_.named().end());
  load_tensors(weights, all);
  return network;
}

}  // namespace fusion
