#include "tests/attack/honest.h"

#include <algorithm>
#include <chrono>

#include "base/error.h"

namespace fusion::attack {

namespace {

using Steady = std::chrono::steady_clock;
constexpr std::chrono::milliseconds kPause{5};

/// Runs one request; what it throws, and what it does not like, is a failure.
template <typename Request>
void measure(Served& served, Request request) {
  const auto begun = Steady::now();
  std::string problem;
  try {
    problem = request();
  } catch (const std::exception& error) {
    problem = error.what();
  }
  served.waited_ms.push_back(std::chrono::duration<double, std::milli>(Steady::now() - begun).count());
  if (!problem.empty() && served.failed++ == 0) served.first_failure = problem;
  std::this_thread::sleep_for(kPause);
}

std::string unless_200(const Answer& answer) { return answer.status == 200 ? "" : "status " + std::to_string(answer.status); }

}  // namespace

double Served::worst_ms() const { return waited_ms.empty() ? 0 : *std::ranges::max_element(waited_ms); }

double Served::quantile_ms(double q) const {
  if (waited_ms.empty()) return 0;
  std::vector<double> sorted = waited_ms;
  std::ranges::sort(sorted);
  return sorted[static_cast<std::size_t>(q * static_cast<double>(sorted.size() - 1))];
}

HonestClients::HonestClients(const Target& target, int threads)
    : target_(target), session_(target, target.worker), newcomers_(static_cast<std::size_t>(threads)) {
  if (!session_.join("honest")) throw DataError("the honest worker was refused: " + session_.end());
  const auto pack = session_.await<protocol::Pack>();
  if (!pack) throw DataError("the honest worker was given nothing: " + session_.end());
  held_ = {pack->trials.at(0).trial, pack->trials.at(0).attempt};
  for (Served& served : newcomers_) threads_.emplace_back([this, &served] { ask_anew(served); });
  threads_.emplace_back([this] { keep_asking(); });
  threads_.emplace_back([this] { report(); });
}

void HonestClients::stop() {
  stopping_ = true;
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

Served HonestClients::newcomers() const {
  Served all;
  for (const Served& served : newcomers_) {
    all.waited_ms.insert(all.waited_ms.end(), served.waited_ms.begin(), served.waited_ms.end());
    all.failed += served.failed;
    if (all.first_failure.empty()) all.first_failure = served.first_failure;
  }
  return all;
}

void HonestClients::ask_anew(Served& served) {
  while (!stopping_) {
    measure(served, [this] {
      HttpsClient client(target_);
      return unless_200(client.ask("GET", "/api/v1/studies", target_.read));
    });
  }
}

void HonestClients::keep_asking() {
  HttpsClient client(target_);
  while (!stopping_) measure(steady_, [&] { return unless_200(client.ask("GET", "/api/v1/studies/1", target_.read)); });
}

void HonestClients::report() {
  for (int epoch = 1; !stopping_; ++epoch) {
    measure(worker_, [&]() -> std::string {
      protocol::Epoch message;
      message.trial = held_.trial;
      message.attempt = held_.attempt;
      message.report.epoch = epoch;
      message.report.dev_score = 0.5;
      session_.say(message);
      const auto ack = session_.await<protocol::Ack>();
      if (!ack) return "the connection ended: " + session_.end();
      return ack->accepted && ack->epoch == epoch ? "" : "epoch " + std::to_string(epoch) + " was not accepted";
    });
  }
}

}  // namespace fusion::attack
