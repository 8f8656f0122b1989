// The stacked engine on the CPU: the same bodies in loops, products through LibTorch (one call per trial and segment, so that a trial's
// figures are the same bits in any pack), or through the block programs that a GPU runs.
#include <ATen/core/Tensor.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/mm.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "model/torch_compat.h"
#include "workers/train/stacked_backend.h"
#include "workers/train/stacked_bodies.h"

namespace fusion::stacked {
namespace {

constexpr std::size_t kAlignment = 256;

/// The threads of a block take turns.
template <typename Program>
class TurnsBlock {
 public:
  TurnsBlock() : own_(Program::kThreads) {}
  template <typename Phase>
  void each(Phase phase) {
    for (int thread = 0; thread < Program::kThreads; ++thread) phase(thread);
  }
  typename Program::Shared& shared() { return shared_; }
  typename Program::Own& own(int thread) { return own_[static_cast<std::size_t>(thread)]; }

 private:
  typename Program::Shared shared_;
  std::vector<typename Program::Own> own_;
};

template <typename T>
class CpuBackend final : public Backend<T> {
 public:
  explicit CpuBackend(CpuProducts products) : products_(products) {}

  std::string device() const override { return "cpu"; }
  std::optional<std::int64_t> free_bytes() const override { return std::nullopt; }
  void* allocate(std::int64_t bytes) override {
    if (bytes < 0) throw OutOfMemory();
    const std::size_t whole = (static_cast<std::size_t>(bytes) + kAlignment - 1) / kAlignment * kAlignment;
    void* const memory = std::aligned_alloc(kAlignment, std::max(whole, kAlignment));
    if (!memory) throw OutOfMemory();
    std::memset(memory, 0, whole);
    return memory;
  }
  void release(void* memory) noexcept override { std::free(memory); }
  bool reads_host_memory() const override { return true; }
  void upload(void* to, const void* host, std::int64_t bytes) override { copy(to, host, bytes); }
  void download(void* host, const void* from, std::int64_t bytes) override { copy(host, from, bytes); }
  void copy(void* to, const void* from, std::int64_t bytes) override {
    if (bytes > 0) std::memcpy(to, from, static_cast<std::size_t>(bytes));
  }

  void product(const ProductList<T>& list, const Scene<T>& scene) override {
    if (products_ == CpuProducts::blocks) {
      run_blocks(narrow_, list, list.narrow, list.narrow_count, scene);
      run_blocks(wide_, list, list.wide, list.wide_count, scene);
      return;
    }
    const at::NoGradGuard no_grad;
    gathered_count_ = 0;
    for (std::int32_t i = 0; i < list.task_count; ++i) {
      if (scene.live[list.tasks[i].trial]) multiply(list, list.tasks[i], scene);
    }
  }

  void activate(const StepTask<T>* tasks, std::int32_t count, const Scene<T>& scene) override {
    const std::int64_t elements = quads(batch_rows(*scene.position), scene.width);
    each(tasks, count, scene, elements, [&](const StepTask<T>& task, std::int64_t i) { stacked::activate(task, scene, i); });
  }
  void activate_back(const StepTask<T>* tasks, std::int32_t count, const Scene<T>& scene) override {
    const std::int64_t elements = quads(batch_rows(*scene.position), scene.width);
    each(tasks, count, scene, elements, [&](const StepTask<T>& task, std::int64_t i) { stacked::activate_back(task, scene, i); });
  }
  void normalise(const StepTask<T>* tasks, std::int32_t count, const Scene<T>& scene) override {
    each(tasks, count, scene, scene.width,
         [&](const StepTask<T>& task, std::int64_t c) { stacked::normalise(task, scene, static_cast<std::int32_t>(c)); });
  }
  void normalise_back(const StepTask<T>* tasks, std::int32_t count, const Scene<T>& scene) override {
    each(tasks, count, scene, scene.width,
         [&](const StepTask<T>& task, std::int64_t c) { stacked::normalise_back(task, scene, static_cast<std::int32_t>(c)); });
  }
  void softmax_loss(const HeadTask<T>* tasks, std::int32_t count, const Scene<T>& scene) override {
    each(tasks, count, scene, batch_rows(*scene.position),
         [&](const HeadTask<T>& task, std::int64_t r) { stacked::softmax_loss(task, scene, static_cast<std::int32_t>(r)); });
  }
  void choose_class(const HeadTask<T>* tasks, std::int32_t count, const Scene<T>& scene) override {
    each(tasks, count, scene, batch_rows(*scene.position),
         [&](const HeadTask<T>& task, std::int64_t r) { stacked::choose_class(task, scene, static_cast<std::int32_t>(r)); });
  }
  void share_gradient(const ShareTask<T>* tasks, std::int32_t count, const Scene<T>& scene) override {
    for (std::int32_t i = 0; i < count; ++i) ShareGradient<T>::run(tasks[i], scene, share_);
  }
  void adam(const AdamTask<T>* tasks, std::int32_t count, std::int64_t, const Scene<T>& scene) override {
    for (std::int32_t t = 0; t < count; ++t) {
      const AdamTask<T> task = tasks[t];
      if (!scene.live[task.trial]) continue;
      for (std::int64_t i = 0; i < task.count; ++i) stacked::adam(task, scene, i);
    }
  }
  void advance(const Scene<T>& scene) override { stacked::advance(*scene.position); }
  void sum_losses(const Scene<T>& scene, std::int32_t steps, std::int64_t first, std::int64_t end, double* sums) override {
    for (std::int32_t s = 0; s < steps; ++s) {
      const auto rows = static_cast<std::int32_t>(std::min<std::int64_t>(scene.rows, end - first - s * scene.rows));
      for (std::int32_t k = 0; k < scene.trials; ++k) {
        sums[s * scene.trials + k] = scene.live[k] ? summed_loss(scene, s, k, rows) : 0;
      }
    }
  }
  void repeat(std::int32_t times, std::uint64_t, const std::function<void()>& work) override {
    for (std::int32_t i = 0; i < times; ++i) work();
  }

