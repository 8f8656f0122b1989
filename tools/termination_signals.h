#pragma once

#include "base/asio.h"

#include <functional>

namespace fusion {

/// SIGTERM and SIGINT of the process: the first is told to a callback on the I/O thread; a second, at least a quarter of a second later, ends the
/// process at once by that signal (as process 1, with exit status 128 + signal), whatever its threads are busy with. The pause is for
/// programs such as timeout(1), which send one signal twice.
///
/// SIGPIPE is ignored: a log that nobody reads any more ends nobody. One instance at a time; the default is restored when it is gone.
class TerminationSignals {
 public:
  TerminationSignals(asio::io_context& io, std::function<void(int signal)> first);
  ~TerminationSignals();
  TerminationSignals(const TerminationSignals&) = delete;
  TerminationSignals& operator=(const TerminationSignals&) = delete;
  /// Nothing of it keeps the io_context running any more; a second signal still ends the process.
  void stop_waiting();

 private:
  asio::posix::stream_descriptor wake_;
  char signal_ = 0;
};

}  // namespace fusion
