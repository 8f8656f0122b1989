#pragma once

#include <memory>
#include <string>

#include "security/stream.h"

namespace fusion {

/// A context for accepting with this identity (PEM; `certificate` may hold the whole chain): TLS 1.2 and later, forward-secret suites with authenticated encryption, no renegotiation, no compression.
/// Throws ConfigError with a sentence for each thing wrong: one file missing, not PEM, a key that is not the certificate's or that others
/// than its owner may read, a certificate that has expired.
std::shared_ptr<ssl::context> server_tls(const std::string& certificate, const std::string& key);

/// Whether a server certificate names this host or address. Throws as server_tls.
bool certificate_names(const std::string& certificate, const std::string& host);

/// A context for connecting that trusts `ca_file` (PEM: a certificate authority, or the server's own certificate), or the system's
/// authorities where it is empty. Throws ConfigError for a file that is none.
std::shared_ptr<ssl::context> client_tls(const std::string& ca_file);

/// The client's half of the handshake over a connected stream; the certificate must name `host`. Throws ConfigError with a sentence that says
/// what to do where trying again will not help: unknown authority, another name, expired, no TLS at all; else system_error.
asio::awaitable<void> connect_tls(Stream& stream, std::shared_ptr<ssl::context> context, std::string host, std::string url);

}  // namespace fusion
