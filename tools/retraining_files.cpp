#include "tools/retraining_files.h"

#include <chrono>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/files.h"
#include "base/log.h"
#include "space/manifest_files.h"
#include "tools/api_parts.h"

namespace fusion {

using nlohmann::json;
using Claim = Dispatcher::Claim;

namespace {

constexpr std::chrono::seconds kLook{2};
constexpr std::size_t kMostWaiting = 64u << 20;

std::string text_of(const protocol::HeldRetraining& what) {
  return "attempt " + std::to_string(what.attempt) + " of retraining " + to_string(what.retraining);
}

HttpResponse problem(const UploadProblem& error) {
  json body{{"error", {{"problems", json::array({error.what()})}}}};
  if (error.have) body["have"] = *error.have;
  return answer(error.status, body);
}

/// Of the exception at hand.
HttpResponse problem() {
  try {
    throw;
  } catch (const UploadProblem& error) {
    return problem(error);
  } catch (const std::exception& error) {
    logger("fusiond")->error("files of a retraining: {}", json(error.what()).dump());
    return refusal(500, std::vector<std::string>{error.what()});
  }
}

ReceivedFolder::Piece read_piece(QueryReader& query, const std::string& name, std::string data) {
  ReceivedFolder::Piece piece;
  piece.name = name;
  piece.sha256 = query.text("sha256").value_or("");
  if (!is_digest(piece.sha256)) query.fail("?sha256: expected 64 lower-case hexadecimal digits, got \"" + piece.sha256 + "\"");
  piece.bytes = static_cast<std::uint64_t>(query.integer("bytes", 0, INT64_MAX, -1));
  if (!query.text("bytes")) query.fail("?bytes: expected the length of the whole file");
  piece.begin = static_cast<std::uint64_t>(query.integer("begin", 0, INT64_MAX, 0));
  piece.data = std::move(data);
  return piece;
}

}  // namespace

RetrainingFiles::RetrainingFiles(asio::io_context& io, Dispatcher& dispatcher, const UploadLimits& limits)
    : io_(io), dispatcher_(dispatcher), limits_(limits), timer_(io) {}

RetrainingFiles::~RetrainingFiles() { disk_.join(); }

void RetrainingFiles::stop() {
  stopped_ = true;
  timer_.cancel();
}

bool RetrainingFiles::handle(HttpRequest& request, const std::vector<std::string>& path, Respond& respond) {
  if (path.size() < 3 || path.size() > 4 || path[0] != "retrainings" || path[2] != "files") return false;
  const auto id = whole_number(path[1]);
  if (!id || *id < 1) throw ConfigError("retraining: expected a number of at least 1, got \"" + path[1] + "\"");
  const bool of_file = path.size() == 4, put = of_file && request.method == "PUT", remove_it = of_file && request.method == "DELETE";
  if (request.method != "GET" && !put && !remove_it) return false;
  if (of_file && !problem_of_file_name(path[3]).empty()) throw ConfigError(problem_of_file_name(path[3]));
  QueryReader query(request);
  Asked asked;
  asked.what = {RetrainingId{*id}, static_cast<int>(query.integer("attempt", 1, INT32_MAX, 0))};
  if (!query.text("attempt")) query.fail("?attempt: expected the number of the attempt that the worker holds");
  asked.token_id = request.token_id;
  const bool digests = !of_file && query.integer("digests", 0, 1, 0) == 1;
  ReceivedFolder::Piece piece;
  if (put) piece = read_piece(query, path[3], std::move(request.body));
  query.finish();
  if (refuse(asked, respond)) return true;
  asked.folder = dispatcher_.retrainings().job(asked.what.retraining)->folder;
  if (put) take(asked, std::move(piece), std::move(respond));
  else if (remove_it) remove(asked, path[3], std::move(respond));
  else if (of_file) send(asked, path[3], std::move(respond));
  else list(asked, digests, std::move(respond));
  return true;
}

/// True if it was answered: the attempt is not, or not now, that of whoever asks.
bool RetrainingFiles::refuse(const Asked& asked, const Respond& respond) const {
  const auto say = [&](int status, const std::string& sentence) {
    respond(refusal(status, std::vector<std::string>{sentence}));
    return true;
  };
  switch (dispatcher_.claim_of(asked.what, asked.token_id)) {
    case Claim::own: return false;
    case Claim::awaited: return say(503, text_of(asked.what) + " is held by no worker that is connected; connect it, then try again");
    case Claim::anothers: return say(403, text_of(asked.what) + " is held by a worker that is connected with another token");
    case Claim::over: break;
  }
  return say(409, text_of(asked.what) + " is over, or never began: nothing of it is taken any more");
}

template <typename Work, typename Done>
void RetrainingFiles::on_disk(const Asked& asked, Respond respond, Work work, Done done) {
  asio::post(disk_, [this, asked, respond = std::move(respond), work = std::move(work), done = std::move(done)]() mutable {
    try {
      ReceivedFolder& folder = folders_.try_emplace(asked.what.retraining, asked.folder, limits_).first->second;
      asio::post(io_, [done = std::move(done), respond, result = work(folder)]() mutable { done(std::move(result), std::move(respond)); });
    } catch (...) {
      respond(problem());
    }
  });
}

void RetrainingFiles::list(const Asked& asked, bool digests, Respond respond) {
  watch(asked.what);
  on_disk(asked, std::move(respond), [digests](ReceivedFolder& folder) { return json{{"mark", folder.mark()}, {"files", folder.list(digests)}}; },
          [](const json& found, const Respond& say) { say(answer(200, found)); });
}

void RetrainingFiles::send(const Asked& asked, const std::string& name, Respond respond) {
  on_disk(asked, std::move(respond), [name](ReceivedFolder& folder) { return folder.file(name); },
          [](const std::filesystem::path& file, const Respond& say) {
            HttpResponse response;
            response.content_type = "application/octet-stream";
            response.file = file.string();
            say(std::move(response));
          });
}

void RetrainingFiles::take(const Asked& asked, ReceivedFolder::Piece piece, Respond respond) {
  const std::size_t size = piece.data.size();
  if (waiting_bytes_ > 0 && waiting_bytes_ + size > kMostWaiting) {
    const std::string sentence = "the daemon's disk is behind: " + std::to_string(waiting_bytes_) + " bytes wait for it; send the piece again";
    return respond(refusal(503, std::vector<std::string>{sentence}));
  }
  waiting_bytes_ += size;
  watch(asked.what);
  const Respond counted = [this, size, respond](HttpResponse response) {  // from either thread
    asio::post(io_, [this, size, respond, response = std::move(response)]() mutable {
      waiting_bytes_ -= size;
      respond(std::move(response));
    });
  };
  const std::string name = piece.name;
  const std::uint64_t bytes = piece.bytes;
  on_disk(asked, counted, [piece = std::move(piece)](ReceivedFolder& folder) { return folder.take(piece); },
          [this, asked, name, bytes](const ReceivedFolder::Taken& taken, Respond say) {
            if (taken.complete) return publish(asked, name, bytes, std::move(say));
            say(answer(200, {{"have", taken.have}, {"done", taken.there}}));
          });
}

// Only now the file is whole, and that took a while: the attempt may be over meanwhile.
void RetrainingFiles::publish(const Asked& asked, const std::string& name, std::uint64_t bytes, Respond respond) {
  if (refuse(asked, respond)) return;
  on_disk(asked, std::move(respond), [name](ReceivedFolder& folder) { return folder.publish(name), true; },
          [asked, name, bytes](bool, const Respond& say) {
            logger("fusiond")->info("file received retraining={} attempt={} file={} bytes={}", asked.what.retraining.value, asked.what.attempt, name, bytes);
            say(answer(200, {{"have", bytes}, {"done", true}}));
          });
}

void RetrainingFiles::remove(const Asked& asked, const std::string& name, Respond respond) {
  on_disk(asked, std::move(respond), [name](ReceivedFolder& folder) { return folder.remove(name); },
          [](bool removed, const Respond& say) { say(answer(200, {{"removed", removed}})); });
}

// ---- parts of attempts that are over

void RetrainingFiles::watch(What what) {
  watched_[what.retraining] = what.attempt;
  if (looking_ || stopped_) return;
  looking_ = true;
  timer_.expires_after(kLook);
  timer_.async_wait([this](const boost::system::error_code& error) {
    if (error) return;  // stopped, and perhaps gone already
    looking_ = false;
    if (!stopped_) look();
  });
}

void RetrainingFiles::look() {
  for (auto at = watched_.begin(); at != watched_.end();) {
    const auto [id, attempt] = *at;
    const bool over = !dispatcher_.retrainings().holder({id, attempt});
    at = over ? watched_.erase(at) : std::next(at);
    if (over) forget(id);
  }
  if (!watched_.empty()) watch({watched_.begin()->first, watched_.begin()->second});
}

void RetrainingFiles::forget(RetrainingId id) {
  asio::post(disk_, [this, id] {
    const auto found = folders_.find(id);
    if (found == folders_.end()) return;
    found->second.drop_part();
    folders_.erase(found);
  });
}

}  // namespace fusion
