// What those who keep a daemon running ask it: docs/operations.md.
#include "tools/api.h"
#include "tools/api_parts.h"
#include "tools/metrics.h"

namespace fusion {

namespace {

constexpr std::chrono::seconds kStoreMayTake{2};

/// Neither a probe nor Prometheus has anything to say to us.
void without_query(const HttpRequest& request) { QueryReader(request).finish(); }

HttpResponse not_ready(const std::string& why) { return answer(503, {{"status", "not ready"}, {"reason", why}}); }

}  // namespace

bool Api::route_operations(const HttpRequest& request, const std::vector<std::string>& path, Respond& respond) {
  if (path.size() != 1 || (request.method != "GET" && request.method != "HEAD")) return false;
  if (path[0] == "healthz") {
    without_query(request);
    respond(answer(200, {{"status", "ok"}}));
  } else if (path[0] == "readyz") {
    without_query(request);
    ready(std::move(respond));
  } else if (path[0] == "metrics") {
    without_query(request);
    respond({200, "text/plain; version=0.0.4; charset=utf-8", metrics()});
  } else {
    return false;
  }
  return true;
}

// Asks the store thread for nothing, so that a disk that hangs is seen: whoever is first, its answer or the timer. Strangers may ask too: who
// comes while a question is under way gets the same answer.
void Api::ready(Respond respond) {
  if (const auto why = parts_.not_ready()) return respond(not_ready(*why));
  ask_ready_.push_back(std::move(respond));
  if (ask_ready_.size() > 1) return;
  const auto tell = [this](const HttpResponse& response) {
    for (const Respond& each : std::exchange(ask_ready_, {})) each(response);
  };
  const auto timer = std::make_shared<asio::steady_timer>(parts_.io, kStoreMayTake);
  timer->async_wait([tell](const boost::system::error_code& error) {
    if (!error) tell(not_ready("the store did not answer within " + std::to_string(kStoreMayTake.count()) + " s"));
  });
  auto work = [](Store&) { return std::monostate{}; };
  auto done = [tell, timer](StoreResult<std::monostate> result) {
    timer->cancel();
    tell(result.ok() ? answer(200, {{"status", "ready"}}) : not_ready("the database cannot be written"));
  };
  parts_.store.async(parts_.io, std::move(work), std::move(done));
}

std::string Api::metrics() const {
  const UnixMs up_ms = std::chrono::duration_cast<std::chrono::milliseconds>(SystemClock().steady() - parts_.started).count();
  return metrics_text({parts_.dispatcher, parts_.store.figures(), parts_.readers.figures(), parts_.server(), parts_.database,
                       SystemClock().unix_ms() - up_ms, !parts_.not_ready()});
}

}  // namespace fusion
