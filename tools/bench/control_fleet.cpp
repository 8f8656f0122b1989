#include "tools/bench/control_fleet.h"

#include <algorithm>
#include <deque>
#include <map>
#include <unordered_map>
#include <utility>

#include "base/asio.h"
#include "base/error.h"
#include "base/random.h"
#include "base/version.h"
#include "workers/client/connection.h"

namespace fusion::bench {
namespace {

using Steady = std::chrono::steady_clock;
using namespace std::chrono_literals;

double ms_between(Steady::time_point from, Steady::time_point to) { return std::chrono::duration<double, std::milli>(to - from).count(); }

protocol::Hello hello_of(int number, int pack, int slots) {
  protocol::Hello hello;
  hello.name = "bench-" + std::to_string(number);
  hello.host = "loopback";
  hello.device = "none";
  hello.pack = pack;
  hello.slots = slots;
  hello.code_version = kCodeVersion;
  hello.torch_version = "none";
  return hello;
}

TrialOutcome outcome_of(const TrialJob& job, int epochs) {
  TrialOutcome outcome;
  outcome.trial = job.trial;
  outcome.attempt = job.attempt;
  outcome.engine = "none";
  outcome.device = "none";
  outcome.code_version = kCodeVersion;
  outcome.torch_version = "none";
  Score score;
  score.dev_score = static_cast<double>(job.seed % 9973) / 9973;
  score.best_epoch = epochs;
  score.dev_accuracy = score.dev_weighted_f1 = score.dev_macro_f1 = score.dev_score;
  score.train_loss = 1.25;
  score.train_s = 0.5;
  score.parameters = 4170;
  outcome.score = score;
  return outcome;
}

}  // namespace

double quantile(std::vector<double> values, double share) {
  if (values.empty()) return 0;
  const auto place = static_cast<std::size_t>(share * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(place), values.end());
  return values[place];
}

struct Fleet::Impl {
  struct Worker {
    std::shared_ptr<Connection> connection;
    std::unique_ptr<asio::steady_timer> heartbeat, training;
    int number = 0;
    bool idle = false, welcomed = false, gone = false;
    std::unordered_map<std::int64_t, TrialJob> held;
    std::multimap<Steady::time_point, std::pair<TrialJob, int>> in_training;  // the epochs that are still to end
    std::unordered_map<std::int64_t, Steady::time_point> sent;
    std::deque<Steady::time_point> room_since, handed_in;
  };

  Impl(std::uint16_t port, FleetOptions options_) : options(options_) { url.port = std::to_string(port); }

  asio::awaitable<void> serve(Worker& worker);
  void on(Worker& worker, const protocol::Pack& pack);
  void on(Worker& worker, const protocol::Ack& ack);
  void train(Worker& worker);
  void report(Worker& worker, const TrialJob& job, int epoch);
  Steady::duration training_of(TrialId trial) const;
  void beat(Worker& worker);
  void run(std::chrono::milliseconds longest);

