#include "workers/client/remote_folder.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <thread>
#include <utility>

#include "base/digest.h"
#include "base/files.h"
#include "base/log.h"
#include "workers/client/blob_cache.h"
#include "workers/client/worker_condition.h"

namespace fusion {

namespace fs = std::filesystem;
using nlohmann::json;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

namespace {

constexpr std::size_t kLeastPiece = 16u << 10, kFirstPiece = 256u << 10, kMostPiece = 4u << 20;
constexpr std::chrono::seconds kQuick{1}, kSlow{5};
constexpr milliseconds kLook{100};
constexpr unsigned kTooLarge = 413, kAnotherPiece = 416, kWrongDigest = 422, kNoRoom = 507;

/// It may be better the next time.
bool passes(unsigned status) { return status >= 500 || status == 408 || status == 429; }

json document_of(const HttpReply& reply) {
  json document = json::parse(reply.body, nullptr, false);
  return document.is_object() ? document : json::object();
}

std::uint64_t have_of(const HttpReply& reply) {
  const json document = document_of(reply);
  const auto have = document.find("have");
  return have != document.end() && have->is_number_unsigned() ? have->get<std::uint64_t>() : 0;
}

std::string digest_of(int fd, std::uint64_t bytes, const std::string& name) {
  Sha256 digest;
  std::string buffer(1u << 20, '\0');
  for (std::uint64_t at = 0; at < bytes;) {
    const ssize_t got = ::pread(fd, buffer.data(), std::min<std::uint64_t>(buffer.size(), bytes - at), static_cast<off_t>(at));
    if (got <= 0) throw DataError(name + ": cannot be read: " + (got == 0 ? "it ended early" : std::strerror(errno)));
    digest.update(buffer.data(), static_cast<std::size_t>(got));
    at += static_cast<std::uint64_t>(got);
  }
  return digest.hex();
}

std::string piece_of(int fd, std::uint64_t begin, std::size_t bytes, const std::string& name) {
  std::string piece(bytes, '\0');
  for (std::size_t done = 0; done < bytes;) {
    const ssize_t got = ::pread(fd, piece.data() + done, bytes - done, static_cast<off_t>(begin + done));
    if (got <= 0) throw DataError(name + ": cannot be read: " + (got == 0 ? "it ended early" : std::strerror(errno)));
    done += static_cast<std::size_t>(got);
  }
  return piece;
}

}  // namespace

RemoteFolder::RemoteFolder(const BlobFetcherOptions& daemon, RetrainingId retraining, int attempt)
    : options_(daemon), retraining_(retraining), attempt_(attempt), http_(daemon), fetcher_(daemon), piece_(kFirstPiece) {}

std::string RemoteFolder::target(const std::string& name, const std::string& more) const {
  return "/api/v1/retrainings/" + to_string(retraining_) + "/files" + (name.empty() ? "" : "/" + name) + "?attempt=" + std::to_string(attempt_) + more;
}

// A piece that did not get through within the time limits may have been too large for this network.
void RemoteFolder::shrink_pieces() { piece_ = std::max(kLeastPiece, piece_ / 2); }

HttpReply RemoteFolder::ask(const std::string& method, const std::string& target, const Body& body, const Stopped& stopped) {
  milliseconds pause = options_.backoff_min;
  auto room_until = steady_clock::time_point::max();  // when a disk without room was found: how long it is waited for
  for (bool told = false;;) {
    std::string trouble;
    try {
      HttpReply reply = http_.ask(method, target, body ? body() : "", stopped);
      if (!passes(reply.status)) return reply;
      trouble = problem_of(reply);
      if (reply.status != kNoRoom) room_until = steady_clock::time_point::max();
      else room_until = std::min(room_until, steady_clock::now() + options_.patience);
      if (steady_clock::now() > room_until) throw RemoteRefused(reply.status, trouble);
    } catch (const NoAnswer& error) {
      trouble = error.what();
      shrink_pieces();
    }
    logger("worker")->log(std::exchange(told, true) ? spdlog::level::debug : spdlog::level::warn, "files of retraining {}: trying again and again, as {}",
                          retraining_.value, trouble);
    for (const auto until = steady_clock::now() + pause; steady_clock::now() < until;) {
      if (stopped && stopped()) throw FetchStopped();
      std::this_thread::sleep_for(std::min(kLook, pause));
    }
    pause = std::min(2 * pause, options_.backoff_max);
  }
}

RemoteFolder::Listing RemoteFolder::list(bool digests, const Stopped& stopped) {
  const HttpReply reply = ask("GET", target("", digests ? "&digests=1" : ""), {}, stopped);
  if (reply.status != 200) throw RemoteRefused(reply.status, problem_of(reply));
  const json document = document_of(reply);
  try {
    Listing listing;
    listing.mark = document.at("mark").get<std::string>();
    for (const json& file : document.at("files")) {
      listing.files.push_back({file.at("name").get<std::string>(), file.at("bytes").get<std::uint64_t>(), file.value("sha256", "")});
    }
    return listing;
  } catch (const json::exception& error) {
    throw RemoteRefused(reply.status, std::string("the daemon's list of files is none: ") + error.what());
  }
}

void RemoteFolder::fetch(const File& file, const fs::path& folder, const Stopped& stopped) {
  if (file.name.empty() || file.name.find('/') != std::string::npos || file.name.front() == '.') {
    throw UnreadableData("the daemon names a file that is none: \"" + file.name + "\"");
  }
  const fs::path part = folder / ("." + file.name + ".part");
  const std::string what = "file " + file.name + " of retraining " + to_string(retraining_);
  for (int tries = 0; tries < 2; ++tries) {
    {
      const OwnedFile opened(::open(part.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
      if (!opened) throw UnreadableData(part.string() + ": cannot be written: " + std::strerror(errno));
      fetcher_.fetch(BlobFetcher::Source{target(file.name), what}, opened.fd(), {stopped, {}});
    }
    if (sha256_of_file(part) == file.sha256) return publish_file(part, folder / file.name, true);
  }
  fs::remove(part);
  throw UnreadableData(what + ": what comes from the daemon has another SHA-256 than " + file.sha256);
}

/// Returns how much the daemon has then.
std::uint64_t RemoteFolder::send_piece(int fd, const File& file, std::uint64_t begin, bool& done, const Stopped& stopped) {
  const std::string at = target(file.name, "&sha256=" + file.sha256 + "&bytes=" + std::to_string(file.bytes) + "&begin=" + std::to_string(begin));
  std::size_t size = 0;
  const auto began = steady_clock::now();
  const HttpReply reply = ask("PUT", at, [&] {
    size = static_cast<std::size_t>(std::min<std::uint64_t>(piece_, file.bytes - begin));
    sent_ += size;
    return piece_of(fd, begin, size, file.name);
  }, stopped);
  const auto took = steady_clock::now() - began;
  if (reply.status == kAnotherPiece) return have_of(reply);
  if (reply.status == kTooLarge && size > kLeastPiece) {  // than the daemon reads at once
    shrink_pieces();
    return begin;
  }
  if (reply.status != 200) throw RemoteRefused(reply.status, problem_of(reply));
  if (took < kQuick) piece_ = std::min(kMostPiece, 2 * piece_);
  if (took > kSlow) shrink_pieces();
  done = document_of(reply).value("done", false);
  return have_of(reply);
}

RemoteFolder::File RemoteFolder::send(const fs::path& path, const Stopped& stopped) {
  const OwnedFile opened(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat state {};
  if (!opened || ::fstat(opened.fd(), &state) != 0) throw DataError(path.string() + ": cannot be read: " + std::strerror(errno));
  File file{path.filename().string(), static_cast<std::uint64_t>(state.st_size), ""};
  file.sha256 = digest_of(opened.fd(), file.bytes, path.string());
  const std::string begun = target(file.name, "&sha256=" + file.sha256 + "&bytes=" + std::to_string(file.bytes));
  HttpReply first = ask("PUT", begun, {}, stopped);  // an empty piece: how much is there?
  if (first.status == kWrongDigest) first = ask("PUT", begun, {}, stopped);  // what was there is gone now
  if (first.status != 200) throw RemoteRefused(first.status, problem_of(first));
  bool done = document_of(first).value("done", false);
  bool again = false;
  for (std::uint64_t have = have_of(first); !done;) {
    try {
      have = std::min(send_piece(opened.fd(), file, have, done, stopped), file.bytes);
    } catch (const RemoteRefused& refused) {
      if (refused.status != kWrongDigest || std::exchange(again, true)) throw;
      have = 0;  // a disk or a network changed it
    }
  }
  return file;
}

void RemoteFolder::remove(const std::string& name, const Stopped& stopped) {
  const HttpReply reply = ask("DELETE", target(name), {}, stopped);
  if (reply.status != 200) throw RemoteRefused(reply.status, problem_of(reply));
}

}  // namespace fusion
