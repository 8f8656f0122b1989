#include "workers/train/model_cost.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/record_function.h>
#include <torch/csrc/jit/python/update_graph_executor_opt.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <nlohmann/json.hpp>
#include <set>
#include <span>
#include <string_view>
#include <vector>

namespace fusion {

namespace {

/// Filled by the callbacks, which are plain functions.
struct Counter {
  std::int64_t count = 0;
  int depth = 0;  ///< products that are running, one inside of another
  std::set<std::string> opaque;
};
thread_local Counter* current = nullptr;

struct Inputs : at::ObserverContext {
  std::vector<at::Tensor> tensors;
  bool transposed = false;
};

/// Operators in which every convolution and product ends, whatever it was called by. One may call itself or another one of them: under
/// autocast an operator casts its inputs and is called again, and the convolution that old traces hold calls the newer one. The outermost
/// counts.
enum class Product { none, convolution, matrix, added_matrix, matrix_vector, added_vector, dot, attention };

Product product_of(std::string_view name) {
  constexpr std::array<std::pair<std::string_view, Product>, 17> kProducts{
      {{"aten::_convolution", Product::convolution},
       {"aten::addmm", Product::added_matrix},
       {"aten::addmm_", Product::added_matrix},
       {"aten::_addmm_activation", Product::added_matrix},
       {"aten::addbmm", Product::added_matrix},
       {"aten::addbmm_", Product::added_matrix},
       {"aten::baddbmm", Product::added_matrix},
       {"aten::baddbmm_", Product::added_matrix},
       {"aten::mm", Product::matrix},
       {"aten::bmm", Product::matrix},
       {"aten::mv", Product::matrix_vector},
       {"aten::addmv", Product::added_vector},
       {"aten::addmv_", Product::added_vector},
       {"aten::dot", Product::dot},
       {"aten::vdot", Product::dot},
       {"aten::_scaled_dot_product_flash_attention_for_cpu", Product::attention},
       {"aten::_scaled_dot_product_flash_attention", Product::attention}}};
  for (const auto& [known, product] : kProducts) {
    if (name == known) return product;
  }
  return Product::none;
}

bool hides_products(std::string_view name) {
  constexpr std::array<std::string_view, 12> kParts{
      "quantized::",  "prepacked", "mkldnn_", "onednn::", "xnnpack", "tensorexpr::", "cudnn_rnn", "miopen_rnn", "aten::_native_multi_head_attention",
      "aten::_transformer_encoder", "aten::_scaled_dot_product_efficient", "aten::_scaled_dot_product_cudnn"};
  return std::any_of(kParts.begin(), kParts.end(), [&](std::string_view part) { return name.find(part) != std::string_view::npos; });
}

std::int64_t multiply_adds(Product product, const Inputs& in, const at::Tensor& out) {
  const auto& t = in.tensors;
  switch (product) {
    case Product::none: return 0;
    // Every output reads the weight of one output channel; transposed: every input writes through that of one input channel.
    case Product::convolution: return (in.transposed ? t.at(0) : out).numel() * (t.at(1).numel() / std::max<std::int64_t>(1, t.at(1).size(0)));
    // [a, b, ...] or [bias, a, b, ...]: every number of a meets a row of b.
    case Product::matrix: return t.at(0).numel() * t.at(1).size(-1);
    case Product::added_matrix: return t.at(1).numel() * t.at(2).size(-1);
    case Product::matrix_vector:
    case Product::dot: return t.at(0).numel();
    case Product::added_vector: return t.at(1).numel();
    // q k^T, and its rows times v.
    case Product::attention: return t.at(0).numel() * t.at(1).size(-2) + t.at(0).numel() / t.at(0).size(-1) * t.at(2).numel() /
                                                                             std::max<std::int64_t>(1, t.at(2).size(0) * t.at(2).size(1));
  }
  return 0;
}

/// What a TorchScript program's operator gets and gives is the end of the interpreter's stack, all of which is shown.
std::span<const c10::IValue> end_of(std::span<const c10::IValue> values, std::size_t count) {
  TORCH_CHECK(values.size() >= count && count > 0, "expected ", count, " values, got ", values.size());
  return values.last(count);
}

void read_inputs(const at::RecordFunction& function, Inputs& inputs) {
  const auto values = end_of(function.inputs(), function.num_inputs());
  for (const c10::IValue& value : values) {
    if (value.isTensor() && value.toTensor().defined()) inputs.tensors.push_back(value.toTensor());
  }
  // _convolution(input, weight, bias, stride, padding, dilation, transposed, ...)
  if (product_of(function.name()) == Product::convolution) inputs.transposed = values.size() > 6 && values[6].toBool();
}

/// LibTorch only logs what a callback throws, and goes on: a product that could not be read must not pass as none.
template <typename Work>
void read(const at::RecordFunction& function, Work&& work) {
  try {
    work();
  } catch (const std::exception&) {
    current->opaque.insert(function.name());
  }
}

std::unique_ptr<at::ObserverContext> on_start(const at::RecordFunction& function) {
  if (!current) return nullptr;
  const std::string_view name = function.name();
  if (current->depth == 0 && hides_products(name)) current->opaque.insert(std::string(name));
  if (product_of(name) == Product::none) return nullptr;
  auto inputs = std::make_unique<Inputs>();
  if (++current->depth == 1) read(function, [&] { read_inputs(function, *inputs); });
  return inputs;
}

void on_end(const at::RecordFunction& function, at::ObserverContext* context) {
  if (!current || !context || --current->depth > 0) return;
  read(function, [&] {
    const auto outputs = end_of(function.outputs(), function.num_outputs());
    current->count += multiply_adds(product_of(function.name()), *static_cast<Inputs*>(context), outputs.front().toTensor());
  });
}

/// While it lives, the calling thread's operators are counted, and run as they are written: neither fused nor by oneDNN, whose layers are
/// operators of their own.
class Listening {
 public:
  explicit Listening(Counter& counter)
      : optimise_(torch::jit::getGraphExecutorOptimize()), onednn_(at::globalContext().userEnabledMkldnn()) {
    torch::jit::setGraphExecutorOptimize(false);
    at::globalContext().setUserEnabledMkldnn(false);
    current = &counter;
    handle_ = at::addThreadLocalCallback(
        at::RecordFunctionCallback(on_start, on_end).needsInputs(true).needsOutputs(true).scopes({at::RecordScope::FUNCTION}));
  }
  ~Listening() {
    at::removeCallback(handle_);
    current = nullptr;
    at::globalContext().setUserEnabledMkldnn(onednn_);
    torch::jit::setGraphExecutorOptimize(optimise_);
  }
  Listening(const Listening&) = delete;
  Listening& operator=(const Listening&) = delete;

