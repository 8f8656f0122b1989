#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

namespace fusion {

/// Multiply-adds of what ran, or why they are not known.
struct MultiplyAdds {
  std::optional<std::int64_t> count;
  std::string reason;  ///< a sentence if there is no count
};

/// Runs `work` once and counts the multiply-adds of its convolutions and matrix products: one per weight and output position, as papers count
/// them. Biases, activations, normalisation, gates and pooling are not counted.
///
/// It listens to LibTorch's operators while they run, so any network is counted alike: ours, under autocast too, and TorchScript programs, whose
/// loops and branches count as they went. Recurrent layers count by their products. There is no count if an operator hides its products
/// (quantised or prepacked layers, fused recurrent and transformer kernels) or could not be read, for such an operator is named as the reason,
/// or if nothing was multiplied. A backbone opened with open_backbone on the CPU runs kernels of ours that are no operators: count its LeNet.
/// Counts what the calling thread runs.
MultiplyAdds count_multiply_adds(const std::function<void()>& work);

/// Median time of `forward`, milliseconds, over `repeats` runs after some to warm up, on one thread (LibTorch's setting is put back).
/// For a device that works on its own `forward` has to wait for its result: it should end by reading a number.
double median_latency_ms(const std::function<void()>& forward, int repeats = 50);

/// {"multiply_adds": count or null, "latency_ms": number, "device": "..."}, and "multiply_adds_reason" if it is null. `forward` runs one row
/// without gradients, in evaluation mode.
nlohmann::json cost_of_one_row(const std::function<void()>& forward, const std::string& device);

}  // namespace fusion
