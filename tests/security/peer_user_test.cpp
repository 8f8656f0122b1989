#include "security/peer_user.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <utility>

namespace fusion {
namespace {

constexpr uid_t kNobody = 65'534;

/// A connection over loopback: our end, and the other's.
struct Pair {
  explicit Pair(const char* listen_on, const char* connect_to) {
    acceptor.open(tcp::endpoint(asio::ip::make_address(listen_on), 0).protocol());
    boost::system::error_code ignored;
    if (acceptor.local_endpoint(ignored).address().is_v6()) acceptor.set_option(asio::ip::v6_only(false), ignored);
    acceptor.bind(tcp::endpoint(asio::ip::make_address(listen_on), 0));
    acceptor.listen();
    other.connect(tcp::endpoint(asio::ip::make_address(connect_to), acceptor.local_endpoint().port()));
    acceptor.accept(ours);
  }
  asio::io_context io;
  tcp::acceptor acceptor{io};
  tcp::socket other{io}, ours{io};
};

using Ask = std::optional<uid_t> (*)(const tcp::endpoint&, const tcp::endpoint&);
const std::array<std::pair<const char*, Ask>, 3> kWays{{{"either", peer_user}, {"netlink", peer_user_by_netlink}, {"proc", peer_user_by_proc}}};

TEST(PeerUserTest, IsTheUserWhoMadeTheSocket) {
  const std::pair<const char*, const char*> addresses[] = {{"127.0.0.1", "127.0.0.1"}, {"::1", "::1"}, {"::", "127.0.0.1"}, {"0.0.0.0", "127.0.0.1"}};
  for (const auto& [listen_on, connect_to] : addresses) {
    const Pair pair(listen_on, connect_to);
    for (const auto& [name, ask] : kWays) {
      EXPECT_EQ(ask(pair.ours.local_endpoint(), pair.ours.remote_endpoint()), ::geteuid()) << name << " " << listen_on;
    }
  }
}

TEST(PeerUserTest, ASocketThatIsClosedBelongsToNobody) {
  Pair pair("127.0.0.1", "127.0.0.1");
  const tcp::endpoint local = pair.ours.local_endpoint(), remote = pair.ours.remote_endpoint();
  pair.other.close();  // the kernel would name user 0
  for (const auto& [name, ask] : kWays) EXPECT_FALSE(ask(local, remote)) << name;
}

TEST(PeerUserTest, NobodyIsFoundForWhatIsNoConnectionOfThisMachine) {
  const Pair pair("127.0.0.1", "127.0.0.1");
  const tcp::endpoint local = pair.ours.local_endpoint();
  EXPECT_FALSE(peer_user(local, tcp::endpoint(asio::ip::make_address("192.0.2.1"), 4711)));
  EXPECT_FALSE(peer_user(local, tcp::endpoint(asio::ip::make_address("127.0.0.1"), 1)));
}

TEST(PeerUserTest, AnotherUserIsToldFromUs) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root can become another user to try this";
  asio::io_context io;
  tcp::acceptor acceptor(io, tcp::endpoint(asio::ip::make_address("127.0.0.1"), 0));
  const std::uint16_t port = acceptor.local_endpoint().port();
  const pid_t child = ::fork();
  if (child == 0) {  // a real other user
    if (::setgid(kNobody) != 0 || ::setuid(kNobody) != 0) ::_exit(1);
    asio::io_context its_io;
    tcp::socket socket(its_io);
    socket.connect(tcp::endpoint(asio::ip::make_address("127.0.0.1"), port));
    char c;
    boost::system::error_code ignored;
    asio::read(socket, asio::buffer(&c, 1), ignored);
    ::_exit(0);
  }
  {
    tcp::socket ours(io);
    acceptor.accept(ours);
    for (const auto& [name, ask] : kWays) EXPECT_EQ(ask(ours.local_endpoint(), ours.remote_endpoint()), kNobody) << name;
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace fusion
