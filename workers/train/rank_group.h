#pragma once

#include <ATen/core/Tensor.h>

#include <chrono>
#include <memory>
#include <string>

#include "base/error.h"

namespace fusion {

/// Another rank did not take part: it ended, or was silent for too long. Not what is wrong with the training, so not the reason to give.
class RankError : public Error {
  using Error::Error;
};

/// One process's place among those that train one model together.
struct RankPlace {
  int rank = 0;   ///< from 0
  int ranks = 1;  ///< how many there are
  /// A file that is not there yet, the same for all, in a folder that nobody else can write to: the ranks tell each other their addresses in it.
  std::string meeting;
  std::chrono::seconds timeout{300};  ///< the longest that a rank may let the others wait
};

/// The processes that train one model together, as one of them sees them: c10d with Gloo on the loopback interface and, where LibTorch has it
/// (FUSION_NCCL), NCCL for tensors on a GPU; without it they go through the host's memory.
///
/// All ranks must do the same calls in the same order with tensors of the same sizes. If one of them ends, the calls of the others throw
/// RankError within `timeout`, mostly at once. One thread at a time.
class RankGroup {
 public:
  /// Waits for the others. `device` is where this rank's model lies. Throws RankError if they do not come, ConfigError if this program was built
  /// without what it takes.
  RankGroup(const RankPlace& place, c10::Device device);
  ~RankGroup();
  RankGroup(const RankGroup&) = delete;
  RankGroup& operator=(const RankGroup&) = delete;

  int rank() const { return place_.rank; }
  int ranks() const { return place_.ranks; }
  /// Replaces a contiguous tensor by the sum over all ranks: the same bits on each of them.
  void sum(at::Tensor& tensor) const;
  /// The same of one number.
  double sum(double value) const;

  /// Empty, or a sentence why this program cannot train with several processes whose models lie there.
  static std::string why_not(c10::Device device);

 private:
  struct Backends;
  RankPlace place_;
  std::unique_ptr<Backends> backends_;
};

}  // namespace fusion
