#include "tests/workers/client/blob_daemon.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

namespace fusion::testing {

namespace {

/// The value of a header field, or "".
std::string field(const std::string& request, const std::string& name) {
  const std::size_t at = request.find("\r\n" + name + ": ");
  if (at == std::string::npos) return "";
  const std::size_t begin = at + name.size() + 4;
  return request.substr(begin, request.find("\r\n", begin) - begin);
}

}  // namespace

BlobDaemon::BlobDaemon() {
  listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  ::bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof address);
  ::listen(listener_, 16);
  ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &length);
  port_ = ntohs(address.sin_port);
  acceptor_ = std::thread([this] { accept(); });
}

BlobDaemon::~BlobDaemon() {
  stopping_ = true;
  acceptor_.join();
  for (std::thread& connection : connections_) connection.join();
  ::close(listener_);
}

DaemonUrl BlobDaemon::url() const {
  DaemonUrl url;
  url.port = std::to_string(port_);
  return url;
}

std::vector<std::string> BlobDaemon::requests() const {
  const std::lock_guard lock(mutex_);
  return requests_;
}

void BlobDaemon::accept() {
  while (!stopping_) {
    pollfd waiting{listener_, POLLIN, 0};
    if (::poll(&waiting, 1, 20) <= 0) continue;
    const int socket = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (socket >= 0) connections_.emplace_back([this, socket] { serve(socket); });
  }
}

void BlobDaemon::serve(int socket) {
  std::string request;
  char piece[4096];
  while (!stopping_ && request.find("\r\n\r\n") == std::string::npos) {
    pollfd waiting{socket, POLLIN, 0};
    if (::poll(&waiting, 1, 20) == 0) continue;
    const ssize_t got = ::recv(socket, piece, sizeof piece, 0);
    if (got <= 0) break;
    request.append(piece, static_cast<std::size_t>(got));
  }
  if (request.find("\r\n\r\n") != std::string::npos) answer(socket, request);
  ::shutdown(socket, SHUT_WR);
  while (::recv(socket, piece, sizeof piece, MSG_DONTWAIT) > 0) {
  }
  ::close(socket);
}

bool BlobDaemon::send_all(int socket, const char* data, std::size_t bytes) {
  while (bytes > 0 && !stopping_) {
    pollfd waiting{socket, POLLOUT, 0};
    if (::poll(&waiting, 1, 20) == 0) continue;
    const ssize_t sent = ::send(socket, data, bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0) return false;
    data += sent;
    bytes -= static_cast<std::size_t>(sent);
    sent_ += static_cast<std::uint64_t>(sent);
  }
  return bytes == 0;
}

void BlobDaemon::answer(int socket, const std::string& request) {
  const std::string prefix = "GET /api/v1/blobs/";
  const std::string digest = request.starts_with(prefix) ? request.substr(prefix.size(), 64) : "";
  const std::string range = field(request, "Range");
  Fault fault;
  {
    const std::lock_guard lock(mutex_);
    if (requests_.size() < faults.size()) fault = faults[requests_.size()];
    requests_.push_back(digest + (range.empty() ? "" : " " + range));
  }
  const auto found = blobs.find(digest);
  const bool refuse = fault.kind == Fault::Kind::status || found == blobs.end();
  if (refuse) {
    const std::uint64_t status = fault.kind == Fault::Kind::status ? fault.after : 404;
    const std::string body = R"({"error": {"problems": ["no such blob here"]}})";
    const std::string text = "HTTP/1.1 " + std::to_string(status) + " No\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
    send_all(socket, text.data(), text.size());
    return;
  }
  const std::string& bytes = fault.bytes.empty() ? found->second : fault.bytes;
  const std::size_t begin = range.empty() ? 0 : std::min<std::size_t>(std::strtoull(range.c_str() + 6, nullptr, 10), bytes.size());
  if (!range.empty() && begin == bytes.size()) {
    const std::string text = "HTTP/1.1 416 No\r\nContent-Range: bytes */" + std::to_string(bytes.size()) + "\r\nContent-Length: 0\r\n\r\n";
    send_all(socket, text.data(), text.size());
    return;
  }
  std::string head = range.empty() ? "HTTP/1.1 200 OK\r\n" : "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes " + std::to_string(begin) + "-" +
                                                                 std::to_string(bytes.size() - 1) + "/" + std::to_string(bytes.size()) + "\r\n";
  head += "Content-Length: " + std::to_string(bytes.size() - begin) + "\r\n\r\n";
  send_all(socket, head.data(), head.size());
  sent_ -= head.size();
  const bool whole = fault.kind == Fault::Kind::none;
  send_all(socket, bytes.data() + begin, whole ? bytes.size() - begin : std::min<std::size_t>(fault.after, bytes.size() - begin));
  while (fault.kind == Fault::Kind::stall && !stopping_) {
    char gone = 0;
    pollfd waiting{socket, POLLIN, 0};
    if (::poll(&waiting, 1, 20) > 0 && ::recv(socket, &gone, 1, 0) <= 0) break;
  }
}

}  // namespace fusion::testing
