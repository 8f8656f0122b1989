#include "workers/client/worker_client.h"

#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <future>
#include <map>
#include <new>
#include <optional>
#include <random>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "base/asio.h"
#include "base/error.h"
#include "base/log.h"
#include "base/random.h"
#include "base/version.h"
#include "security/credentials.h"
#include "security/tls.h"
#include "workers/client/connection.h"
#include "workers/client/epoch_clock.h"
#include "workers/client/held_retrainings.h"
#include "workers/client/held_trials.h"
#include "workers/client/journal.h"
#include "workers/client/worker_condition.h"
#include "workers/protocol/codec.h"
#include "workers/protocol/retraining_data.h"

// How a worker ends. `over_` is set once, by `finish`; everything before that goes on as long as it must:
//
//   leave (a signal)   waiting trials go back at once; those in training end in time, or are stopped and go back; a retraining that was
//                      stopped has some seconds to send its checkpoint
//   time is over       the same, with what is left of the wall time for a grace
//   device lost        the same, without any
//   drain (daemon)     waiting trials are trained first; said again, nothing is trained any more, and all goes back
//   refused            those in training are stopped, nothing is sent any more; `failure_` says why
//
// For the first two `end_if_done` is asked after every change: nothing waits, nothing trains, and every result is acknowledged (or nobody came
// to acknowledge it for `leave_wait`). Then the connection says good-bye, and both threads stop.

namespace fusion {

namespace {

using protocol::Held;
using protocol::HeldRetraining;

/// Between two words of progress to the daemon.
constexpr std::chrono::milliseconds kProgressEvery{500};
/// Between two looks at the time that is left.
constexpr std::chrono::milliseconds kLookEvery{250};
/// All mean "leave soon": which one comes says nothing of why (preemption, time limit, a person).
/// SIGPIPE: who reads its log is gone, such as an ssh without a terminal.
constexpr int kLeaveSignals[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2, SIGPIPE};

std::string signal_name(int signal) {
  switch (signal) {
    case SIGTERM: return "SIGTERM";
    case SIGINT: return "SIGINT";
    case SIGHUP: return "SIGHUP";
    case SIGUSR1: return "SIGUSR1";
    case SIGPIPE: return "SIGPIPE";
    default: return "SIGUSR2";
  }
}

/// nohup and the like have it ignored: then it stays so.
bool is_ignored(int signal) {
  struct sigaction now {};
  return ::sigaction(signal, nullptr, &now) == 0 && (now.sa_flags & SA_SIGINFO) == 0 && now.sa_handler == SIG_IGN;
}

std::string seconds_text(double seconds) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f s", seconds);
  return text;
}

std::string host_name() {
  char name[256] = {};
  return ::gethostname(name, sizeof name - 1) == 0 && name[0] != '\0' ? name : "unknown";
}

std::uint64_t any_seed() {
  std::random_device device;
  return mix(device(), device());
}

std::chrono::milliseconds milliseconds_of(double seconds) {
  return std::chrono::milliseconds(static_cast<std::int64_t>(seconds * 1000));
}

/// A message that the daemon would refuse must not leave: it would end this worker. Throws ProtocolError.
void check_sendable(const protocol::Message& message) { protocol::decode(protocol::encode(message)); }

}  // namespace

class WorkerClient::Impl {
 public:
  Impl(WorkerClientOptions options, TrainFunction train, RetrainFunction retrain)
      : options_(std::move(options)), train_(std::move(train)), retrain_(std::move(retrain)),
        condition_(options_.wall, options_.pack, std::max(options_.slots, options_.pack), now()), jitter_(any_seed()) {
    if (options_.name.empty()) options_.name = host_name() + "-" + std::to_string(::getpid());
    if (!options_.journal.empty()) journal_.emplace(options_.journal);
    require_hidden_token(options_.token, options_.url.tls, options_.url.host, options_.url.text());
    if (options_.url.tls) tls_ = client_tls(options_.ca_file);
  }

  WorkerEnd run();
  void leave(const std::string& reason) {
    asio::post(io_, [this, reason] { on_leave(reason, WorkerEnd::asked, options_.grace); });
  }
  void report_devices(std::vector<protocol::Device> devices, std::optional<Size> size) {
    asio::post(io_, [this, devices = std::move(devices), size]() mutable { on_devices(std::move(devices), size); });
  }
  const WorkerClientOptions& options() const { return options_; }

 private:
  using Header = std::shared_ptr<const protocol::PackHeader>;

  // training thread
  void train(const Header& header, std::vector<SessionTrial> trials);
  std::vector<SessionTrial> ask_for_more(const Header& header, std::size_t room);
  void retrain(RetrainingJob job, RetrainingSession::Stops stops);

  // I/O thread: the connection
  asio::awaitable<void> keep_connected();
  asio::awaitable<void> converse(std::shared_ptr<Connection> connection);
  void disconnected(const std::string& reason);
  std::chrono::milliseconds next_pause();
  protocol::Hello hello() const;
  void send(const protocol::Message& message);
  void heartbeat();
  void say_condition();
  void await_signal();
  void on_signal(int signal);

  // I/O thread: the time that is left, devices, data
  static SteadyTime now() { return std::chrono::steady_clock::now(); }
  void watch_time();
  void look_at_time();
  bool allows_less(const protocol::Condition& now, const protocol::Condition& before) const;
  void give_back_what_does_not_fit();
  void hand_back_in_time();
  void on_devices(std::vector<protocol::Device> devices, std::optional<Size> size);
  void on_unreadable(const std::string& dataset_digest, const std::string& why);

