#include "tests/faults/daemon_life.h"

#include <spdlog/sinks/base_sink.h>

#include <atomic>
#include <mutex>

#include "base/error.h"
#include "base/log.h"
#include "tools/daemon.h"

namespace fusion::testing {

namespace {

/// The last error that was logged.
class LastError final : public spdlog::sinks::base_sink<std::mutex> {
 public:
  std::string take() {
    const std::lock_guard lock(mutex_);
    return std::exchange(text_, "");
  }

 private:
  void sink_it_(const spdlog::details::log_msg& message) override {
    if (message.level >= spdlog::level::err) text_.assign(message.payload.data(), message.payload.size());
  }
  void flush_() override {}
  std::string text_;
};

const std::shared_ptr<LastError>& last_error() {
  static const auto sink = std::make_shared<LastError>();
  return sink;
}

}  // namespace

struct DaemonLife::State {
  std::promise<std::optional<std::uint16_t>> port;
  std::promise<int> status;
  std::shared_future<std::optional<std::uint16_t>> port_known = port.get_future().share();
  std::shared_future<int> end = status.get_future().share();
  std::string refused;  ///< why it did not start; before `status` is set
};

void DaemonLife::keep_errors_of_logs() {
  configure_logs("off");
  const auto logs = logger("fusiond");
  logs->sinks().assign({last_error()});
  logs->set_level(spdlog::level::err);
}

DaemonLife::DaemonLife(DaemonConfig config) : state_(std::make_shared<State>()) {
  last_error()->take();
  thread_ = std::thread([state = state_, config = std::move(config)] {
    bool listening = false;
    try {
      Daemon daemon(config);
      listening = true;
      state->port.set_value(daemon.port());
      const int status = daemon.run();
      state->status.set_value(status);
    } catch (const Error& error) {
      state->refused = error.what();
      if (!listening) state->port.set_value(std::nullopt);
      state->status.set_value(2);
    } catch (const std::exception& error) {
      state->refused = std::string("internal error: ") + error.what();
      if (!listening) state->port.set_value(std::nullopt);
      state->status.set_value(70);
    }
  });
}

DaemonLife::~DaemonLife() {
  if (!thread_.joinable()) return;
  if (ended()) thread_.join();
  else thread_.detach();  // it hangs; the sentence of that is on its way
}

std::optional<std::uint16_t> DaemonLife::port() { return state_->port_known.get(); }

bool DaemonLife::ended() const { return state_->end.wait_for(std::chrono::seconds(0)) == std::future_status::ready; }

int DaemonLife::wait(std::chrono::seconds limit) {
  if (state_->end.wait_for(limit) != std::future_status::ready) throw Error("the daemon did not end within " + std::to_string(limit.count()) + " s");
  thread_.join();
  return state_->end.get();
}

std::string DaemonLife::sentence() const { return state_->refused.empty() ? last_error()->take() : state_->refused; }

}  // namespace fusion::testing
