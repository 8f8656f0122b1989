#pragma once

#include <memory>
#include <string>
#include <utility>

#include "workers/train/stacked_backend.h"

namespace fusion::stacked {

/// A backend that passes everything on to another one: what tests and measurements derive from.
template <typename T>
class ForwardingBackend : public Backend<T> {
 public:
  explicit ForwardingBackend(std::unique_ptr<Backend<T>> inner) : inner_(std::move(inner)) {}

  std::string device() const override { return inner_->device(); }
  std::optional<std::int64_t> free_bytes() const override { return inner_->free_bytes(); }
  void* allocate(std::int64_t bytes) override { return inner_->allocate(bytes); }
  void release(void* memory) noexcept override { inner_->release(memory); }
  bool reads_host_memory() const override { return inner_->reads_host_memory(); }
  void upload(void* to, const void* host, std::int64_t bytes) override { inner_->upload(to, host, bytes); }
  void download(void* host, const void* from, std::int64_t bytes) override { inner_->download(host, from, bytes); }
  void copy(void* to, const void* from, std::int64_t bytes) override { inner_->copy(to, from, bytes); }

  void product(const ProductList<T>& list, const Scene<T>& scene) override { inner_->product(list, scene); }
  void activate(const StepTask<T>* tasks, std::int32_t count, const Scene<T>& scene) override { inner_->activate(tasks, count, scene); }
  void activate_back(const StepTask<T>* tasks, std::int32_t count, const Scene<T>& scene) override {
    inner_->activate_back(tasks, count, scene);
  }
  void normalise(const StepTask<T>* tasks, std::int32_t count, const Scene<T>& scene) override { inner_->normalise(tasks, count, scene); }
  void normalise_back(const StepTask<T>* tasks, std::int32_t count, const Scene<T>& scene) override {
    inner_->normalise_back(tasks, count, scene);
  }
  void softmax_loss(const HeadTask<T>* tasks, std::int32_t count, const Scene<T>& scene) override {
    inner_->softmax_loss(tasks, count, scene);
  }
  void choose_class(const HeadTask<T>* tasks, std::int32_t count, const Scene<T>& scene) override {
    inner_->choose_class(tasks, count, scene);
  }
  void share_gradient(const ShareTask<T>* tasks, std::int32_t count, const Scene<T>& scene) override {
    inner_->share_gradient(tasks, count, scene);
  }
  void adam(const AdamTask<T>* tasks, std::int32_t count, std::int64_t most, const Scene<T>& scene) override {
    inner_->adam(tasks, count, most, scene);
  }
  void advance(const Scene<T>& scene) override { inner_->advance(scene); }
  void sum_losses(const Scene<T>& scene, std::int32_t steps, std::int64_t first, std::int64_t end, double* sums) override {
    inner_->sum_losses(scene, steps, first, end, sums);
  }
  void repeat(std::int32_t times, std::uint64_t token, const std::function<void()>& work) override { inner_->repeat(times, token, work); }

 private:
  std::unique_ptr<Backend<T>> inner_;
};

}  // namespace fusion::stacked