  // I/O thread: what the daemon says
  void on_message(const protocol::Message& message);
  void on(const protocol::Welcome& message);
  void on(const protocol::Refused& message);
  void on(const protocol::Pack& message);
  void on(const protocol::Ack& message);
  void on(const protocol::Cancel& message);
  void on(const protocol::Prune& message);
  void on(const protocol::Drain& message);
  void on(const protocol::RetrainingLease& message);
  void on(const protocol::RetrainingAck& message);
  void on(const protocol::HandBack& message);
  template <typename Other>
  void on(const Other&) {
    throw ProtocolError("the daemon sent a message that only workers send");
  }

  // I/O thread: training, and the end
  void train_next();
  std::vector<SessionTrial> begin(const protocol::PackHeader& header, std::size_t room);
  void on_epoch(const Held& what, const EpochReport& report);
  void on_trained(TrialOutcome outcome);
  void on_pack_ended();
  void finish_trial(TrialOutcome outcome);
  void give_back(const std::vector<Held>& held, const std::vector<HeldRetraining>& retrainings = {}, const std::string& why = "");
  void retrain_next();
  void on_retraining_epoch(const HeldRetraining& what, const RetrainingEpoch& epoch);
  void on_retraining_progress(const HeldRetraining& what, const RetrainingProgress& progress);
  void on_retrained(RetrainingOutcome outcome);
  void finish_retraining(RetrainingOutcome outcome);
  void on_leave(const std::string& reason, WorkerEnd why, std::chrono::milliseconds grace);
  void end_grace();
  void fail(std::exception_ptr error);
  void end_if_done();
  void finish();
  void stop_threads();
  TrialOutcome outcome_without_score(const Held& what, Outcome outcome, std::string error) const;

  // constant after construction
  WorkerClientOptions options_;
  TrainFunction train_;
  RetrainFunction retrain_;

  // the two threads' queues; `main_` runs on the training thread
  asio::io_context io_{1}, main_{1};
  asio::executor_work_guard<asio::io_context::executor_type> io_work_{io_.get_executor()}, main_work_{main_.get_executor()};

