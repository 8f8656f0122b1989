#pragma once

#include <gtest/gtest.h>

#include <future>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

#include "base/asio.h"
#include "base/error.h"
#include "store/group_commit.h"
#include "tests/temporary_folder.h"
#include "workers/dispatch/dispatcher.h"
#include "workers/dispatch/server.h"
#include "workers/protocol/codec.h"

namespace fusion::testing {

using protocol::Held;

/// A worker of the test: a blocking WebSocket client that says what it is told to. Reads give up after ten seconds.
class ScriptedWorker {
 public:
  explicit ScriptedWorker(std::uint16_t port, const std::string& token = "") : socket_(io_) {
    if (!token.empty()) {
      socket_.set_option(websocket::stream_base::decorator(
          [token](websocket::request_type& request) { request.set(http::field::authorization, "Bearer " + token); }));
    }
    beast::get_lowest_layer(socket_).connect(tcp::endpoint(asio::ip::make_address("127.0.0.1"), port));
    socket_.handshake("127.0.0.1:" + std::to_string(port), "/api/v1/worker");
    socket_.text(true);
  }
  void say_raw(const std::string& frame) { socket_.write(asio::buffer(frame)); }
  void say(const protocol::Message& message) { say_raw(protocol::encode(message)); }
  void binary() { socket_.binary(true); }

  /// The next frame, or nothing if the connection ended.
  std::optional<protocol::Message> hear() {
    beast::flat_buffer buffer;
    std::optional<boost::system::error_code> ended;
    socket_.async_read(buffer, [&ended](boost::system::error_code error, std::size_t) { ended = error; });
    io_.restart();
    io_.run_for(std::chrono::seconds(10));
    if (!ended) {
      ADD_FAILURE() << "heard nothing for ten seconds";
      beast::get_lowest_layer(socket_).close();
      io_.restart();
      io_.run();
      return std::nullopt;
    }
    if (*ended) return std::nullopt;
    return protocol::decode(beast::buffers_to_string(buffer.data()));
  }
  /// The next frame, which must be an M. What is not (and is not of kind Skip) fails the test.
  template <typename M>
  M expect() {
    const auto message = hear();
    if (!message) {
      ADD_FAILURE() << "the connection ended, where a frame was expected";
      return M{};
    }
    const M* wanted = std::get_if<M>(&*message);
    if (wanted == nullptr) {
      ADD_FAILURE() << "unexpected frame: " << protocol::encode(*message);
      return M{};
    }
    return *wanted;
  }
  /// `pack` 0: as many as slots.
  protocol::Welcome join(const std::string& name, int slots = 1, std::vector<Held> held = {}, int pack = 0, std::int64_t pid = 0) {
    protocol::Hello hello;
    hello.name = name;
    hello.host = "here";
    hello.pid = pid;
    hello.device = "cpu";
    hello.pack = pack > 0 ? pack : slots;
    hello.slots = slots;
    hello.code_version = hello.torch_version = "1";
    hello.held = std::move(held);
    say(hello);
    return expect<protocol::Welcome>();
  }
  protocol::Ack report(const Held& what, double score, Outcome outcome = Outcome::completed) {
    say(result(what, score, outcome));
    return expect<protocol::Ack>();
  }
  static protocol::Result result(const Held& what, double score, Outcome outcome = Outcome::completed) {
    TrialOutcome o;
    o.trial = what.trial;
    o.attempt = what.attempt;
    o.outcome = outcome;
    if (outcome == Outcome::completed) {
      o.score.emplace();
      o.score->dev_score = score;
    } else {
      o.error = "it went wrong";
    }
    return {o};
  }
  void vanish() {
    boost::system::error_code ignored;
    beast::get_lowest_layer(socket_).set_option(asio::socket_base::linger(true, 0), ignored);
    beast::get_lowest_layer(socket_).close(ignored);
  }
  std::uint16_t close_code() const { return socket_.reason().code; }

