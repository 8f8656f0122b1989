#include "tools/termination_signals.h"

#include <fcntl.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <system_error>

// Not asio's signal_set: its handlers run on the I/O thread, so a second signal would be lost while that thread is busy or gone.

namespace fusion {

namespace {

constexpr std::int64_t kApartNs = 250'000'000;
std::atomic<int> wake_end{-1};
std::atomic<std::int64_t> first_ns{0};  // 0: none came yet
static_assert(std::atomic<std::int64_t>::is_always_lock_free && std::atomic<int>::is_always_lock_free);

std::int64_t now_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1'000'000'000LL + now.tv_nsec;
}

void end_at_once(int signal) {
  if (::getpid() == 1) ::_exit(128 + signal);  // the kernel keeps default signals from process 1
  ::signal(signal, SIG_DFL);
  ::raise(signal);  // comes when the handler returns
}

void on_signal(int signal) {  // async-signal-safe
  std::int64_t none = 0;
  const std::int64_t now = now_ns();
  if (!first_ns.compare_exchange_strong(none, now)) {
    if (now - none >= kApartNs) end_at_once(signal);
    return;
  }
  const char text = static_cast<char>(signal);
  [[maybe_unused]] const ssize_t written = ::write(wake_end.load(), &text, 1);
}

void handle(int signal, void (*handler)(int)) {
  struct sigaction action {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  ::sigemptyset(&action.sa_mask);
  ::sigaction(signal, &action, nullptr);
}

}  // namespace

TerminationSignals::TerminationSignals(asio::io_context& io, std::function<void(int)> first) : wake_(io) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) throw std::system_error(errno, std::generic_category(), "cannot open a pipe for signals");
  wake_.assign(ends[0]);
  wake_end = ends[1];
  first_ns = 0;
  wake_.async_read_some(asio::buffer(&signal_, 1), [this, first = std::move(first)](boost::system::error_code error, std::size_t) {
    if (!error) first(signal_);
  });
  handle(SIGPIPE, SIG_IGN);
  handle(SIGTERM, on_signal);
  handle(SIGINT, on_signal);
}

TerminationSignals::~TerminationSignals() {
  for (const int signal : {SIGTERM, SIGINT, SIGPIPE}) handle(signal, SIG_DFL);
  ::close(wake_end.exchange(-1));
}

void TerminationSignals::stop_waiting() {
  boost::system::error_code ignored;
  wake_.cancel(ignored);
}

}  // namespace fusion