  // I/O thread
  std::optional<Journal> journal_;
  HeldTrials held_;
  HeldRetrainings retrainings_;
  WorkerCondition condition_;
  std::optional<EpochClock> epoch_clock_;    // of the retraining at work
  std::optional<protocol::Condition> said_;  // of connection_
  std::map<Held, SteadyTime> begun_;         // of those in training
  int epochs_ = 0;                           // of the trials in training
  std::shared_ptr<ssl::context> tls_;                    // null: plain
  std::chrono::steady_clock::time_point progress_at_{};  // when progress was sent last
  std::shared_ptr<Connection> connection_;
  bool welcomed_ = false;       // of connection_: before that nothing but hello may be sent
  bool told_lost_ = false;      // one line per change of state, not per try
  std::chrono::milliseconds heartbeat_every_{10'000};
  asio::steady_timer heartbeat_{io_}, pause_{io_}, grace_{io_}, send_{io_}, deadline_{io_}, look_{io_};
  asio::signal_set signals_{io_};
  int tries_ = 0;
  Rng jitter_;
  std::vector<Held> to_give_back_;            // while disconnected
  std::vector<HeldRetraining> retrainings_to_give_back_;
  std::optional<std::string> leaving_;        // why
  std::optional<SteadyTime> signalled_;       // the first signal came
  int signal_ = 0;                            // the last one
  bool grace_over_ = false;
  bool draining_ = false;
  bool drain_said_ = false;  // over connection_
  bool pack_open_ = false;  // the training thread is in the TrainFunction, or in the RetrainFunction
  bool waiting_for_acks_ = false;
  bool over_ = false;

  // written by the I/O thread, read by `run` after it was joined
  WorkerEnd end_ = WorkerEnd::drained;
  std::exception_ptr failure_;
};

// ---- the threads

WorkerEnd WorkerClient::Impl::run() {
  if (options_.handle_signals) {
    for (const int signal : kLeaveSignals) {
      if (!is_ignored(signal)) signals_.add(signal);
    }
    await_signal();
  }
  if (condition_.wall().limited()) watch_time();
  auto connect = [this] { return keep_connected(); };
  auto ended = [this](std::exception_ptr error) {
    if (error) fail(error);
    stop_threads();
  };
  asio::co_spawn(io_, std::move(connect), std::move(ended));
  std::thread io_thread([this] {
    try {
      io_.run();
    } catch (...) {
      failure_ = std::current_exception();
      stop_threads();
    }
  });
  main_.run();
  io_thread.join();
  if (failure_) std::rethrow_exception(failure_);
  return end_;
}

void WorkerClient::Impl::await_signal() {
  signals_.async_wait([this](boost::system::error_code error, int signal) {
    if (error) return;
    on_signal(signal);
    await_signal();
  });
}

// One thing may send two signals: batch systems signal the job and the step, a daemon that stops signals its workers and is gone. So what
// comes right behind the first one means nothing, and what comes later means that there is no time left.
void WorkerClient::Impl::on_signal(int signal) {
  if (signal == SIGINT && std::exchange(signal_, signal) == SIGINT) std::_Exit(128 + SIGINT);
  if (signal == SIGPIPE && signalled_) return;  // each further line in the log makes one
  if (!signalled_) {
    signalled_ = now();
    on_leave("received " + signal_name(signal), WorkerEnd::asked, options_.grace);
  } else if (now() - *signalled_ >= options_.signal_pause) {
    logger("worker")->info("leaving at once reason=\"received {}\"", signal_name(signal));
    end_grace();
  }
}

void WorkerClient::Impl::stop_threads() {
  main_.stop();
  io_.stop();
}

void WorkerClient::Impl::fail(std::exception_ptr error) {
  if (!failure_) failure_ = std::move(error);
  held_.stop_training();
  retrainings_.hand_back(true);
  retrainings_.abandon();
  if (connection_) connection_->cut();
}

// ---- training thread

void WorkerClient::Impl::train(const Header& header, std::vector<SessionTrial> trials) {
  PackSession::Hooks hooks;
  hooks.more = [this, header](std::size_t room) { return ask_for_more(header, room); };
  hooks.on_epoch = [this](const Held& what, const EpochReport& report) {
    asio::post(io_, [this, what, report] { on_epoch(what, report); });
  };
  hooks.on_end = [this](TrialOutcome outcome) {
    asio::post(io_, [this, outcome = std::move(outcome)]() mutable { on_trained(std::move(outcome)); });
  };
  PackSession session(header, std::move(trials), std::move(hooks));
  const auto begun = std::chrono::steady_clock::now();
  try {
    train_(session);
    session.end_rest(Outcome::failed, "the trainer ended without a word about this trial");
  } catch (const UnreadableData& error) {
    asio::post(io_, [this, digest = header->dataset_digest, why = std::string(error.what())] { on_unreadable(digest, why); });
    session.end_rest(Outcome::preempted, error.what());
  } catch (const DeviceLost& error) {
    asio::post(io_, [this, why = std::string(error.what())] { on_leave(why, WorkerEnd::device_lost, {}); });
    session.end_rest(Outcome::preempted, error.what());
  } catch (const std::bad_alloc&) {
    session.end_rest(Outcome::oom, "the worker's memory ran out");
  } catch (const std::exception& error) {
    session.end_rest(Outcome::failed, error.what());
  } catch (...) {
    session.end_rest(Outcome::failed, "the trainer threw something that is not a std::exception");
  }
  logger("worker")->info("pack trained study={} trials={} seconds={:.3f}", header->study.value, session.ended(),
                         std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count());
  asio::post(io_, [this] { on_pack_ended(); });
}

void WorkerClient::Impl::retrain(RetrainingJob job, RetrainingSession::Stops stops) {
  const HeldRetraining what{job.retraining, job.attempt};
  RetrainingSession::Hooks hooks;
  hooks.on_epoch = [this, what](const RetrainingEpoch& epoch) {
    asio::post(io_, [this, what, epoch] { on_retraining_epoch(what, epoch); });
  };
  hooks.on_progress = [this, what](const RetrainingProgress& progress) {
    asio::post(io_, [this, what, progress] { on_retraining_progress(what, progress); });
  };
  hooks.on_end = [this](RetrainingOutcome outcome) {
    asio::post(io_, [this, outcome = std::move(outcome)]() mutable { on_retrained(std::move(outcome)); });
  };
  const std::string data = protocol::retraining_data(job.dataset_digest);
  RetrainingSession session(std::move(job), std::move(stops), std::move(hooks));
  try {
    retrain_(session);
    session.on_end(Outcome::failed, "the trainer ended without a word about this retraining");
  } catch (const UnreadableData& error) {
    asio::post(io_, [this, data, why = std::string(error.what())] { on_unreadable(data, why); });
    session.on_end(Outcome::preempted, error.what());
  } catch (const DeviceLost& error) {
    asio::post(io_, [this, why = std::string(error.what())] { on_leave(why, WorkerEnd::device_lost, {}); });
    session.on_end(Outcome::preempted, error.what());
  } catch (const std::bad_alloc&) {
    session.on_end(Outcome::oom, "the worker's memory ran out");
  } catch (const std::exception& error) {
    session.on_end(Outcome::failed, error.what());
  } catch (...) {
    session.on_end(Outcome::failed, "the trainer threw something that is not a std::exception");
  }
  asio::post(io_, [this] { on_pack_ended(); });
}

// The I/O thread does nothing that takes long, so its answer is awaited here; a worker that ends gives none.
std::vector<SessionTrial> WorkerClient::Impl::ask_for_more(const Header& header, std::size_t room) {
  const auto answer = std::make_shared<std::promise<std::vector<SessionTrial>>>();
  std::future<std::vector<SessionTrial>> trials = answer->get_future();
  asio::post(io_, [this, answer, header, room] { answer->set_value(begin(*header, room)); });
  while (trials.wait_for(std::chrono::milliseconds(50)) != std::future_status::ready) {
    if (io_.stopped()) return {};
  }
  return trials.get();
}

TrialOutcome WorkerClient::Impl::outcome_without_score(const Held& what, Outcome outcome, std::string error) const {
  TrialOutcome result;
  result.trial = what.trial;
  result.attempt = what.attempt;
  result.outcome = outcome;
  result.error = std::move(error);
  return result;
}

// ---- the connection

asio::awaitable<void> WorkerClient::Impl::keep_connected() {
  while (true) {
    const auto began = std::chrono::steady_clock::now();
    connection_ = std::make_shared<Connection>(io_);
    std::string reason;
    bool legal = true;
    try {
      const std::shared_ptr<Connection> connection = connection_;
      co_await converse(connection);
    } catch (const ProtocolError& error) {
      legal = false;
      reason = std::string("the daemon sent something illegal: ") + error.what();
    } catch (const ConfigError&) {
      fail(std::current_exception());
    } catch (const std::exception& error) {
      reason = error.what();
    }
    // A daemon that accepts and at once throws out (another worker has this name, say) is not asked five times a second.
    const bool lasted = std::chrono::steady_clock::now() - began > std::chrono::seconds(1);
    if (welcomed_ && legal && lasted) tries_ = 0;
    disconnected(reason);
    end_if_done();
    if (over_ || failure_) co_return;
    pause_.expires_after(next_pause());
    boost::system::error_code woken;
    co_await pause_.async_wait(asio::redirect_error(asio::use_awaitable, woken));
    if (over_ || failure_) co_return;  // it was told to leave meanwhile, and holds nothing that a daemon would have to hear of
  }
}

asio::awaitable<void> WorkerClient::Impl::converse(std::shared_ptr<Connection> connection) {
  co_await connection->open(options_.url, options_.token, tls_);
  const protocol::Hello first = hello();
  said_ = first.condition;
  const protocol::Message message = first;
  if (journal_) journal_->sent(message);
  connection->send(message);
  while (true) {
    const protocol::Message heard = co_await connection->read();
    on_message(heard);
  }
}

void WorkerClient::Impl::disconnected(const std::string& reason) {
  connection_->cut();
  connection_.reset();
  welcomed_ = false;
  heartbeat_.cancel();
  drain_said_ = false;
  if (over_ || failure_) return;
  if (!told_lost_) {
    logger("worker")->warn("no connection, trying again and again url={} reason=\"{}\"", options_.url.text(), reason);
  } else {
    logger("worker")->debug("still no connection url={} reason=\"{}\"", options_.url.text(), reason);
  }
  told_lost_ = true;
}

std::chrono::milliseconds WorkerClient::Impl::next_pause() {
  const double most = static_cast<double>(options_.backoff_max.count());
  const double pause = static_cast<double>(options_.backoff_min.count()) * static_cast<double>(1 << std::min(tries_, 20));
  ++tries_;
  return std::chrono::milliseconds(static_cast<std::int64_t>(std::min(pause, most) * jitter_.uniform(0.5, 1.0)));
}

protocol::Hello WorkerClient::Impl::hello() const {
  protocol::Hello hello;
  hello.name = options_.name;
  hello.host = host_name();
  hello.pid = ::getpid();
  hello.device = options_.device;
  hello.pack = condition_.pack();
  hello.slots = condition_.slots();
  hello.processes = options_.processes;
  hello.code_version = kCodeVersion;
  hello.torch_version = options_.torch_version;
  hello.held = held_.held();
  hello.retrainings = retrainings_.held();
  hello.job = options_.job;
  hello.node = options_.node;
  hello.condition = condition_.said(now());
  return hello;
}

// What cannot be sent now is said after the next welcome: results and epochs are kept, the rest follows from the state.
void WorkerClient::Impl::send(const protocol::Message& message) {
  if (!welcomed_) return;
  if (journal_) journal_->sent(message);
  connection_->send(message);
}

void WorkerClient::Impl::heartbeat() {
  heartbeat_.expires_after(heartbeat_every_);
  heartbeat_.async_wait([this, of = connection_](boost::system::error_code error) {
    if (error || of != connection_ || !welcomed_) return;
    say_condition();
    heartbeat();
  });
}

void WorkerClient::Impl::say_condition() {
  said_ = condition_.said(now());
  send(protocol::Heartbeat{held_.held(), retrainings_.held(), *said_});
}

// ---- what the daemon says

void WorkerClient::Impl::on_message(const protocol::Message& message) {
  if (journal_) journal_->received(message);
  if (!welcomed_ && !std::holds_alternative<protocol::Welcome>(message) && !std::holds_alternative<protocol::Refused>(message)) {
    throw ProtocolError("expected welcome or refused as the first message, got another one");
  }
  std::visit([this](const auto& m) { on(m); }, message);
  end_if_done();
}

void WorkerClient::Impl::on(const protocol::Welcome& message) {
  if (welcomed_) throw ProtocolError("welcome came twice on one connection");
  welcomed_ = true;
  told_lost_ = false;
  heartbeat_every_ = std::clamp(milliseconds_of(message.heartbeat_s), std::chrono::milliseconds(20), std::chrono::milliseconds(60'000));
  logger("worker")->info("connected url={} name={} worker={} held={} unacknowledged={} lease_s={} daemon_version={}",
                         options_.url.text(), options_.name, message.worker.value, held_.held().size(),
                         held_.unacknowledged_results(), message.lease_s, message.code_version);
  for (const protocol::Message& kept : held_.unacknowledged()) send(kept);
  for (const protocol::Message& kept : retrainings_.unacknowledged()) send(kept);
  if (leaving_) send(protocol::Leaving{*leaving_});
  give_back(std::exchange(to_give_back_, {}), std::exchange(retrainings_to_give_back_, {}));
  heartbeat();
  look_at_time();
}

void WorkerClient::Impl::on(const protocol::Refused& message) {
  fail(std::make_exception_ptr(ProtocolError("the daemon at " + options_.url.text() + " refused this worker: " + message.error)));
}

void WorkerClient::Impl::on(const protocol::Pack& message) {
  const std::size_t added = held_.add(message);
  logger("worker")->debug("pack received study={} trials={} new={}", message.study.value, message.trials.size(), added);
  if (leaving_) give_back(held_.take_waiting());  // it was on its way already
  give_back_what_does_not_fit();
  train_next();
}

void WorkerClient::Impl::on(const protocol::Ack& message) {
  const bool known = held_.acknowledge(message);
  if (message.what == "result" && known && !message.accepted) {
    logger("worker")->info("result not wanted any more trial={} attempt={}", message.trial.value, message.attempt);
  }
}

void WorkerClient::Impl::on(const protocol::Cancel& message) {
  const std::string why = message.reason.empty() ? "the daemon cancelled the trial" : message.reason;
  for (const Held& what : message.held) {
    if (held_.cancel(what, why)) continue;
    if (held_.take_waiting(what)) finish_trial(outcome_without_score(what, Outcome::cancelled, why));
  }
  for (const HeldRetraining& what : message.retrainings) {
    if (retrainings_.cancel(what, why)) continue;
    if (retrainings_.take_waiting(what)) finish_retraining({what.retraining, what.attempt, Outcome::cancelled, std::nullopt, why, "", "", ""});
  }
}

void WorkerClient::Impl::on(const protocol::RetrainingLease& message) {
  const bool added = retrainings_.add(message.job);
  logger("worker")->info("retraining received retraining={} attempt={} head={} new={}", message.job.retraining.value, message.job.attempt,
                         name_of(message.job.options.head), added);
  const std::string& data = message.job.dataset_digest;
  const bool unreadable = condition_.is_unreadable(data, now()) || condition_.is_unreadable(protocol::retraining_data(data), now());
  const bool no_time = !condition_.takes_retrainings(now()) && condition_.problem().empty();
  const std::string why = no_time ? "the worker's wall time is too short for it" : condition_.problem();
  if (leaving_ || draining_ || unreadable || !why.empty()) give_back({}, retrainings_.take_waiting(), why);  // it was on its way already
  train_next();
}

void WorkerClient::Impl::on(const protocol::RetrainingAck& message) {
  const bool known = retrainings_.acknowledge(message);
  if (message.what == "result" && known && !message.accepted) {
    logger("worker")->info("result not wanted any more retraining={} attempt={}", message.held.retraining.value, message.held.attempt);
  }
}

void WorkerClient::Impl::on(const protocol::HandBack& message) {
  for (const HeldRetraining& what : message.retrainings) {
    if (retrainings_.hand_back(what)) continue;
    if (retrainings_.take_waiting(what)) give_back({}, {what});
  }
}

// One that waits is not pruned before it began: only what reported an epoch is.
void WorkerClient::Impl::on(const protocol::Prune& message) {
  const std::string why = message.reason.empty() ? "the daemon ended the trial early" : message.reason;
  for (const Held& what : message.held) held_.prune(what, why);
}

void WorkerClient::Impl::on(const protocol::Drain& message) {
  if (std::exchange(drain_said_, true)) {
    logger("worker")->info("draining at once reason=\"{}\" held={}", message.reason, held_.held().size());
    give_back(held_.take_waiting());
    end_grace();
    return;
  }
  if (!leaving_ && !draining_) {
    logger("worker")->info("draining reason=\"{}\" held={}", message.reason, held_.held().size());
    send(protocol::Leaving{"drained"});
  }
  draining_ = true;
  give_back({}, retrainings_.take_waiting());
  retrainings_.hand_back(false);
}

// ---- training

void WorkerClient::Impl::train_next() {
  const Header header = held_.next_header();
  if (pack_open_) return;
  if (header == nullptr) return retrain_next();
  std::vector<SessionTrial> trials = begin(*header, static_cast<std::size_t>(condition_.pack()));
  if (trials.empty()) return;
  pack_open_ = true;
  logger("worker")->debug("pack begun study={} trials={}", header->study.value, trials.size());
  asio::post(main_, [this, header, trials = std::move(trials)]() mutable { train(header, std::move(trials)); });
}

void WorkerClient::Impl::retrain_next() {
  if (over_ || failure_ || leaving_ || draining_ || !retrainings_.waits()) return;
  RetrainingJob job = retrainings_.begin();
  pack_open_ = true;
  epoch_clock_.emplace(job.options, now());
  const HeldRetrainings::AtWork& begun = *retrainings_.at_work();
  logger("worker")->info("retraining begun retraining={} attempt={}", job.retraining.value, job.attempt);
  RetrainingSession::Stops stops{begun.cancel.get_token(), begun.hand_back.get_token(), begun.abandon.get_token()};
  asio::post(main_, [this, job = std::move(job), stops = std::move(stops)]() mutable { retrain(std::move(job), std::move(stops)); });
}

std::vector<SessionTrial> WorkerClient::Impl::begin(const protocol::PackHeader& header, std::size_t room) {
  const auto pack = static_cast<std::size_t>(condition_.pack());
  if (over_ || failure_ || leaving_ || held_.training() >= pack) return {};
  std::vector<SessionTrial> trials = held_.begin(header, std::min(room, pack - held_.training()));
  epochs_ = header.training.epochs;
  for (const SessionTrial& trial : trials) {
    begun_[trial.held()] = now();
    logger("worker")->debug("trial begun trial={} attempt={} study={}", trial.job.trial.value, trial.job.attempt, header.study.value);
  }
  return trials;
}

void WorkerClient::Impl::on_epoch(const Held& what, const EpochReport& report) {
  const protocol::Epoch epoch{what.trial, what.attempt, report};
  try {
    check_sendable(epoch);
  } catch (const ProtocolError& error) {
    logger("worker")->warn("epoch not reported trial={} epoch={} error=\"{}\"", what.trial.value, report.epoch, error.what());
    return;
  }
  if (!held_.add_epoch(epoch)) return;
  send(epoch);
  const auto begun = begun_.find(what);
  if (begun == begun_.end() || report.epoch < 1) return;
  const std::chrono::duration<double> so_far = now() - begun->second;
  condition_.wall().note(so_far * (static_cast<double>(std::max(epochs_, report.epoch)) / report.epoch));
  look_at_time();
}

void WorkerClient::Impl::on_trained(TrialOutcome outcome) {
  const Held what{outcome.trial, outcome.attempt};
  const InTraining* trial = held_.find_training(what);
  if (trial == nullptr) return;
  const auto begun = begun_.extract(what);
  if (outcome.outcome == Outcome::completed && !begun.empty()) condition_.wall().note(now() - begun.mapped());
  const bool untrained = outcome.outcome == Outcome::cancelled || outcome.outcome == Outcome::preempted;
  // Also what the trainer gives up by itself: the data cannot be read here, the device is lost.
  if (untrained && trial->cancelled.empty() && (trial->giving_back || outcome.outcome == Outcome::preempted)) {
    held_.drop_training(what);
    give_back({what}, {}, outcome.outcome == Outcome::preempted ? outcome.error : "");
  } else {
    if (outcome.outcome == Outcome::cancelled && !trial->cancelled.empty()) outcome.error = trial->cancelled;
    if (outcome.outcome == Outcome::pruned && !trial->pruned.empty()) outcome.error = trial->pruned;
    finish_trial(std::move(outcome));
  }
  end_if_done();
}

void WorkerClient::Impl::on_pack_ended() {
  pack_open_ = false;
  train_next();
  end_if_done();
}

void WorkerClient::Impl::finish_trial(TrialOutcome outcome) {
  const Held what{outcome.trial, outcome.attempt};
  if (outcome.outcome != Outcome::completed && outcome.error.empty()) outcome.error = "the trainer gave no reason";
  if (outcome.device.empty()) outcome.device = options_.device;
  if (outcome.code_version.empty()) outcome.code_version = kCodeVersion;
  if (outcome.torch_version.empty()) outcome.torch_version = options_.torch_version;
  try {
    check_sendable(protocol::Result{outcome});
  } catch (const ProtocolError& error) {
    TrialOutcome failed = outcome_without_score(what, Outcome::failed, std::string("the trainer's result is not legal: ") + error.what());
    failed.device = options_.device;
    failed.code_version = kCodeVersion;
    failed.torch_version = options_.torch_version;
    outcome = std::move(failed);
  }
  if (outcome.score) {
    logger("worker")->debug("trial ended trial={} attempt={} outcome={} dev_score={:.4f} train_s={:.3f}", what.trial.value,
                            what.attempt, name_of(outcome.outcome), outcome.score->dev_score, outcome.score->train_s);
  } else {
    const bool expected = outcome.outcome == Outcome::cancelled;
    logger("worker")->log(expected ? spdlog::level::debug : spdlog::level::warn,
                          "trial ended trial={} attempt={} outcome={} error=\"{}\"", what.trial.value, what.attempt,
                          name_of(outcome.outcome), outcome.error);
  }
  held_.finish(outcome);
  send(protocol::Result{std::move(outcome)});
}

// ---- retraining

void WorkerClient::Impl::on_retraining_epoch(const HeldRetraining& what, const RetrainingEpoch& epoch) {
  const protocol::RetrainingEpochReport report{what, epoch};
  try {
    check_sendable(report);
  } catch (const ProtocolError& error) {
    logger("worker")->warn("epoch not reported retraining={} epoch={} error=\"{}\"", what.retraining.value, epoch.epoch, error.what());
    return;
  }
  if (!retrainings_.add_epoch(report)) return;
  send(report);
  epoch_clock_->note(epoch, now());
  look_at_time();
}

void WorkerClient::Impl::on_retraining_progress(const HeldRetraining& what, const RetrainingProgress& progress) {
  const HeldRetrainings::AtWork* at_work = retrainings_.at_work();
  if (at_work == nullptr || at_work->what != what) return;
  epoch_clock_->note(progress);
  if (!welcomed_ || now() - progress_at_ < kProgressEvery) return;
  progress_at_ = now();
  const protocol::RetrainingProgressReport report{what, progress};
  try {
    check_sendable(report);
    send(report);
  } catch (const ProtocolError& error) {
    logger("worker")->debug("progress not reported retraining={} error=\"{}\"", what.retraining.value, error.what());
  }
}

void WorkerClient::Impl::on_retrained(RetrainingOutcome outcome) {
  const HeldRetraining what{outcome.retraining, outcome.attempt};
  const HeldRetrainings::AtWork* at_work = retrainings_.at_work();
  if (at_work == nullptr || at_work->what != what) return;
  const bool unfinished = outcome.outcome == Outcome::cancelled || outcome.outcome == Outcome::preempted;
  const std::string cancelled = at_work->cancelled, why = at_work->why;
  const bool at_work_gave_up = !at_work->giving_back && outcome.outcome == Outcome::preempted;
  if (unfinished && cancelled.empty() && (at_work->giving_back || outcome.outcome == Outcome::preempted)) {
    retrainings_.drop(what);
    give_back({}, {what}, at_work_gave_up ? outcome.error : why);
  } else {
    if (unfinished && !cancelled.empty()) outcome.outcome = Outcome::cancelled, outcome.error = cancelled;
    finish_retraining(std::move(outcome));
  }
  end_if_done();
}

void WorkerClient::Impl::finish_retraining(RetrainingOutcome outcome) {
  if (outcome.outcome != Outcome::completed && outcome.error.empty()) outcome.error = "the trainer gave no reason";
  const auto sign = [this](RetrainingOutcome& o) {
    if (o.device.empty()) o.device = options_.device;
    if (o.code_version.empty()) o.code_version = kCodeVersion;
    if (o.torch_version.empty()) o.torch_version = options_.torch_version;
  };
  sign(outcome);
  try {
    check_sendable(protocol::RetrainingResult{outcome});
  } catch (const ProtocolError& error) {
    outcome = {outcome.retraining, outcome.attempt, Outcome::failed, std::nullopt,
               std::string("the trainer's result is not legal: ") + error.what(), "", "", ""};
    sign(outcome);
  }
  logger("worker")->info("retraining ended retraining={} attempt={} outcome={} error=\"{}\"", outcome.retraining.value, outcome.attempt,
                         name_of(outcome.outcome), outcome.error);
  retrainings_.finish(outcome);
  send(protocol::RetrainingResult{std::move(outcome)});
}

// ---- leaving

void WorkerClient::Impl::give_back(const std::vector<Held>& held, const std::vector<HeldRetraining>& retrainings, const std::string& why) {
  if (held.empty() && retrainings.empty()) return;
  if (!welcomed_) {
    to_give_back_.insert(to_give_back_.end(), held.begin(), held.end());
    retrainings_to_give_back_.insert(retrainings_to_give_back_.end(), retrainings.begin(), retrainings.end());
    return;
  }
  if (!held.empty()) logger("worker")->info("trials given back trials={} first={}", held.size(), held.front().trial.value);
  for (const HeldRetraining& what : retrainings) {
    logger("worker")->info("retraining given back retraining={} attempt={}", what.retraining.value, what.attempt);
  }
  const std::string reason = !why.empty() ? why : leaving_ ? *leaving_ : draining_ || !held.empty() ? "the worker is leaving" : "the daemon asked for it";
  send(protocol::GiveBack{held, reason, retrainings});
}

void WorkerClient::Impl::on_leave(const std::string& reason, WorkerEnd why, std::chrono::milliseconds grace) {
  if (over_ || failure_) return;
  if (leaving_) {
    if (grace.count() == 0) end_grace();
    return;
  }
  leaving_ = reason;
  end_ = why;
  logger("worker")->info("leaving reason=\"{}\" waiting={} training={} grace_s={}", reason, held_.waiting(),
                         held_.training(), std::chrono::duration<double>(grace).count());
  send(protocol::Leaving{reason});
  give_back(held_.take_waiting(), retrainings_.take_waiting());
  retrainings_.hand_back(false);
  grace_.expires_after(grace);
  grace_.async_wait([this](boost::system::error_code error) {
    if (!error) end_grace();
  });
  end_if_done();
}

// Asked again there is no time for anything.
void WorkerClient::Impl::end_grace() {
  grace_.cancel();
  held_.stop_training();
  retrainings_.hand_back(true);
  if (std::exchange(grace_over_, true)) return retrainings_.abandon();
  const WallTime& wall = condition_.wall();
  send_.expires_after(wall.limited() ? std::min(options_.send_wait, wall.reserve() / 4) : options_.send_wait);
  send_.async_wait([this](boost::system::error_code error) {
    if (!error) retrainings_.abandon();
  });
}

// ---- the time that is left, devices, data

bool WorkerClient::Impl::allows_less(const protocol::Condition& now, const protocol::Condition& before) const {
  return now.fits.value_or(options_.slots) < before.fits.value_or(options_.slots) ||
         now.pack.value_or(options_.pack) < before.pack.value_or(options_.pack) ||
         (now.longest_epoch_s == 0.0 && before.longest_epoch_s != 0.0) || now.problem != before.problem ||
         now.unreadable.size() > before.unreadable.size();
}

void WorkerClient::Impl::watch_time() {
  look_.expires_after(kLookEvery);
  look_.async_wait([this](boost::system::error_code error) {
    if (error || over_ || failure_) return;
    look_at_time();
    watch_time();
  });
}

// The daemon hears at once of what makes it give less, and with the next heartbeat of what makes it give more.
void WorkerClient::Impl::look_at_time() {
  if (over_ || failure_ || leaving_) return;
  const WallTime& wall = condition_.wall();
  if (wall.limited()) {
    const double left_s = wall.left(now())->count();
    const bool idle = held_.waiting() + held_.training() == 0 && !retrainings_.waits() && retrainings_.at_work() == nullptr;
    const bool too_short = wall.fits(now(), condition_.pack(), condition_.slots()) == 0 && idle;
    if (wall.over(now())) return on_leave("its wall time ends in " + seconds_text(left_s), WorkerEnd::time_over, wall.reserve() / 2);
    if (too_short) {
      const auto trial = wall.trial();
      return on_leave("its wall time ends in " + seconds_text(left_s) + ", which is too short for another trial" +
                          (trial ? " (of about " + seconds_text(trial->count()) + ")" : ""),
                      WorkerEnd::time_over, wall.reserve() / 2);
    }
  }
  hand_back_in_time();
  const protocol::Condition condition = condition_.said(now());
  if (welcomed_ && (!said_ || allows_less(condition, *said_))) say_condition();
  give_back_what_does_not_fit();
}

// Before the epoch at hand is done: the trainer begins the next one at once. What cannot end in time goes on to the last moment, then it goes
// back as far as its checkpoint; perhaps it is faster than it looks.
void WorkerClient::Impl::hand_back_in_time() {
  const HeldRetrainings::AtWork* at_work = retrainings_.at_work();
  if (at_work == nullptr || at_work->giving_back || !condition_.wall().limited() || !epoch_clock_->another()) return;
  const auto epoch = epoch_clock_->epoch(), rest = epoch_clock_->rest(now());
  if (!epoch || condition_.wall().enough_for(*rest + *epoch, now())) return;
  const std::string why = "the worker's wall time ends in " + seconds_text(condition_.wall().left(now())->count()) +
                          ", which is too short for another epoch (of about " + seconds_text(epoch->count()) + ")";
  logger("worker")->info("retraining to be given back after its epoch retraining={} reason=\"{}\"", at_work->what.retraining.value, why);
  condition_.take_no_more_retrainings();
  retrainings_.hand_back(false, why);
}

void WorkerClient::Impl::give_back_what_does_not_fit() {
  const auto most = condition_.most(now());
  if (!most || held_.waiting() + held_.training() <= *most) return;
  const std::string& problem = condition_.problem();
  give_back(held_.take_waiting(), {}, problem.empty() ? "the worker's wall time is too short for it" : problem);
}

// A device that cannot be used: what waits goes back; what trains goes on as long as it can, for it holds its memory already.
void WorkerClient::Impl::on_devices(std::vector<protocol::Device> devices, std::optional<Size> size) {
  const std::string before = condition_.problem();
  if (size && (size->pack != condition_.pack() || size->slots != condition_.slots())) {
    logger("worker")->debug("pack follows free memory pack={} slots={} before={}", size->pack, size->slots, condition_.pack());
    condition_.put_size(size->pack, size->slots);
  }
  condition_.put(std::move(devices));
  const std::string& problem = condition_.problem();
  if (problem != before) {
    if (problem.empty()) logger("worker")->info("device usable again");
    else logger("worker")->warn("device not usable reason=\"{}\"", problem);
    if (!problem.empty()) give_back({}, retrainings_.take_waiting(), problem);
  }
  look_at_time();
}

void WorkerClient::Impl::on_unreadable(const std::string& dataset_digest, const std::string& why) {
  logger("worker")->warn("data not readable dataset_digest={} reason=\"{}\"", dataset_digest, why);
  condition_.note_unreadable(dataset_digest, why, now());
  say_condition();
  give_back(held_.take_waiting(), {}, why);
}

void WorkerClient::Impl::end_if_done() {
  if (over_ || failure_ || pack_open_ || (!leaving_ && !draining_)) return;
  if (held_.empty() && retrainings_.empty()) return finish();
  if (held_.waiting() > 0 || retrainings_.waits() || waiting_for_acks_) return;
  waiting_for_acks_ = true;
  tries_ = 0;  // if there is no connection, now is the time
  pause_.cancel();
  deadline_.expires_after(options_.leave_wait);
  deadline_.async_wait([this](boost::system::error_code error) {
    if (error || over_) return;
    logger("worker")->warn("leaving without acknowledgement results={} waited_s={}", held_.unacknowledged_results(),
                           std::chrono::duration<double>(options_.leave_wait).count());
    finish();
  });
}

// The reader ends when the good-bye is answered; then `keep_connected` returns, and with it both threads.
void WorkerClient::Impl::finish() {
  over_ = true;
  logger("worker")->debug("saying good-bye unacknowledged={}", held_.unacknowledged_results());
  pause_.cancel();
  if (!welcomed_) {
    if (connection_) connection_->cut();
    return;
  }
  connection_->close();
  deadline_.expires_after(options_.leave_wait);
  deadline_.async_wait([this](boost::system::error_code error) {
    if (!error && connection_) connection_->cut();
  });
}

// ---- the public face

WorkerClient::WorkerClient(WorkerClientOptions options, TrainFunction train, RetrainFunction retrain)
    : impl_(std::make_unique<Impl>(std::move(options), std::move(train), std::move(retrain))) {}
WorkerClient::~WorkerClient() = default;
WorkerEnd WorkerClient::run() { return impl_->run(); }
void WorkerClient::report_devices(std::vector<protocol::Device> devices, std::optional<Size> size) {
  impl_->report_devices(std::move(devices), size);
}
void WorkerClient::leave(const std::string& reason) { impl_->leave(reason); }
const WorkerClientOptions& WorkerClient::options() const { return impl_->options(); }

}  // namespace fusion
