#include "tests/tools/canned_server.h"

#include <future>
#include <thread>

#include "base/asio.h"

namespace fusion::testing {

struct CannedServer::Impl {
  Impl(Answer canned, std::uint16_t port)
      : answer(std::move(canned)), acceptor(context, tcp::endpoint(asio::ip::address_v4::loopback(), port), true) {}

  asio::awaitable<void> listen() {
    while (true) {
      tcp::socket socket = co_await acceptor.async_accept(asio::use_awaitable);
      asio::co_spawn(context, serve(std::move(socket)), [](std::exception_ptr) {});  // clients may leave as they like
    }
  }

  asio::awaitable<void> serve(tcp::socket socket) {
    beast::flat_buffer buffer;
    http::request<http::string_body> request;
    co_await http::async_read(socket, buffer, request, asio::use_awaitable);
    const CannedRequest seen{std::string(request.method_string()), std::string(request.target()), request.body()};
    requests.push_back(seen);
    const CannedReply reply = answer(seen);
    if (reply.delivery == Delivery::never) {
      kept.push_back(std::move(socket));
      co_return;
    }
    const std::string bytes = bytes_of(reply);
    const asio::const_buffer view = asio::buffer(bytes);
    co_await asio::async_write(socket, view, asio::use_awaitable);
    socket.shutdown(tcp::socket::shutdown_both);
  }

  static std::string bytes_of(const CannedReply& reply) {
    if (reply.delivery == Delivery::closed) return "";
    if (reply.delivery == Delivery::closed_in_head) return "HTTP/1.1 200 OK\r\nContent-Le";
    if (reply.delivery == Delivery::garbage) return "220 mail.example.org ESMTP ready\r\n\r\n";
    const std::size_t announced = reply.body.size() + (reply.delivery == Delivery::truncated ? 100 : 0);
    return "HTTP/1.1 " + std::to_string(reply.status) + " Canned\r\nContent-Type: application/json\r\nContent-Length: " +
           std::to_string(announced) + "\r\nConnection: close\r\n\r\n" + reply.body;
  }

  Answer answer;
  asio::io_context context{1};
  tcp::acceptor acceptor;
  std::vector<CannedRequest> requests;  // server thread
  std::vector<tcp::socket> kept;        // server thread
  std::thread thread;
};

CannedServer::CannedServer(Answer answer, std::uint16_t port) : impl_(std::make_unique<Impl>(std::move(answer), port)) {
  asio::co_spawn(impl_->context, impl_->listen(), [](std::exception_ptr) {});
  impl_->thread = std::thread([this] { impl_->context.run(); });
}

CannedServer::~CannedServer() {
  impl_->context.stop();
  impl_->thread.join();
}

std::uint16_t CannedServer::port() const { return impl_->acceptor.local_endpoint().port(); }

std::vector<CannedRequest> CannedServer::requests() const {
  std::promise<std::vector<CannedRequest>> copy;
  asio::post(impl_->context, [&] { copy.set_value(impl_->requests); });
  return copy.get_future().get();
}

std::uint16_t unused_port() {
  asio::io_context context;
  tcp::acceptor acceptor(context, tcp::endpoint(asio::ip::address_v4::loopback(), 0));
  return acceptor.local_endpoint().port();
}

}  // namespace fusion::testing
