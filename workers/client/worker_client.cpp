#include "workers/client/worker_client.h"

#include <algorithm>
#include <cstdio>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <thread>
#include <vector>

#include "base/asio.h"
#include "base/error.h"
#include "base/log.h"
#include "workers/client/connection.h"

namespace fusion {

using protocol::Held;

// Two threads, two io_contexts. `link` (a thread of ours): connection, heartbeats, what is held, what awaits acknowledgement.
// `main` (the caller of run): the list of trials to train, and training itself, which blocks it; what `link` posts to it
// meanwhile waits. Stopping a trial goes through its stop_source, which both may touch.
struct WorkerClient::Impl : std::enable_shared_from_this<WorkerClient::Impl> {
  Impl(WorkerClientOptions given, Train trainer)
      : options(std::move(given)), train(std::move(trainer)), signals(link), heartbeat(link), deadline(link) {}

  struct Todo {
    std::shared_ptr<const protocol::Pack> pack;
    TrialJob job;
    std::stop_token stop;
  };
  struct Unacked {  ///< an epoch or a result, in the order they were made
    protocol::Message message;
    std::string what;
    Held held;
    int epoch = 0;
  };

  // ---- link thread
  protocol::Hello hello() const;
  std::vector<Held> all_held() const;
  void on_message(const protocol::Message& message);
  void on_pack(const protocol::Pack& pack);
  void on_ack(const protocol::Ack& ack);
  void beat();
  void stop_now(const std::string& reason);
  void drain(const std::string& reason);
  void report_epoch(const Held& held, const EpochReport& report);
  void report_result(const Held& held, TrialOutcome outcome);
  void begin_farewell(int status);
  void check_farewell();
  void end();

  // ---- main thread
  void train_next();
  TrialOutcome train_one(const Todo& todo);