 private:
  asio::io_context io_;
  websocket::stream<tcp::socket> socket_;
};

inline Held held(const TrialJob& job) { return {job.trial, job.attempt}; }

/// A daemon without studies of its own: store, dispatcher and server on a port, I/O on a thread.
class Harness {
 public:
  /// Runs something on the I/O thread and returns what it gave.
  template <typename F>
  auto on_io(F f) {
    std::packaged_task<decltype(f())()> task(std::move(f));
    auto result = task.get_future();
    asio::post(*io, [&task] { task(); });
    return result.get();
  }

  explicit Harness(std::function<void(DispatchOptions&, ServerOptions&)> adjust = {}) {
    dispatch.on_ended = [this](const Ended& e) { ended.push_back(e); };
    dispatch.on_paused = [this](StudyId, const std::string& why) { paused.push_back(why); };
    dispatch.reconnect_grace = std::chrono::milliseconds(300);
    dispatch.tick = std::chrono::milliseconds(10);
    server.sessions.close = std::chrono::seconds(2);
    handler = [](HttpRequest request, std::function<void(HttpResponse)> respond) {
      HttpResponse response;
      response.body = nlohmann::json{{"method", request.method}, {"path", request.path}, {"query", request.query},
                                     {"bytes", request.body.size()}}.dump();
      respond(response);
    };
    if (adjust) adjust(dispatch, server);
    begin();
  }
  ~Harness() { end(); }

  void begin() {
    io = std::make_unique<asio::io_context>(1);
    store = std::make_unique<GroupCommit>(Store::open(folder / "fusion.db", wall), [](std::exception_ptr) { FAIL(); });
    dispatcher = std::make_unique<Dispatcher>(*io, *store, clock, dispatch);
    listener = std::make_unique<Server>(*io, server, *dispatcher, [this](auto request, auto respond) { handler(request, respond); });
    thread = std::thread([this] {
      const auto stay = asio::make_work_guard(*io);
      while (!ending) io->run_one();
      io->run_for(std::chrono::milliseconds(1));
    });
  }
  void end() {
    on_io([this] {
      listener->stop();
      dispatcher->stop();
      ending = true;
    });
    thread.join();
    listener.reset();
    dispatcher.reset();
    store.reset();
    io.reset();
    ending = false;
  }

