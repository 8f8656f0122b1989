#include "workers/train/stacked_plan.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <numeric>

#include "model/random_streams.h"
#include "workers/train/stacked_bodies.h"

namespace fusion::stacked {

/// Collects tables, then puts all of them into one piece of the device's memory. Two passes over the same calls: the first one measures,
/// the second one, with the memory there, gives out pointers that hold.
template <typename T>
class Plan<T>::Writer {
 public:
  explicit Writer(char* base) : base_(base) {}

  template <typename Item>
  Item* add(const std::vector<Item>& items) {
    const std::size_t at = bytes_.size();
    bytes_.resize(at + (items.size() * sizeof(Item) + kAlignment - 1) / kAlignment * kAlignment);
    if (!items.empty()) std::memcpy(bytes_.data() + at, items.data(), items.size() * sizeof(Item));
    return reinterpret_cast<Item*>(base_ + at);
  }
  template <typename Task>
  Table<Task> add_table(const std::vector<Task>& tasks) {
    return {add(tasks), static_cast<std::int32_t>(tasks.size())};
  }
  /// `rows`: of a batch at most.
  ProductList<T> add_products(const std::vector<ProductTask<T>>& tasks, const std::vector<Segment<T>>& segments, std::int32_t rows) {
    std::vector<BlockRef> narrow, wide;
    for (std::size_t t = 0; t < tasks.size(); ++t) {
      const ProductTask<T>& task = tasks[t];
      const bool weights = task.kind == ProductKind::weight_gradient;
      const std::int32_t height = weights ? segments[static_cast<std::size_t>(task.segment)].width : rows;
      const bool in_wide = task.columns >= kWideColumns && height > NarrowProduct<T>::kRows;
      const std::int32_t down = in_wide ? WideProduct<T>::kRows : NarrowProduct<T>::kRows;
      const std::int32_t across = in_wide ? WideProduct<T>::kColumns : NarrowProduct<T>::kColumns;
      for (std::int32_t row = 0; row < height; row += down) {
        for (std::int32_t column = 0; column < task.columns; column += across) {
          (in_wide ? wide : narrow).push_back({static_cast<std::int32_t>(t), row, column});
        }
      }
    }
    ProductList<T> list;
    list.tasks = add(tasks);
    list.segments = add(segments);
    list.task_count = static_cast<std::int32_t>(tasks.size());
    list.narrow = add(narrow);
    list.narrow_count = static_cast<std::int32_t>(narrow.size());
    list.wide = add(wide);
    list.wide_count = static_cast<std::int32_t>(wide.size());
    return list;
  }
  const std::vector<char>& bytes() const { return bytes_; }