  FleetOptions options;
  DaemonUrl url;
  asio::io_context io{1};
  std::deque<Worker> workers;
  FleetFigures figures;
  std::size_t results = 0, stop_at = 0;
  int welcomed = 0;
  std::exception_ptr failed;  ///< how the first of them ended: none should
};

asio::awaitable<void> Fleet::Impl::serve(Worker& worker) {
  const std::string no_token;
  const std::shared_ptr<ssl::context> plain;
  co_await worker.connection->open(url, no_token, plain);
  const protocol::Message hello = hello_of(worker.number, worker.idle ? 1 : options.pack, worker.idle ? 1 : options.slots);
  worker.connection->send(hello);
  if (worker.idle) {  // it wants nothing: no more packs are sent to one that leaves
    const protocol::Message leaving = protocol::Leaving{"idle, for the benchmark"};
    worker.connection->send(leaving);
  }
  while (true) {
    const protocol::Message message = co_await worker.connection->read();
    if (const auto* pack = std::get_if<protocol::Pack>(&message)) on(worker, *pack);
    if (const auto* ack = std::get_if<protocol::Ack>(&message)) on(worker, *ack);
    if (std::holds_alternative<protocol::Welcome>(message)) {
      worker.welcomed = true;
      if (++welcomed == static_cast<int>(workers.size())) io.stop();
      beat(worker);
    }
    if (const auto* refused = std::get_if<protocol::Refused>(&message)) throw Error("the daemon refused a worker: " + refused->error);
  }
}

void Fleet::Impl::on(Worker& worker, const protocol::Pack& pack) {
  const auto now = Steady::now();
  for (const TrialJob& job : pack.trials) {
    if (!worker.room_since.empty()) {
      figures.dispatch_ms.push_back(ms_between(worker.room_since.front(), now));
      worker.room_since.pop_front();
    }
    if (!worker.handed_in.empty()) {
      figures.turnaround_ms.push_back(ms_between(worker.handed_in.front(), now));
      worker.handed_in.pop_front();
    }
    worker.held.emplace(job.trial.value, job);
    const Steady::duration training = training_of(job.trial);
    for (int epoch = 1; epoch <= options.epochs; ++epoch) worker.in_training.emplace(now + training * epoch / options.epochs, std::pair(job, epoch));
  }
  train(worker);
}

// Between a half of it and one and a half: workers that all train equally long end in step, and the daemon waits for each crowd.
Steady::duration Fleet::Impl::training_of(TrialId trial) const {
  if (options.training == 0us) return {};
  return options.training * static_cast<std::int64_t>(500 + Rng(static_cast<std::uint64_t>(trial.value)).below(1001)) / 1000;
}

void Fleet::Impl::train(Worker& worker) {
  while (!worker.in_training.empty() && (options.training == 0us || worker.in_training.begin()->first <= Steady::now())) {
    const auto [job, epoch] = worker.in_training.begin()->second;
    worker.in_training.erase(worker.in_training.begin());
    report(worker, job, epoch);
  }
  if (worker.in_training.empty()) return;
  worker.training->expires_at(worker.in_training.begin()->first);
  worker.training->async_wait([this, &worker](boost::system::error_code error) {
    if (!error) train(worker);
  });
}

void Fleet::Impl::report(Worker& worker, const TrialJob& job, int epoch) {
  const EpochReport report{epoch, 1.5 / epoch, 0.25 + 0.5 * epoch / (options.epochs + 1.0), 0.001 / epoch, 0.75};
  worker.connection->send(protocol::Epoch{job.trial, job.attempt, report});
  if (epoch < options.epochs) return;
  worker.connection->send(protocol::Result{outcome_of(job, options.epochs)});
  worker.sent.emplace(job.trial.value, Steady::now());
  worker.handed_in.push_back(Steady::now());
}

void Fleet::Impl::on(Worker& worker, const protocol::Ack& ack) {
  if (!ack.accepted) ++figures.refused;
  if (ack.what == "epoch") {
    ++figures.reports;
    return;
  }
  const auto now = Steady::now();
  figures.results.push_back(now);
  figures.trials.push_back(ack.trial.value);
  if (const auto sent = worker.sent.find(ack.trial.value); sent != worker.sent.end()) {
    figures.ack_ms.push_back(ms_between(sent->second, now));
    worker.sent.erase(sent);
  }
  worker.held.erase(ack.trial.value);
  worker.room_since.push_back(now);
  if (++results == stop_at) io.stop();
}

void Fleet::Impl::beat(Worker& worker) {
  worker.heartbeat->expires_after(5s);
  worker.heartbeat->async_wait([this, &worker](boost::system::error_code error) {
    if (error || worker.gone) return;
    protocol::Heartbeat heartbeat;
    for (const auto& [trial, job] : worker.held) heartbeat.held.push_back({job.trial, job.attempt});
    worker.connection->send(heartbeat);
    beat(worker);
  });
}

/// Until somebody stops the loop; throws what a worker threw.
void Fleet::Impl::run(std::chrono::milliseconds longest) {
  io.restart();
  io.run_for(longest);
  if (failed) std::rethrow_exception(std::exchange(failed, nullptr));
}

Fleet::Fleet(std::uint16_t port, FleetOptions options) : impl_(std::make_unique<Impl>(port, options)) {}
Fleet::~Fleet() = default;

void Fleet::connect() {
  Impl& d = *impl_;
  for (int i = 0; i < d.options.workers + d.options.idle; ++i) {
    Impl::Worker& worker = d.workers.emplace_back();
    worker.number = i;
    worker.idle = i >= d.options.workers;
    worker.connection = std::make_shared<Connection>(d.io);
    worker.heartbeat = std::make_unique<asio::steady_timer>(d.io);
    worker.training = std::make_unique<asio::steady_timer>(d.io);
  }
  for (Impl::Worker& worker : d.workers) {
    auto ended = [&d, &worker](std::exception_ptr error) {
      worker.gone = true;
      if (!d.failed) d.failed = error;
      d.io.stop();
    };
    asio::co_spawn(d.io, d.serve(worker), std::move(ended));
  }
  d.run(60s);
  if (d.welcomed != static_cast<int>(d.workers.size())) {
    throw Error("only " + std::to_string(d.welcomed) + " of " + std::to_string(d.workers.size()) + " workers were welcomed within 60 s");
  }
}

void Fleet::run_until_results(std::size_t count) {
  Impl& d = *impl_;
  d.stop_at = count;
  while (d.results < count) {
    const std::size_t before = d.results;
    d.run(60s);
    if (d.results == before) {
      throw Error("no result was acknowledged for 60 s; " + std::to_string(d.results) + " of " + std::to_string(count) + " were");
    }
  }
}

void Fleet::run_for(std::chrono::milliseconds time) {
  impl_->stop_at = 0;
  impl_->run(time);
}

void Fleet::forget_figures() {
  FleetFigures& figures = impl_->figures;
  for (auto* list : {&figures.dispatch_ms, &figures.turnaround_ms, &figures.ack_ms}) list->clear();
  figures.results.clear();
}

const FleetFigures& Fleet::figures() const { return impl_->figures; }

int Fleet::connected() const {
  return static_cast<int>(std::ranges::count_if(impl_->workers, [](const auto& worker) { return worker.welcomed && !worker.gone; }));
}

}  // namespace fusion::bench