 private:
  bool optimise_, onednn_;
  at::CallbackHandle handle_;
};

}  // namespace

MultiplyAdds count_multiply_adds(const std::function<void()>& work) {
  Counter counter;
  {
    const Listening listening(counter);
    const at::RecordFunctionGuard enabled(true);
    work();
  }
  if (!counter.opaque.empty()) return {{}, "the operator " + *counter.opaque.begin() + " does not show its products"};
  if (counter.count == 0) return {{}, "no operator that multiplies matrices was seen"};
  return {counter.count, ""};
}

double median_latency_ms(const std::function<void()>& forward, int repeats) {
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  std::vector<double> times;
  for (int i = -5; i < repeats; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    forward();
    const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - begin;
    if (i >= 0) times.push_back(took.count());
  }
  at::set_num_threads(threads);
  const auto middle = times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2);
  std::nth_element(times.begin(), middle, times.end());
  return *middle;
}

nlohmann::json cost_of_one_row(const std::function<void()>& forward, const std::string& device) {
  const MultiplyAdds products = count_multiply_adds(forward);
  nlohmann::json cost = {{"multiply_adds", nullptr}, {"latency_ms", median_latency_ms(forward)}, {"device", device}};
  if (products.count) cost["multiply_adds"] = *products.count;
  else cost["multiply_adds_reason"] = products.reason;
  return cost;
}

}  // namespace fusion
