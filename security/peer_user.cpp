#include "security/peer_user.h"

#include <arpa/inet.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <string>

namespace fusion {

namespace {

constexpr timeval kPatience{0, 200'000};  // the kernel answers within the call; this is for a kernel that does not

asio::ip::address plain(const asio::ip::address& address) {
  if (address.is_v6() && address.to_v6().is_v4_mapped()) return asio::ip::make_address_v4(asio::ip::v4_mapped, address.to_v6());
  return address;
}

void put_address(const asio::ip::address& address, std::uint32_t (&words)[4]) {
  if (address.is_v4()) {
    const auto bytes = address.to_v4().to_bytes();
    std::memcpy(words, bytes.data(), bytes.size());
  } else {
    const auto bytes = address.to_v6().to_bytes();
    std::memcpy(words, bytes.data(), bytes.size());
  }
}

struct Descriptor {
  int fd;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
};

struct Question {
  nlmsghdr header{};
  inet_diag_req_v2 request{};
};

/// Seen from the peer: its own address is the source.
Question question_of(const tcp::endpoint& local, const tcp::endpoint& remote) {
  Question question;
  question.header.nlmsg_len = sizeof question;
  question.header.nlmsg_type = SOCK_DIAG_BY_FAMILY;
  question.header.nlmsg_flags = NLM_F_REQUEST;
  const asio::ip::address from = plain(remote.address()), to = plain(local.address());
  question.request.sdiag_family = from.is_v4() ? AF_INET : AF_INET6;
  question.request.sdiag_protocol = IPPROTO_TCP;
  question.request.idiag_states = ~0u;
  question.request.id.idiag_sport = htons(remote.port());
  question.request.id.idiag_dport = htons(local.port());
  put_address(from, question.request.id.idiag_src);
  put_address(to, question.request.id.idiag_dst);
  question.request.id.idiag_cookie[0] = question.request.id.idiag_cookie[1] = INET_DIAG_NOCOOKIE;
  return question;
}

/// "0100007F:1F90" as /proc/net/tcp has it: each 32-bit word in the machine's byte order.
std::string proc_text(const asio::ip::address& address, std::uint16_t port) {
  std::uint32_t words[4]{};
  put_address(address, words);
  std::string text;
  char digits[16];
  for (int i = 0; i < (address.is_v4() ? 1 : 4); ++i) {
    std::snprintf(digits, sizeof digits, "%08X", words[i]);
    text += digits;
  }
  std::snprintf(digits, sizeof digits, ":%04X", port);
  return text + digits;
}

asio::ip::address mapped(const asio::ip::address& address) {
  return address.is_v4() ? asio::ip::address(asio::ip::make_address_v6(asio::ip::v4_mapped, address.to_v4())) : address;
}

std::optional<uid_t> find_in(const char* table, const std::string& source, const std::string& target) {
  std::ifstream lines(table);
  std::string line;
  while (std::getline(lines, line)) {
    char from[48], to[48];
    unsigned uid = 0;
    unsigned long inode = 0;
    if (std::sscanf(line.c_str(), " %*d: %47s %47s %*x %*s %*s %*s %u %*d %lu", from, to, &uid, &inode) != 4) continue;
    if (source == from && target == to && inode != 0) return uid;
  }
  return std::nullopt;
}

}  // namespace

bool is_loopback(const asio::ip::address& address) { return plain(address).is_loopback(); }

std::optional<uid_t> peer_user_by_netlink(const tcp::endpoint& local, const tcp::endpoint& remote) {
  const Descriptor netlink{::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG)};
  if (netlink.fd < 0) return std::nullopt;
  ::setsockopt(netlink.fd, SOL_SOCKET, SO_RCVTIMEO, &kPatience, sizeof kPatience);
  const Question question = question_of(local, remote);
  sockaddr_nl kernel{};
  kernel.nl_family = AF_NETLINK;
  if (::sendto(netlink.fd, &question, sizeof question, 0, reinterpret_cast<const sockaddr*>(&kernel), sizeof kernel) < 0) return std::nullopt;
  alignas(nlmsghdr) std::array<char, 4096> answer{};
  const ssize_t got = ::recv(netlink.fd, answer.data(), answer.size(), 0);
  if (got < static_cast<ssize_t>(NLMSG_LENGTH(sizeof(inet_diag_msg)))) return std::nullopt;
  const auto* header = reinterpret_cast<const nlmsghdr*>(answer.data());
  if (header->nlmsg_type != SOCK_DIAG_BY_FAMILY) return std::nullopt;
  inet_diag_msg found{};
  std::memcpy(&found, NLMSG_DATA(header), sizeof found);
  if (found.idiag_inode == 0 || found.id.idiag_sport != htons(remote.port())) return std::nullopt;
  return found.idiag_uid;
}

std::optional<uid_t> peer_user_by_proc(const tcp::endpoint& local, const tcp::endpoint& remote) {
  const asio::ip::address from = plain(remote.address()), to = plain(local.address());
  if (from.is_v4()) {
    if (const auto uid = find_in("/proc/net/tcp", proc_text(from, remote.port()), proc_text(to, local.port()))) return uid;
  }
  return find_in("/proc/net/tcp6", proc_text(mapped(from), remote.port()), proc_text(mapped(to), local.port()));
}

std::optional<uid_t> peer_user(const tcp::endpoint& local, const tcp::endpoint& remote) {
  if (!is_loopback(remote.address()) || !is_loopback(local.address())) return std::nullopt;
  if (const auto uid = peer_user_by_netlink(local, remote)) return uid;
  return peer_user_by_proc(local, remote);
}

}  // namespace fusion
