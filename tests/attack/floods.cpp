#include "tests/attack/floods.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <thread>

#include "workers/dispatch/limits.h"

namespace fusion::attack {

namespace {

using Steady = std::chrono::steady_clock;
constexpr int kHandshakes = 500;
constexpr std::chrono::milliseconds kBetweenBytes{50};
const std::string kHalfHello("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11);  // the head of a ClientHello, and nothing behind it

/// Plain sockets, closed with this.
class Sockets {
 public:
  ~Sockets() {
    for (const int fd : open_) ::close(fd);
  }
  /// False if the system gives no more.
  bool connect(const std::string& address, std::uint16_t port) {
    const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return false;
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(port);
    ::inet_pton(AF_INET, address.c_str(), &to.sin_addr);
    if (::connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof to) != 0) {
      ::close(fd);
      return false;
    }
    open_.push_back(fd);
    return true;
  }
  bool send_last(const std::string& bytes) { return ::send(open_.back(), bytes.data(), bytes.size(), MSG_NOSIGNAL) > 0; }
  /// Whether the peer has closed it.
  static bool ended(int fd) {
    char byte = 0;
    const ssize_t got = ::recv(fd, &byte, 1, MSG_DONTWAIT | MSG_PEEK);
    return got == 0 || (got < 0 && errno != EAGAIN && errno != EWOULDBLOCK);
  }
  const std::vector<int>& open() const { return open_; }

 private:
  std::vector<int> open_;
};

/// Keeps trickling until each is cut off; returns how long the last one lived.
template <typename Trickle>
Row cut_off(const std::string& name, std::chrono::seconds patience, std::size_t count, Trickle trickle) {
  Row made;
  made.name = name;
  made.expected = "cut off";
  std::vector<bool> alive(count, true);
  const auto end = Steady::now() + patience;
  std::size_t left = count;
  while (left > 0 && Steady::now() < end) {
    for (std::size_t i = 0; i < count; ++i) {
      if (!alive[i] || trickle(i)) continue;
      alive[i] = false;
      --left;
      made.add("cut off", true);
    }
    std::this_thread::sleep_for(kBetweenBytes);
  }
  for (std::size_t i = 0; i < left; ++i) made.add("still open", false);
  return made;
}

Row slow_requests(const Target& target, const std::string& name, const std::string& start, int count, std::chrono::seconds patience) {
  std::vector<std::unique_ptr<HttpsClient>> clients;
  for (int i = 0; i < count; ++i) {
    clients.push_back(std::make_unique<HttpsClient>(target));
    clients.back()->try_send(start);
  }
  return cut_off(name, patience, clients.size(), [&](std::size_t i) { return clients[i]->try_send("x"); });
}

}  // namespace

Row flood(const Target& target, const std::string& name, const std::string& address, int count, std::size_t most, std::chrono::milliseconds hold) {
  Row made;
  made.name = name;
  made.expected = "at most " + std::to_string(most) + " kept";
  const std::size_t before = target.descriptors();
  Sockets sockets;
  std::vector<std::unique_ptr<HttpsClient>> silent;  // after their handshake
  int opened = 0;
  std::size_t kept = 0;
  for (; opened < count; ++opened) {
    if (opened % 3 == 2 && static_cast<int>(silent.size()) < kHandshakes) {
      try {
        silent.push_back(std::make_unique<HttpsClient>(target, address));
        continue;
      } catch (const std::exception&) {  // pushed out amid its handshake, or no descriptor: one that says nothing then
      }
    }
    if (!sockets.connect(address, target.port())) break;
    if (opened % 3 == 1) sockets.send_last(kHalfHello);
    if (opened % 500 == 499) kept = std::max(kept, target.descriptors());
  }
  for (const auto end = Steady::now() + hold; Steady::now() < end; std::this_thread::sleep_for(kBetweenBytes)) {
    kept = std::max(kept, target.descriptors());
  }
  const std::size_t more = kept > before ? kept - before : 0;
  const auto gone = std::ranges::count_if(sockets.open(), Sockets::ended);
  made.got = {{"opened", opened}, {"kept at most", static_cast<int>(more)}, {"closed by the daemon", static_cast<int>(gone)}};
  made.ok = opened > 0 && more <= most;
  return made;
}

std::vector<Row> slow_clients(const Target& target, int count, std::chrono::seconds patience) {
  std::vector<Row> rows;
  const std::string host = "Host: x\r\nAuthorization: Bearer " + target.submit + "\r\n";
  rows.push_back(slow_requests(target, "slow head, a byte at a time", "GET /api/v1/studies HTTP/1.1\r\n" + host + "X-Slow: ", count, patience));
  rows.push_back(slow_requests(target, "slow body, a byte at a time", "POST /api/v1/studies HTTP/1.1\r\n" + host + "Content-Length: 100000\r\n\r\n", count,
                               patience));
  Sockets sockets;
  for (int i = 0; i < count && sockets.connect(kLoopback, target.port()); ++i) sockets.send_last(kHalfHello);
  rows.push_back(cut_off("slow handshake, never ended", patience, sockets.open().size(), [&](std::size_t i) { return !Sockets::ended(sockets.open()[i]); }));
  return rows;
}

std::string own_address() {
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) != 0) return "";
  const std::unique_ptr<ifaddrs, decltype(&::freeifaddrs)> owned(list, ::freeifaddrs);
  for (const ifaddrs* entry = list; entry != nullptr; entry = entry->ifa_next) {
    if (entry->ifa_addr == nullptr || entry->ifa_addr->sa_family != AF_INET || (entry->ifa_flags & IFF_LOOPBACK) != 0) continue;
    char text[INET_ADDRSTRLEN];
    const auto* address = reinterpret_cast<const sockaddr_in*>(entry->ifa_addr);
    if (::inet_ntop(AF_INET, &address->sin_addr, text, sizeof text) != nullptr) return text;
  }
  return "";
}

std::size_t descriptors_allowed() { return raise_descriptor_limit(); }

}  // namespace fusion::attack