 private:
  template <typename Task, typename Body>
  static void each(const Task* tasks, std::int32_t count, const Scene<T>& scene, std::int64_t elements, Body body) {
    for (std::int32_t t = 0; t < count; ++t) {
      if (!scene.live[tasks[t].trial]) continue;
      for (std::int64_t i = 0; i < elements; ++i) body(tasks[t], i);
    }
  }

  template <typename Program>
  static void run_blocks(TurnsBlock<Program>& block, const ProductList<T>& list, const BlockRef* refs, std::int32_t count,
                         const Scene<T>& scene) {
    for (std::int32_t i = 0; i < count; ++i) Program::run(list, refs[i], scene, block);
  }

  // ---- products through LibTorch

  static at::Tensor matrix(const T* data, std::int64_t rows, std::int64_t columns) {
    return at::from_blob(const_cast<T*>(data), {rows, columns},  // NOLINT: LibTorch has no read-only tensors
                         at::TensorOptions().dtype(sizeof(T) == sizeof(float) ? at::kFloat : at::kDouble));
  }

  struct Gathered {
    const void* data;
    std::int32_t cohort;
    std::vector<T> numbers;
  };

  /// The batch's rows of a segment, gathered once for all trials that read them in one call of `product`.
  const T* gathered(const Segment<T>& segment, std::int32_t cohort, const Scene<T>& scene, std::int32_t rows) {
    if (segment.source == Source::numbers) return static_cast<const T*>(segment.data);
    for (std::size_t i = 0; i < gathered_count_; ++i) {
      if (gathered_[i].data == segment.data && gathered_[i].cohort == cohort) return gathered_[i].numbers.data();
    }
    if (gathered_count_ == gathered_.size()) gathered_.emplace_back();
    Gathered& next = gathered_[gathered_count_++];
    next.data = segment.data;
    next.cohort = cohort;
    next.numbers.resize(static_cast<std::size_t>(rows) * static_cast<std::size_t>(segment.width));
    for (std::int32_t r = 0; r < rows; ++r) {
      const std::int64_t row = segment_row(segment, scene.cohorts[cohort], *scene.position, r);
      T* const out = next.numbers.data() + static_cast<std::int64_t>(r) * segment.width;
      for (std::int32_t c = 0; c < segment.width; ++c) out[c] = segment_number(segment, row, c);
    }
    return next.numbers.data();
  }

  void multiply(const ProductList<T>& list, const ProductTask<T>& task, const Scene<T>& scene) {
    const std::int32_t rows = batch_rows(*scene.position);
    const Segment<T>* const segments = list.segments + task.segment;
    if (task.kind == ProductKind::forward) {
      const at::Tensor out = matrix(task.out, rows, task.columns);
      for (std::int32_t s = task.segments; s-- > 0;) {  // the ones come last, and are what the sums begin with
        const Segment<T>& segment = segments[s];
        const T* const right = task.right + static_cast<std::int64_t>(segment.weight_row) * task.columns;
        if (segment.source == Source::ones) {
          for (std::int32_t r = 0; r < rows; ++r) std::copy_n(right, task.columns, task.out + static_cast<std::int64_t>(r) * task.columns);
          continue;
        }
        at::Tensor result = out;
        at::addmm_out(result, out, matrix(gathered(segment, task.cohort, scene, rows), rows, segment.width),
                      matrix(right, segment.width, task.columns), 1, segment_share(segment));
      }
    } else if (task.kind == ProductKind::weight_gradient) {
      const Segment<T>& segment = segments[0];
      if (segment.source == Source::ones) return add_rows(task, rows);
      at::Tensor out = matrix(task.out, segment.width, task.columns);
      at::addmm_out(out, out, matrix(gathered(segment, task.cohort, scene, rows), rows, segment.width).t(),
                    matrix(task.right, rows, task.columns), 0, segment_share(segment));
    } else {
      at::Tensor out = matrix(task.out, rows, task.columns);
      at::mm_out(out, matrix(task.left, rows, task.depth), matrix(task.right, task.columns, task.depth).t());
    }
  }

  static void add_rows(const ProductTask<T>& task, std::int32_t rows) {
    std::fill_n(task.out, task.columns, T{0});
    for (std::int32_t r = 0; r < rows; ++r) {
      const T* const row = task.right + static_cast<std::int64_t>(r) * task.columns;
      for (std::int32_t c = 0; c < task.columns; ++c) task.out[c] += row[c];
    }
  }

  const CpuProducts products_;
  TurnsBlock<NarrowProduct<T>> narrow_;
  TurnsBlock<WideProduct<T>> wide_;
  TurnsBlock<ShareGradient<T>> share_;
  std::vector<Gathered> gathered_;
  std::size_t gathered_count_ = 0;
};

}  // namespace

template <typename T>
std::unique_ptr<Backend<T>> make_cpu_backend(CpuProducts products) {
  return std::make_unique<CpuBackend<T>>(products);
}

template std::unique_ptr<Backend<float>> make_cpu_backend<float>(CpuProducts);
template std::unique_ptr<Backend<double>> make_cpu_backend<double>(CpuProducts);

}  // namespace fusion::stacked
