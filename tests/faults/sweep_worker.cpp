#include "tests/faults/sweep_worker.h"

#include <algorithm>
#include <optional>
#include <set>

#include "base/asio.h"
#include "base/error.h"
#include "workers/protocol/codec.h"

namespace fusion::testing {

namespace {

constexpr int kEpochs = 2;
constexpr std::chrono::seconds kSilence{60};
constexpr std::chrono::milliseconds kPatience{100};

}  // namespace

/// A WebSocket to the daemon; blocking.
class SweepWorker::Line {
 public:
  explicit Line(std::uint16_t port) : socket_(io_) {
    beast::get_lowest_layer(socket_).connect(tcp::endpoint(asio::ip::address_v4::loopback(), port));
    socket_.handshake("127.0.0.1:" + std::to_string(port), "/api/v1/worker");
    socket_.text(true);
  }
  void say(const protocol::Message& message) {
    const std::string frame = protocol::encode(message);
    boost::system::error_code ended;  // `hear` tells
    socket_.write(asio::buffer(frame), ended);
  }
  enum class Heard { message, nothing, end };
  /// Waits for the next message, which is `message()` then, as long as `patience`.
  Heard hear(std::chrono::milliseconds patience) {
    if (!reading_) {
      ended_.reset();
      socket_.async_read(buffer_, [this](boost::system::error_code error, std::size_t) { ended_ = error; });
      reading_ = true;
    }
    io_.restart();
    io_.run_for(patience);
    if (!ended_) return Heard::nothing;
    reading_ = false;
    if (*ended_) return Heard::end;
    message_ = protocol::decode(beast::buffers_to_string(buffer_.data()));
    buffer_.clear();
    return Heard::message;
  }
  const protocol::Message& message() const { return *message_; }

 private:
  asio::io_context io_;
  websocket::stream<tcp::socket> socket_;
  beast::flat_buffer buffer_;
  bool reading_ = false;
  std::optional<boost::system::error_code> ended_;
  std::optional<protocol::Message> message_;
};

SweepWorker::SweepWorker(Witness& witness) : witness_(witness) {}
SweepWorker::~SweepWorker() = default;

double SweepWorker::score_of(const Architecture& architecture, int epoch) {
  double score = 0.3 + 0.05 * epoch;
  for (const FusionStep& step : architecture.steps) {
    for (const std::int32_t tap : step.taps) score += 0.03 * tap;
    if (step.activation == Activation::sigmoid) score += 0.011;
  }
  return std::min(score, 1.0);
}

// Results that were stored while their acknowledgement was lost are never acknowledged: so it is asked whether there is more to do.
bool SweepWorker::work(std::uint16_t port, std::size_t results, const std::function<bool()>& done) {
  try {
    line_ = std::make_unique<Line>(port);
  } catch (const boost::system::system_error&) {
    return false;
  }
  protocol::Hello hello;
  hello.name = "sweep";
  hello.host = "here";
  hello.device = "cpu";
  hello.pack = hello.slots = 2;
  hello.code_version = hello.torch_version = "1";
  std::set<protocol::Held> held;
  for (const auto& [what, report] : reports_) held.insert(what);
  hello.held.assign(held.begin(), held.end());
  waiting_ = false;
  line_->say(hello);
  const auto limit = std::chrono::steady_clock::now() + kSilence;
  while (witness_.seen().results.size() < results) {
    const Line::Heard heard = line_->hear(kPatience);
    if (heard == Line::Heard::end) return false;
    if (heard == Line::Heard::message) hear(line_->message());
    else if (done()) return true;
    if (std::chrono::steady_clock::now() > limit) throw Error("the daemon does not get on with its worker");
  }
  return true;
}

void SweepWorker::stay_to_the_end() {
  if (!line_) return;
  for (auto heard = line_->hear(kSilence); heard != Line::Heard::end; heard = line_->hear(kSilence)) {
    if (heard == Line::Heard::nothing) throw Error("the daemon said nothing for " + std::to_string(kSilence.count()) + " s, and did not hang up");
    hear(line_->message());
  }
}

void SweepWorker::hear(const protocol::Message& message) {
  if (const auto* refused = std::get_if<protocol::Refused>(&message)) throw Error("the worker was refused: " + refused->error);
  if (const auto* pack = std::get_if<protocol::Pack>(&message)) take(*pack);
  if (const auto* ack = std::get_if<protocol::Ack>(&message)) take(*ack);
  if (const auto* cancel = std::get_if<protocol::Cancel>(&message)) take(*cancel);
  say_next();
}

void SweepWorker::take(const protocol::Pack& pack) {
  for (const TrialJob& job : pack.trials) {
    const protocol::Held what{job.trial, job.attempt};
    witness_.note([&](Acknowledged& seen) { seen.leases.insert(what); });
    for (int epoch = 1; epoch <= kEpochs; ++epoch) {
      reports_.emplace_back(what, protocol::Epoch{job.trial, job.attempt, {epoch, 1.0 / epoch, score_of(job.architecture, epoch), 0.001, 0.01}});
    }
    TrialOutcome outcome;
    outcome.trial = job.trial;
    outcome.attempt = job.attempt;
    outcome.score.emplace();
    outcome.score->dev_score = score_of(job.architecture, kEpochs);
    outcome.score->best_epoch = kEpochs;
    reports_.emplace_back(what, protocol::Result{outcome});
  }
}

void SweepWorker::take(const protocol::Ack& ack) {
  const protocol::Held what{ack.trial, ack.attempt};
  if (!waiting_ || reports_.empty() || reports_.front().first != what) return;  // of something that was cancelled meanwhile
  const protocol::Message report = reports_.front().second;
  reports_.pop_front();
  waiting_ = false;
  if (!ack.accepted) return;
  witness_.note([&](Acknowledged& seen) {
    if (const auto* epoch = std::get_if<protocol::Epoch>(&report)) seen.epochs[{what, epoch->report.epoch}] = epoch->report.dev_score;
    if (const auto* result = std::get_if<protocol::Result>(&report); result != nullptr && result->outcome.score) {
      seen.results[what.trial] = result->outcome.score->dev_score;
    }
  });
}

// What was said already is answered all the same; what waits is replaced by a word that it was stopped.
void SweepWorker::take(const protocol::Cancel& cancel) {
  for (const protocol::Held& what : cancel.held) {
    const auto begin = reports_.begin() + (waiting_ ? 1 : 0);
    reports_.erase(std::remove_if(begin, reports_.end(), [&](const auto& report) { return report.first == what; }), reports_.end());
    TrialOutcome outcome;
    outcome.trial = what.trial;
    outcome.attempt = what.attempt;
    outcome.outcome = Outcome::cancelled;
    outcome.error = cancel.reason;
    reports_.emplace_back(what, protocol::Result{outcome});
  }
}

void SweepWorker::say_next() {
  if (waiting_ || reports_.empty()) return;
  waiting_ = true;
  line_->say(reports_.front().second);
}

}  // namespace fusion::testing