  /// Runs something on the store thread, after what was posted before.
  template <typename F>
  auto on_store(F f) {
    using R = std::conditional_t<std::is_void_v<std::invoke_result_t<F&, Store&>>, std::monostate, std::invoke_result_t<F&, Store&>>;
    std::promise<R> promise;
    on_io([&] {
      store->async(io->get_executor(), [&f](Store& s) -> R {
        if constexpr (std::is_void_v<std::invoke_result_t<F&, Store&>>) {
          f(s);
          return {};
        } else {
          return f(s);
        }
      }, [&promise](StoreResult<R> r) {
        try {
          promise.set_value(std::move(r.value()));
        } catch (...) {
          promise.set_exception(std::current_exception());
        }
      });
    });
    return promise.get_future().get();
  }
  /// Until a condition of the I/O thread holds.
  template <typename F>
  void wait_until(F condition) {
    for (int i = 0; i < 1000; ++i) {
      if (on_io(condition)) return;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    ADD_FAILURE() << "a condition did not come true within ten seconds";
  }
  void advance(std::chrono::milliseconds by) {
    on_io([&] {
      clock.advance(by);
      dispatcher->tick();
    });
  }

  /// A study with `count` trials in the store, known to the dispatcher; they are queued unless `submit` is false.
  StudyId add_study(int count, int priority = 0, bool submit = true, int retries = 2) {
    const StudyId id = on_store([&](Store& s) {
      StudySpec spec;
      spec.name = "study";
      spec.dataset = "toy";
      spec.retries = RetryBudget::of(retries);
      return s.create_study(spec, toy_dataset(), "/data/features.json");
    });
    on_io([&] { dispatcher->add_study(study_of(id, priority)); });
    add_trials(id, count, submit);
    return id;
  }
  static DatasetSpec toy_dataset() {
    DatasetSpec dataset;
    dataset.name = "toy";
    dataset.digest = std::string(64, 'd');
    dataset.classes = 2;
    dataset.modalities = {{"audio", {{"tap0", 4}}, false}, {"image", {{"tap0", 4}}, false}};
    dataset.rows = {{"train", 4}, {"dev", 2}, {"test", 2}};
    return dataset;
  }
  static DispatchStudy study_of(StudyId id, int priority = 0) {
    DispatchStudy study;
    study.id = id;
    study.priority = priority;
    study.dataset_path = "/data/features.json";
    study.dataset_digest = std::string(64, 'd');
    return study;
  }
  /// Of two epochs; its folder is made below `artifacts` by who needs one.
  static NewRetraining small_retraining(const std::string& artifacts = "/data/artifacts") {
    NewRetraining given;
    given.architecture.steps.push_back({{0, 0}, FusionOp::concat_fc, Activation::relu});
    given.dataset = toy_dataset();
    given.dataset_path = "/data/features.json";
    given.options.epochs = 2;
    given.seed = 11;
    given.artifacts = artifacts;
    return given;
  }
  /// In the store, and queued.
  RetrainingId submit(const NewRetraining& given) {
    const RetrainingRecord record = on_store([&](Store& s) { return s.create_retraining(given); });
    on_io([&] { dispatcher->retrainings().submit({record.job, record.priority, false, false}); });
    return record.id;
  }
  void add_trials(StudyId study, int count, bool submit = true) {
    std::vector<NewTrial> trials;
    for (int i = 0; i < count; ++i) {
      NewTrial trial;
      trial.ask_index = asked[study]++;
      trial.architecture.steps.push_back({{static_cast<std::int32_t>(trial.ask_index), 0}, FusionOp::concat_fc, Activation::relu});
      trial.seed = 17;
      trials.push_back(trial);
    }
    on_store([&](Store& s) { return s.add_trials(study, trials); });
    if (submit) submit_queued(study, static_cast<std::size_t>(count));
  }
  /// Hands the last `count` trials of the study to the dispatcher.
  void submit_queued(StudyId study, std::size_t count) {
    std::vector<QueuedTrial> queued = open_trials(study);
    queued.erase(queued.begin(), queued.end() - static_cast<std::ptrdiff_t>(count));
    on_io([&] { dispatcher->submit(study, queued); });
  }
  /// What is not final, as a daemon reads it when it starts.
  std::vector<QueuedTrial> open_trials(StudyId study, bool recovered = false) {
    std::vector<QueuedTrial> queued;
    for (const Trial& t : trials_of(study)) {
      if (!is_final(t.state)) queued.push_back({t.id, t.ask_index, t.architecture, t.seed, t.attempt, recovered, t.alone});
    }
    return queued;
  }
  std::vector<Trial> trials_of(StudyId study) {
    return on_store([study](Store& s) { return s.trials(study); });
  }
  Trial trial(TrialId id) {
    return *on_store([id](Store& s) { return s.trial(id); });
  }
  std::vector<Ended> all_ended() {
    return on_io([this] { return ended; });
  }
  std::uint16_t port() const { return listener->port(); }

  TemporaryFolder folder;
  SystemClock wall;     // of the store thread
  ManualClock clock;    // of the dispatcher; moved on the I/O thread only
  DispatchOptions dispatch;
  ServerOptions server;
  HttpHandler handler;
  std::vector<Ended> ended;
  std::vector<std::string> paused;
  std::map<StudyId, std::int64_t> asked;
  std::unique_ptr<asio::io_context> io;
  std::unique_ptr<GroupCommit> store;
  std::unique_ptr<Dispatcher> dispatcher;
  std::unique_ptr<Server> listener;
  std::thread thread;
  bool ending = false;
};

}  // namespace fusion::testing
