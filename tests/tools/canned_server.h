#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace fusion::testing {

struct CannedRequest {
  std::string method, target, body;
};

/// How an answer leaves: whole; announced longer than what is sent; the connection closed before or amid the head; not at
/// all while the server lives; or bytes that are not HTTP.
enum class Delivery { whole, truncated, closed, closed_in_head, never, garbage };

struct CannedReply {
  unsigned status = 200;
  std::string body = "{}";
  Delivery delivery = Delivery::whole;
};

/// A real HTTP server on 127.0.0.1 with a thread of its own. `answer` is called on that thread, one request at a time.
class CannedServer {
 public:
  using Answer = std::function<CannedReply(const CannedRequest&)>;
  /// Port 0 takes a free one.
  explicit CannedServer(Answer answer, std::uint16_t port = 0);
  ~CannedServer();  ///< closes every connection
  CannedServer(const CannedServer&) = delete;
  CannedServer& operator=(const CannedServer&) = delete;

  std::uint16_t port() const;
  std::string url() const { return "http://127.0.0.1:" + std::to_string(port()); }
  /// Every request so far.
  std::vector<CannedRequest> requests() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// A port of 127.0.0.1 on which nothing listened a moment ago.
std::uint16_t unused_port();

}  // namespace fusion::testing
