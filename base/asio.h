#pragma once

// The one place that includes Boost.Asio and Beast: Boost 1.74's awaitable.hpp forgets <utility>.
//
// Three rules (docs/architecture.md): name every temporary before co_await (GCC 12 destroys braced aggregates and capturing
// lambdas made inside such an expression twice); give every co_spawn a completion handler that logs; no mutex, post instead.
#include <utility>

#include <boost/asio.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/websocket.hpp>

namespace fusion {
namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
namespace websocket = boost::beast::websocket;
using tcp = boost::asio::ip::tcp;
}  // namespace fusion
