#pragma once

// base/asio.h and what of Asio and Beast speaks TLS. Costs seconds per file: for security/stream.h and the files that use it only.
#include "base/asio.h"

#include <boost/asio/ssl.hpp>
#include <boost/beast/ssl.hpp>
#include <boost/beast/websocket/ssl.hpp>

namespace fusion {
namespace ssl = boost::asio::ssl;
}  // namespace fusion