  WorkerClientOptions options;
  Train train;
  asio::io_context link{1}, main{1};
  std::shared_ptr<Connection> connection;
  asio::signal_set signals;
  asio::steady_timer heartbeat, deadline;
  std::chrono::milliseconds heartbeat_every{10'000};

  // link thread
  std::map<Held, std::stop_source> held;  ///< given to main and not reported yet
  std::optional<Held> running;            ///< the one of them that main trains
  std::deque<Unacked> unacked;
  bool stopping = false;   ///< SIGTERM: give back
  bool leaving = false;    ///< no more packs
  bool farewell = false;   ///< all is reported; waiting for acknowledgements
  bool ended = false;
  std::string reason;

  // main thread
  std::deque<Todo> todo;
  int status = 0;
  bool over = false;
};

WorkerClient::WorkerClient(WorkerClientOptions options, Train train)
    : impl_(std::make_unique<Impl>(std::move(options), std::move(train))) {
  Impl& d = *impl_;
  Connection::Events events;
  events.hello = [&d] { return d.hello(); };
  events.message = [&d](const protocol::Message& message) { d.on_message(message); };
  d.connection = std::make_shared<Connection>(d.link, DaemonAddress::parse(d.options.url), d.options.token, d.options.first_delay,
                                              d.options.longest_delay, std::move(events));
}

WorkerClient::~WorkerClient() = default;

int WorkerClient::run() {
  Impl& d = *impl_;
  if (d.options.catch_signals) {
    d.signals.add(SIGTERM);
    d.signals.add(SIGINT);
    d.signals.async_wait([&d](const boost::system::error_code& error, int signal) {
      if (!error) d.stop_now(signal == SIGTERM ? "SIGTERM" : "SIGINT");
    });
  }
  d.connection->start();
  std::thread link_thread([&d] { d.link.run(); });
  auto work = asio::make_work_guard(d.main);
  while (!d.over) {
    d.main.run_one();
    while (!d.over && !d.todo.empty()) {
      d.train_next();
      d.main.poll();
    }
  }
  link_thread.join();
  return d.status;
}

void WorkerClient::stop(const std::string& reason) {
  asio::post(impl_->link, [impl = impl_.get(), reason] { impl->stop_now(reason); });
}

// ---------------------------------------------------------------------------------------------- main thread

TrialOutcome WorkerClient::Impl::train_one(const Todo& next) {
  const Held what{next.job.trial, next.job.attempt};
  TrialOutcome outcome;
  try {
    if (next.stop.stop_requested()) {
      outcome.outcome = Outcome::cancelled;
      outcome.error = "it was stopped before it began";
    } else {
      outcome = train(*next.pack, next.job, next.stop, [this, what](const EpochReport& report) {
        asio::post(link, [this, what, report] { report_epoch(what, report); });
      });
    }
  } catch (const std::exception& error) {
    outcome = TrialOutcome{};
    outcome.outcome = Outcome::failed;
    outcome.error = error.what();
  }
  outcome.trial = what.trial;
  outcome.attempt = what.attempt;
  if (outcome.device.empty()) outcome.device = options.hello.device;
  if (outcome.code_version.empty()) outcome.code_version = options.hello.code_version;
  if (outcome.torch_version.empty()) outcome.torch_version = options.hello.torch_version;
  return outcome;
}

void WorkerClient::Impl::train_next() {
  const Todo next = std::move(todo.front());
  todo.pop_front();
  const Held what{next.job.trial, next.job.attempt};
  asio::post(link, [this, what] { running = what; });
  TrialOutcome outcome = train_one(next);
  const std::string shown = outcome.score ? std::to_string(outcome.score->dev_score) : outcome.error;
  logger("worker")->info("trial ended trial={} attempt={} outcome={} result=\"{}\"", what.trial.value, what.attempt,
                         name_of(outcome.outcome), shown);
  asio::post(link, [this, what, outcome = std::move(outcome)]() mutable { report_result(what, std::move(outcome)); });
}

// ---------------------------------------------------------------------------------------------- link thread

std::vector<Held> WorkerClient::Impl::all_held() const {
  std::set<Held> all;
  for (const auto& [what, source] : held) all.insert(what);
  for (const Unacked& waiting : unacked) {
    if (waiting.what == "result") all.insert(waiting.held);
  }
  return {all.begin(), all.end()};
}

protocol::Hello WorkerClient::Impl::hello() const {
  protocol::Hello hello = options.hello;
  hello.held = all_held();
  return hello;
}

void WorkerClient::Impl::on_message(const protocol::Message& message) {
  if (const auto* welcome = std::get_if<protocol::Welcome>(&message)) {
    heartbeat_every = std::chrono::milliseconds(static_cast<std::int64_t>(std::max(0.05, welcome->heartbeat_s) * 1000));
    for (const Unacked& waiting : unacked) connection->send(waiting.message);
    if (leaving) {
      const protocol::Message word = protocol::Leaving{reason};
      connection->send(word);
    }
    beat();
  } else if (const auto* pack = std::get_if<protocol::Pack>(&message)) {
    on_pack(*pack);
  } else if (const auto* ack = std::get_if<protocol::Ack>(&message)) {
    on_ack(*ack);
  } else if (const auto* cancel = std::get_if<protocol::Cancel>(&message)) {
    for (const Held& what : cancel->held) {
      const auto found = held.find(what);
      if (found != held.end()) found->second.request_stop();
    }
  } else if (const auto* word = std::get_if<protocol::Drain>(&message)) {
    drain(word->reason);
  } else if (const auto* refused = std::get_if<protocol::Refused>(&message)) {
    std::fprintf(stderr, "fusion-worker: the daemon refuses this worker: %s\n", refused->error.c_str());
    for (auto& [what, source] : held) source.request_stop();
    unacked.clear();
    stopping = leaving = true;
    begin_farewell(2);
  }
}

void WorkerClient::Impl::on_pack(const protocol::Pack& pack) {
  std::vector<Held> back;
  const auto shared = std::make_shared<const protocol::Pack>(pack);
  for (const TrialJob& job : pack.trials) {
    const Held what{job.trial, job.attempt};
    if (leaving) {
      back.push_back(what);
      continue;
    }
    if (held.contains(what)) continue;
    Todo next{shared, job, held[what].get_token()};
    asio::post(main, [this, next = std::move(next)] { todo.push_back(next); });
  }
  if (!back.empty()) {
    const protocol::Message word = protocol::GiveBack{back, reason};
    connection->send(word);
  }
}

void WorkerClient::Impl::on_ack(const protocol::Ack& ack) {
  const Held what{ack.trial, ack.attempt};
  const auto is_it = [&](const Unacked& waiting) {
    return waiting.what == ack.what && waiting.held == what && (ack.what != "epoch" || waiting.epoch == ack.epoch);
  };
  std::erase_if(unacked, is_it);
  if (ack.what == "result" && !ack.accepted) {
    logger("worker")->warn("result came too late and was dropped trial={} attempt={}", ack.trial.value, ack.attempt);
  }
  check_farewell();
}

void WorkerClient::Impl::beat() {
  const protocol::Message word = protocol::Heartbeat{all_held()};
  connection->send(word);
  heartbeat.expires_after(heartbeat_every);
  heartbeat.async_wait([this](const boost::system::error_code& error) {
    if (!error && !ended && connection->open()) beat();
  });
}

void WorkerClient::Impl::report_epoch(const Held& what, const EpochReport& report) {
  const protocol::Message message = protocol::Epoch{what.trial, what.attempt, report};
  unacked.push_back({message, "epoch", what, report.epoch});
  connection->send(message);
}

void WorkerClient::Impl::report_result(const Held& what, TrialOutcome outcome) {
  held.erase(what);
  running.reset();
  if (stopping && outcome.outcome == Outcome::cancelled) {
    const protocol::Message word = protocol::GiveBack{{what}, reason};
    connection->send(word);
  } else {
    const protocol::Message message = protocol::Result{std::move(outcome)};
    unacked.push_back({message, "result", what, 0});
    connection->send(message);
  }
  if (leaving && held.empty()) begin_farewell(0);
}

void WorkerClient::Impl::stop_now(const std::string& why) {
  if (stopping) return;
  logger("worker")->info("stopping reason=\"{}\" held={}", why, held.size());
  stopping = true;
  drain(why);
  for (auto& [what, source] : held) {
    if (what != running) source.request_stop();
  }
  deadline.expires_after(options.grace);
  deadline.async_wait([this](const boost::system::error_code& error) {
    if (error) return;
    for (auto& [what, source] : held) source.request_stop();
  });
}

void WorkerClient::Impl::drain(const std::string& why) {
  if (leaving) return;
  leaving = true;
  reason = why;
  const protocol::Message word = protocol::Leaving{why};
  connection->send(word);
  if (held.empty()) begin_farewell(0);
}

void WorkerClient::Impl::begin_farewell(int exit_status) {
  if (farewell) return;
  farewell = true;
  asio::post(main, [this, exit_status] { status = exit_status; });
  deadline.expires_after(connection->open() ? options.farewell : std::chrono::milliseconds(0));
  deadline.async_wait([this](const boost::system::error_code& error) {
    if (!error) end();
  });
  check_farewell();
}

void WorkerClient::Impl::check_farewell() {
  if (farewell && unacked.empty() && held.empty()) end();
}

void WorkerClient::Impl::end() {
  if (ended) return;
  ended = true;
  if (!unacked.empty()) logger("worker")->warn("ending with reports that nobody acknowledged reports={}", unacked.size());
  deadline.cancel();
  heartbeat.cancel();
  signals.cancel();
  const auto leave = [this] {
    deadline.cancel();
    asio::post(main, [this] { over = true; });
    link.stop();
  };
  // A daemon that does not answer the closing handshake is not waited for.
  deadline.expires_after(std::chrono::seconds(2));
  deadline.async_wait([leave](const boost::system::error_code& error) {
    if (!error) leave();
  });
  connection->close(leave);
}

}  // namespace fusion