 private:
  static constexpr std::size_t kAlignment = 256;
  char* base_;
  std::vector<char> bytes_;
};

template <typename T>
Plan<T>::Plan(Backend<T>& backend, const NetworkOptions& options, std::span<const Member<T>> members,
              std::span<const CohortSource<T>> cohorts, const Labels& labels, bool training)
    : backend_(backend),
      options_(options),
      members_(members.begin(), members.end()),
      cohorts_(cohorts.begin(), cohorts.end()) {
  static std::atomic<std::uint64_t> plans{0};
  token_ = ++plans;
  scene_.training = training;
  scene_.trials = static_cast<std::int32_t>(members_.size());
  scene_.width = static_cast<std::int32_t>(options.fusion.width);
  scene_.classes = static_cast<std::int32_t>(options.fusion.classes);
  scene_.rows = static_cast<std::int32_t>(training ? options.batch : options.scored_rows);
  scene_.batchnorm = options.fusion.batchnorm;
  scene_.dropout = options.dropout > 0;
  scene_.mask_threshold = static_cast<std::uint32_t>(std::min(options.dropout * 0x1p32, 4294967295.0));
  scene_.mask_kept = static_cast<T>(static_cast<float>(1.0 / (1.0 - options.dropout)));
  for (const Member<T>& member : members_) longest_ = std::max(longest_, member.network->steps().size());
  Writer measuring(nullptr);
  write(measuring, labels);
  tables_ = DeviceMemory<T>(backend, static_cast<std::int64_t>(measuring.bytes().size()));
  Writer writer(static_cast<char*>(tables_.data()));
  write(writer, labels);
  backend.upload(tables_.data(), writer.bytes().data(), static_cast<std::int64_t>(writer.bytes().size()));
}

template <typename T>
void Plan<T>::write(Writer& writer, const Labels& labels) {
  forward_.clear(), backward_.clear(), steps_.clear();
  scene_.position = writer.add(std::vector<Position>(1));
  std::vector<Cohort<T>> cohorts;
  for (const CohortSource<T>& source : cohorts_) cohorts.push_back(source.cohort);
  scene_.cohorts = writer.add(cohorts);
  live_ = writer.add(std::vector<std::uint8_t>(members_.size(), 1));
  scene_.live = live_;
  for (std::size_t i = 0; i < longest_; ++i) write_step(writer, i);
  write_head(writer, labels);
  if (!scene_.training) return;
  write_updates(writer);
  const std::size_t losses = static_cast<std::size_t>(kChunkSteps) * members_.size();
  sums_ = writer.add(std::vector<double>(losses));
  scene_.row_losses = writer.add(std::vector<T>(losses * static_cast<std::size_t>(options_.batch)));
}

// ---- tables

template <typename T>
ProductTask<T> Plan<T>::task_of(std::int32_t trial, ProductKind kind) const {
  ProductTask<T> task;
  task.kind = kind;
  task.trial = trial;
  task.cohort = members_[static_cast<std::size_t>(trial)].cohort;
  task.segments = 1;
  return task;
}

template <typename T>
Segment<T> Plan<T>::tap_segment(const Member<T>& member, const StepLayout& step, std::size_t m, std::int32_t weight_row) const {
  const TapSource& tap = cohorts_[static_cast<std::size_t>(member.cohort)].taps[m][step.taps[m]];
  Segment<T> segment;
  segment.data = tap.data;
  segment.stride = tap.stride;
  segment.source = tap.source;
  segment.width = static_cast<std::int32_t>(step.widths[m]);
  segment.weight_row = weight_row;
  if (options_.fusion.alphas) {
    segment.share = m == 0 ? Share::first : Share::others;
    segment.alpha = member.network->theta() + step.alpha;
  }
  return segment;
}

/// [a, b, ..., h, 1] of one step.
template <typename T>
void Plan<T>::add_segments(const Member<T>& member, std::size_t index, std::vector<Segment<T>>& segments) const {
  const std::vector<StepLayout>& steps = member.network->steps();
  const StepLayout& step = steps[index];
  std::int32_t row = 0;
  for (std::size_t m = 0; m < step.taps.size(); ++m) {
    segments.push_back(tap_segment(member, step, m, row));
    row += segments.back().width;
  }
  if (index > 0) {
    Segment<T> hidden;
    hidden.data = member.network->at(steps[index - 1].hidden);
    hidden.stride = hidden.width = scene_.width;
    hidden.source = Source::numbers;
    hidden.weight_row = row;
    segments.push_back(hidden);
    row += scene_.width;
  }
  Segment<T> ones;
  ones.width = 1;
  ones.weight_row = row;
  segments.push_back(ones);
}

/// One task for the gradient of each segment's weights.
template <typename T, typename TaskOf>
void add_weight_gradients(const std::vector<Segment<T>>& segments, std::size_t first, const T* right, std::int32_t columns, T* gradient,
                          TaskOf task_of, std::vector<ProductTask<T>>& tasks) {
  for (std::size_t s = first; s < segments.size(); ++s) {
    ProductTask<T> task = task_of(ProductKind::weight_gradient);
    task.segment = static_cast<std::int32_t>(s);
    task.columns = columns;
    task.right = right;
    task.out = gradient + static_cast<std::int64_t>(segments[s].weight_row) * columns;
    tasks.push_back(task);
  }
}

/// Between product and output of one step.
template <typename T>
StepTask<T> Plan<T>::step_task(std::int32_t trial, std::size_t index) const {
  const Member<T>& member = members_[static_cast<std::size_t>(trial)];
  const Network<T>& of = *member.network;
  const StepLayout& step = of.steps()[index];
  StepTask<T> task;
  task.trial = trial;
  task.cohort = member.cohort;
  task.nonlinearity = step.nonlinearity;
  task.gated = step.op == FusionOp::glu;
  task.mask_seed = of.seed();
  task.mask_stream = random_stream(StreamKind::dropout, static_cast<std::uint32_t>(index));
  task.product = of.at(step.product);
  task.hidden = of.at(step.hidden);
  task.gradient = of.step_gradient();
  task.product_gradient = of.product_gradient();
  if (!scene_.batchnorm) return task;
  task.normalised = of.at(step.normalised);
  task.rstd = of.at(step.rstd);
  task.gamma = of.theta() + step.gamma;
  task.beta = of.theta() + step.beta;
  task.gamma_gradient = of.gradient() + step.gamma;
  task.beta_gradient = of.gradient() + step.beta;
  task.running_mean = of.statistics() + step.statistics;
  task.running_var = task.running_mean + scene_.width;
  return task;
}

template <typename T>
void Plan<T>::write_step(Writer& writer, std::size_t index) {
  std::vector<std::int32_t> there;
  for (std::size_t k = 0; k < members_.size(); ++k) {
    if (members_[k].network->steps().size() > index) there.push_back(static_cast<std::int32_t>(k));
  }
  const auto network = [this](std::int32_t k) -> const Network<T>& { return *members_[static_cast<std::size_t>(k)].network; };
  std::stable_sort(there.begin(), there.end(), [&](std::int32_t a, std::int32_t b) {
    const auto key = [&](std::int32_t k) { return std::pair(members_[static_cast<std::size_t>(k)].cohort, network(k).steps()[index].taps); };
    return key(a) < key(b);
  });
  std::vector<Segment<T>> segments;
  std::vector<ProductTask<T>> forward, backward;
  std::vector<StepTask<T>> tasks;
  for (const std::int32_t k : there) {
    const Member<T>& member = members_[static_cast<std::size_t>(k)];
    const Network<T>& of = network(k);
    const StepLayout& step = of.steps()[index];
    const std::size_t first = segments.size();
    add_segments(member, index, segments);
    ProductTask<T> product = task_of(k, ProductKind::forward);
    product.segment = static_cast<std::int32_t>(first);
    product.segments = static_cast<std::int32_t>(segments.size() - first);
    product.columns = static_cast<std::int32_t>(step.outputs);
    product.right = of.theta() + step.weight;
    product.out = of.at(step.product);
    forward.push_back(product);
    add_weight_gradients(segments, first, of.product_gradient(), product.columns, of.gradient() + step.weight,
                         [&](ProductKind kind) { return task_of(k, kind); }, backward);
    if (index > 0) {
      ProductTask<T> down = task_of(k, ProductKind::input_gradient);
      down.columns = scene_.width;
      down.depth = product.columns;
      down.left = of.product_gradient();
      down.right = of.theta() + step.weight + step.tap_inputs * step.outputs;
      down.out = of.step_gradient();
      backward.push_back(down);
    }
    tasks.push_back(step_task(k, index));
  }
  forward_.push_back(writer.add_products(forward, segments, scene_.rows));
  steps_.push_back(writer.add_table(tasks));
  if (scene_.training) backward_.push_back(writer.add_products(backward, segments, scene_.rows));
}

template <typename T>
void Plan<T>::write_head(Writer& writer, const Labels& labels) {
  std::vector<Segment<T>> segments;
  std::vector<ProductTask<T>> forward, backward;
  std::vector<HeadTask<T>> heads;
  for (std::int32_t k = 0; k < scene_.trials; ++k) {
    const Member<T>& member = members_[static_cast<std::size_t>(k)];
    const Network<T>& of = *member.network;
    const std::size_t first = segments.size();
    Segment<T> hidden;
    hidden.data = of.at(of.steps().back().hidden);
    hidden.stride = hidden.width = scene_.width;
    hidden.source = Source::numbers;
    Segment<T> ones;
    ones.width = 1;
    ones.weight_row = scene_.width;
    segments.push_back(hidden);
    segments.push_back(ones);
    ProductTask<T> product = task_of(k, ProductKind::forward);
    product.segment = static_cast<std::int32_t>(first);
    product.segments = 2;
    product.columns = scene_.classes;
    product.right = of.theta() + of.classifier();
    product.out = of.logits();
    forward.push_back(product);
    add_weight_gradients(segments, first, static_cast<const T*>(of.logits()), scene_.classes, of.gradient() + of.classifier(),
                         [&](ProductKind kind) { return task_of(k, kind); }, backward);
    ProductTask<T> down = task_of(k, ProductKind::input_gradient);
    down.columns = scene_.width;
    down.depth = scene_.classes;
    down.left = of.logits();
    down.right = product.right;
    down.out = of.step_gradient();
    backward.push_back(down);
    heads.push_back({k, member.cohort, of.logits(), labels.labels, labels.stored, member.predictions});
  }
  head_forward_ = writer.add_products(forward, segments, scene_.rows);
  heads_ = writer.add_table(heads);
  if (scene_.training) head_backward_ = writer.add_products(backward, segments, scene_.rows);
}

template <typename T>
void Plan<T>::write_updates(Writer& writer) {
  std::vector<ShareTask<T>> shares;
  std::vector<AdamTask<T>> updates;
  most_parameters_ = 0;
  for (std::int32_t k = 0; k < scene_.trials; ++k) {
    const Network<T>& of = *members_[static_cast<std::size_t>(k)].network;
    updates.push_back({k, members_[static_cast<std::size_t>(k)].cohort, of.parameters(), of.theta(), of.moment1(), of.moment2(),
                       of.gradient()});
    most_parameters_ = std::max(most_parameters_, of.parameters());
    if (!options_.fusion.alphas) continue;
    for (const StepLayout& step : of.steps()) {
      const std::int64_t first = step.widths.front() * step.outputs;
      shares.push_back({k, of.theta() + step.weight, of.gradient() + step.weight, of.theta() + step.alpha, first,
                        step.tap_inputs * step.outputs - first, of.gradient() + step.alpha});
    }
  }
  shares_ = writer.add_table(shares);
  adam_ = writer.add_table(updates);
}

// ---- work

template <typename T>
void Plan<T>::forward() {
  for (std::size_t i = 0; i < longest_; ++i) {
    backend_.product(forward_[i], scene_);
    backend_.activate(steps_[i].tasks, steps_[i].count, scene_);
    if (scene_.batchnorm) backend_.normalise(steps_[i].tasks, steps_[i].count, scene_);
  }
  backend_.product(head_forward_, scene_);
}

template <typename T>
void Plan<T>::backward() {
  backend_.product(head_backward_, scene_);
  for (std::size_t i = longest_; i-- > 0;) {
    if (scene_.batchnorm) backend_.normalise_back(steps_[i].tasks, steps_[i].count, scene_);
    backend_.activate_back(steps_[i].tasks, steps_[i].count, scene_);
    backend_.product(backward_[i], scene_);
  }
}

template <typename T>
std::vector<double> Plan<T>::train(std::int64_t first, std::int64_t end, std::int64_t tile_first, std::int32_t steps) {
  Position position;
  position.first = first;
  position.end = end;
  position.tile_first = tile_first;
  position.batch = static_cast<std::int32_t>(options_.batch);
  position.step = static_cast<std::int32_t>(first / options_.batch);
  backend_.upload(scene_.position, &position, sizeof position);
  backend_.repeat(steps, token_, [this] {
    forward();
    backend_.softmax_loss(heads_.tasks, heads_.count, scene_);
    backward();
    if (shares_.count > 0) backend_.share_gradient(shares_.tasks, shares_.count, scene_);
    backend_.adam(adam_.tasks, adam_.count, most_parameters_, scene_);
    backend_.advance(scene_);
  });
  backend_.sum_losses(scene_, steps, first, end, sums_);
  std::vector<double> sums(static_cast<std::size_t>(steps) * members_.size());
  backend_.download(sums.data(), sums_, static_cast<std::int64_t>(sums.size() * sizeof(double)));
  return sums;
}

template <typename T>
void Plan<T>::score(std::int64_t first, std::int64_t rows, std::int64_t tile_first) {
  Position position;
  position.first = first;
  position.end = first + rows;
  position.tile_first = tile_first;
  position.batch = static_cast<std::int32_t>(rows);
  backend_.upload(scene_.position, &position, sizeof position);
  forward();
  backend_.choose_class(heads_.tasks, heads_.count, scene_);
}

template <typename T>
void Plan<T>::stop(std::size_t member) {
  const std::uint8_t no = 0;
  backend_.upload(live_ + member, &no, sizeof no);
}

template class Plan<float>;
template class Plan<double>;

}  // namespace fusion::stacked
