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
#include <string_view>
#include <vector>

namespace fusion {

namespace {

/// Filled by the callbacks, which are plain functions.
struct Counter {
  std::int64_t count = 0;
  std::set<std::string> opaque;
};
thread_local Counter* current = nullptr;

struct Inputs : at::ObserverContext {
  std::vector<at::Tensor> tensors;
  bool transposed = false;
};

/// Operators in which every convolution and product ends, whatever it was called by; none of them calls another one of them.
enum class Product { none, convolution, matrix, batched_matrix, matrix_vector, dot, attention };

Product product_of(std::string_view name) {
  constexpr std::array<std::pair<std::string_view, Product>, 11> kProducts{
      {{"aten::_convolution", Product::convolution},
       {"aten::addmm", Product::matrix},
       {"aten::mm", Product::matrix},
       {"aten::_addmm_activation", Product::matrix},
       {"aten::bmm", Product::batched_matrix},
       {"aten::baddbmm", Product::batched_matrix},
       {"aten::mv", Product::matrix_vector},
       {"aten::addmv", Product::matrix_vector},
       {"aten::dot", Product::dot},
       {"aten::_scaled_dot_product_flash_attention_for_cpu", Product::attention},
       {"aten::_scaled_dot_product_flash_attention", Product::attention}}};
  for (const auto& [known, product] : kProducts) {
    if (name == known) return product;
  }
  return Product::none;
}

bool hides_products(std::string_view name) {
  constexpr std::array<std::string_view, 9> kParts{"quantized::", "prepacked",  "mkldnn_",  "onednn::",     "aten::_native_multi_head_attention",
                                                   "aten::_transformer_encoder", "xnnpack", "tensorexpr::", "aten::_scaled_dot_product_efficient"};
  return std::any_of(kParts.begin(), kParts.end(), [&](std::string_view part) { return name.find(part) != std::string_view::npos; });
}

std::int64_t multiply_adds(Product product, const Inputs& in, const at::Tensor& out) {
  const auto& t = in.tensors;
  switch (product) {
    case Product::none: return 0;
    // Every output reads the weight of one output channel; transposed: every input writes through that of one input channel.
    case Product::convolution: return (in.transposed ? t.at(0) : out).numel() * (t.at(1).numel() / std::max<std::int64_t>(1, t.at(1).size(0)));
    // [(bias,) a, b]: the last but one is the left factor.
    case Product::matrix:
    case Product::batched_matrix: return out.numel() * t.at(t.size() - 2).size(-1);
    case Product::matrix_vector: return t.at(t.size() - 2).numel();
    case Product::dot: return t.at(0).numel();
    // q k^T, and its rows times v.
    case Product::attention: return t.at(0).numel() * t.at(1).size(-2) + t.at(0).numel() / t.at(0).size(-1) * t.at(2).numel() /
                                                                             std::max<std::int64_t>(1, t.at(2).size(0) * t.at(2).size(1));
  }
  return 0;
}

std::unique_ptr<at::ObserverContext> on_start(const at::RecordFunction& function) {
  if (!current) return nullptr;
  const std::string_view name = function.name();
  if (hides_products(name)) current->opaque.insert(std::string(name));
  if (product_of(name) == Product::none) return nullptr;
  auto inputs = std::make_unique<Inputs>();
  const auto values = function.inputs();
  for (const c10::IValue& value : values) {
    if (value.isTensor() && value.toTensor().defined()) inputs->tensors.push_back(value.toTensor());
  }
  // _convolution(input, weight, bias, stride, padding, dilation, transposed, ...)
  if (product_of(name) == Product::convolution && values.size() > 6 && values[6].isBool()) inputs->transposed = values[6].toBool();
  return inputs;
}

void on_end(const at::RecordFunction& function, at::ObserverContext* context) {
  if (!current || !context || function.outputs().empty() || !function.outputs().front().isTensor()) return;
  current->count += multiply_adds(product_of(function.name()), *static_cast<Inputs*>(context), function.outputs().front().toTensor());
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
