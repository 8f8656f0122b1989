#include "workers/train/rank_group.h"

#include <ATen/ops/full.h>

#include <vector>

#include "model/torch_compat.h"

#if defined(FUSION_GLOO) || defined(FUSION_NCCL)
#include <torch/csrc/distributed/c10d/FileStore.hpp>
#endif
#ifdef FUSION_GLOO
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#endif
#ifdef FUSION_NCCL
#include <c10/cuda/CUDAGuard.h>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#endif

// The ranks meet in a file and not at a port: c10d's TCP store listens on every interface of the machine and asks nobody who he is, while Gloo's own
// sockets are bound to the loopback address.

namespace fusion {
namespace {

[[noreturn]] void fail(const RankPlace& place, const char* did, const std::string& why) {
  throw RankError("rank " + std::to_string(place.rank) + " of " + std::to_string(place.ranks) + " could not " + did + " the others: " +
                  why.substr(0, why.find('\n')));
}

/// What c10d throws, as RankError.
template <typename Work>
void with_others(const RankPlace& place, const char* did, Work work) {
  try {
    work();
  } catch (const c10::Error& error) {
    fail(place, did, compat::message_of(error));
  } catch (const std::exception& error) {
    fail(place, did, error.what());
  }
}

}  // namespace

struct RankGroup::Backends {
#ifdef FUSION_GLOO
  c10::intrusive_ptr<c10d::ProcessGroupGloo> gloo;
#endif
#ifdef FUSION_NCCL
  c10::intrusive_ptr<c10d::ProcessGroupNCCL> nccl;
#endif
  c10::Device device{c10::kCPU};

  Backends(const RankPlace& place, c10::Device of_model) : device(of_model) {
#if defined(FUSION_GLOO) || defined(FUSION_NCCL)
    const std::chrono::milliseconds timeout(place.timeout);
    const auto store = c10::make_intrusive<c10d::FileStore>(place.meeting, place.ranks);
    store->setTimeout(timeout);
#endif
#ifdef FUSION_GLOO
    auto options = c10d::ProcessGroupGloo::Options::create(timeout);
    options->devices.push_back(c10d::ProcessGroupGloo::createDeviceForHostname("127.0.0.1"));
    gloo = c10::make_intrusive<c10d::ProcessGroupGloo>(store, place.rank, place.ranks, options);
#endif
#ifdef FUSION_NCCL
    if (!of_model.is_cuda()) return;
    auto nccl_options = c10d::ProcessGroupNCCL::Options::create();
    nccl_options->timeout = timeout;
    nccl = c10::make_intrusive<c10d::ProcessGroupNCCL>(store, place.rank, place.ranks, nccl_options);
#else
    (void)place;
#endif
  }

  template <typename Group>
  static void reduce(Group& group, const at::Tensor& tensor) {
    std::vector<at::Tensor> tensors{tensor};
    group.allreduce(tensors)->wait();
  }

  void sum(at::Tensor& tensor) const {
#ifdef FUSION_NCCL
    if (nccl) {
      const c10::cuda::CUDAGuard guard(device);
      if (tensor.is_cuda()) return reduce(*nccl, tensor);
#ifndef FUSION_GLOO
      at::Tensor there = tensor.to(device);
      reduce(*nccl, there);
      tensor.copy_(there);
      return;
#endif
    }
#endif
#ifdef FUSION_GLOO
    if (tensor.is_cpu()) return reduce(*gloo, tensor);
    const at::Tensor here = tensor.cpu();
    reduce(*gloo, here);
    tensor.copy_(here);
#else
    (void)tensor;
#endif
  }
};

RankGroup::RankGroup(const RankPlace& place, c10::Device device) : place_(place) {
  if (const std::string why = why_not(device); !why.empty()) throw ConfigError(why);
  with_others(place_, "meet", [&] { backends_ = std::make_unique<Backends>(place_, device); });
}

RankGroup::~RankGroup() = default;

void RankGroup::sum(at::Tensor& tensor) const {
  const at::NoGradGuard no_grad;
  with_others(place_, "hear from", [&] { backends_->sum(tensor); });
}

double RankGroup::sum(double value) const {
  at::Tensor one = at::full({1}, value, at::TensorOptions().dtype(at::kDouble));
  sum(one);
  return one.item<double>();
}

std::string RankGroup::why_not(c10::Device device) {
#ifdef FUSION_GLOO
  (void)device;
  return "";
#else
#ifdef FUSION_NCCL
  if (device.is_cuda()) return "";
#endif
  return "this worker was built without Gloo, so on " + device.str() +
         " it retrains with one process only; install libgloo-dev and build it again, or retrain with --gpus 1";
#endif
}

}  // namespace fusion
