#pragma once

#include <sys/types.h>

#include <optional>

#include "base/asio.h"

namespace fusion {

/// Which user of this machine is at the other end of a loopback TCP connection.
///
/// `local` is our end, `remote` the peer's. Asks the kernel for the peer's socket by its four numbers (NETLINK_SOCK_DIAG, some
/// microseconds; where that is not to be had, /proc/net/tcp and tcp6). Nothing if the connection is not of this machine, if nobody has the
/// peer's socket any more (a closed one is owned by nobody, whoever opened it: it must not pass for root's), or if the kernel does not tell.
/// Ask right after accepting. The answer is the user who made the socket, in this process's user namespace. I/O thread.
std::optional<uid_t> peer_user(const tcp::endpoint& local, const tcp::endpoint& remote);

/// The same by one way only; for tests.
std::optional<uid_t> peer_user_by_netlink(const tcp::endpoint& local, const tcp::endpoint& remote);
std::optional<uid_t> peer_user_by_proc(const tcp::endpoint& local, const tcp::endpoint& remote);

/// 127.0.0.0/8, ::1, and the former written as IPv6.
bool is_loopback(const asio::ip::address& address);

}  // namespace fusion
