#include "security/tls.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>

#include <cstdio>

#include "base/error.h"
#include "security/openssl.h"

namespace fusion {

namespace {

constexpr const char* kCiphers = "ECDHE+AESGCM:ECDHE+CHACHA20";  // of TLS 1.2; those of 1.3 are all fine

void harden(ssl::context& context) {
  SSL_CTX* raw = context.native_handle();
  SSL_CTX_set_min_proto_version(raw, TLS1_2_VERSION);
  SSL_CTX_set_cipher_list(raw, kCiphers);
  SSL_CTX_set_options(raw, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE);
  SSL_CTX_set_mode(raw, SSL_MODE_RELEASE_BUFFERS);  // an idle connection keeps no record buffers
}

/// Nothing but its owner may read a key.
void require_private(const std::string& file) {
  struct stat status {};
  if (::stat(file.c_str(), &status) != 0 || (status.st_mode & 077) == 0) return;
  char mode[8];
  std::snprintf(mode, sizeof mode, "%04o", static_cast<unsigned>(status.st_mode & 07777));
  throw ConfigError("tls/key: others may read " + file + " (its mode is " + mode + "); expected 0600 (chmod 600 " + file + ")");
}

std::string said_by_openssl() { return openssl_problem(); }

X509Ptr read_certificate(const std::string& file) {
  const FilePtr stream(std::fopen(file.c_str(), "r"));
  if (!stream) throw ConfigError("tls/certificate: " + file + " cannot be read; `fusionctl certs --out DIR --host NAME` makes one");
  X509Ptr certificate(PEM_read_X509(stream.get(), nullptr, nullptr, nullptr));
  if (!certificate) throw ConfigError("tls/certificate: " + file + " holds no certificate in PEM form");
  return certificate;
}

/// Why a handshake failed, as a sentence; empty where it was the network.
std::string why_not(SSL* ssl, const boost::system::error_code& error, const std::string& host) {
  const long verified = SSL_get_verify_result(ssl);
  if (verified == X509_V_ERR_HOSTNAME_MISMATCH || verified == X509_V_ERR_IP_ADDRESS_MISMATCH) {
    return "its certificate does not name " + host + "; connect by a name it has, or make one that has it: fusionctl certs --host " + host;
  }
  if (verified == X509_V_ERR_CERT_HAS_EXPIRED) return "its certificate has expired; make another: fusionctl certs, then restart fusiond";
  if (verified == X509_V_ERR_CERT_NOT_YET_VALID) return "its certificate is not valid yet; compare the clocks of both machines";
  if (verified != X509_V_OK) {
    return std::string("its certificate is not from an authority that is trusted here (") + X509_verify_cert_error_string(verified) +
           "); give its authority by --ca FILE or FUSION_CA";
  }
  if (error.category() != asio::error::get_ssl_category()) return "";
  const int reason = ERR_GET_REASON(static_cast<unsigned long>(error.value()));
  if (reason == SSL_R_WRONG_VERSION_NUMBER || reason == SSL_R_HTTP_REQUEST) return "it does not speak TLS there; try http:// in place of https://";
  return "the TLS handshake failed (" + error.message() + ")";
}

}  // namespace

std::shared_ptr<ssl::context> server_tls(const std::string& certificate, const std::string& key) {
  if (certificate.empty() || key.empty()) {
    throw ConfigError("tls: expected both \"certificate\" and \"key\"; `fusionctl certs --out DIR --host NAME` makes them");
  }
  const X509Ptr leaf = read_certificate(certificate);
  if (X509_cmp_current_time(X509_get0_notAfter(leaf.get())) < 0) {
    throw ConfigError("tls/certificate: " + certificate + " has expired; make another with fusionctl certs --force");
  }
  require_private(key);
  auto context = std::make_shared<ssl::context>(ssl::context::tls_server);
  harden(*context);
  SSL_CTX* raw = context->native_handle();
  if (SSL_CTX_use_certificate_chain_file(raw, certificate.c_str()) != 1) {
    throw ConfigError("tls/certificate: " + certificate + " cannot be used: " + said_by_openssl());
  }
  if (SSL_CTX_use_PrivateKey_file(raw, key.c_str(), SSL_FILETYPE_PEM) != 1) {
    throw ConfigError("tls/key: " + key + " is not the key of " + certificate + ", or no key in PEM form: " + said_by_openssl());
  }
  SSL_CTX_set_session_cache_mode(raw, SSL_SESS_CACHE_OFF);
  return context;
}

bool certificate_names(const std::string& certificate, const std::string& host) {
  const X509Ptr leaf = read_certificate(certificate);
  return X509_check_ip_asc(leaf.get(), host.c_str(), 0) == 1 || X509_check_host(leaf.get(), host.c_str(), host.size(), 0, nullptr) == 1;
}

std::shared_ptr<ssl::context> client_tls(const std::string& ca_file) {
  auto context = std::make_shared<ssl::context>(ssl::context::tls_client);
  harden(*context);
  boost::system::error_code error;
  if (ca_file.empty()) context->set_default_verify_paths(error);
  else context->load_verify_file(ca_file, error);
  if (error && !ca_file.empty()) {
    throw ConfigError("--ca: " + ca_file + " cannot be read, or holds no certificate in PEM form (" + error.message() + ")");
  }
  context->set_verify_mode(ssl::verify_peer);
  // A server's own certificate may stand in the file too: it is trusted then, and nothing else.
  X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(context->native_handle()), X509_V_FLAG_PARTIAL_CHAIN);
  return context;
}

asio::awaitable<void> connect_tls(Stream& stream, std::shared_ptr<ssl::context> context, std::string host, std::string url) {
  auto& tls = stream.begin_tls(std::move(context));
  SSL* raw = tls.native_handle();
  boost::system::error_code error;
  asio::ip::make_address(host, error);
  X509_VERIFY_PARAM* parameters = SSL_get0_param(raw);
  if (!error) {
    X509_VERIFY_PARAM_set1_ip_asc(parameters, host.c_str());
  } else {
    SSL_set_tlsext_host_name(raw, host.c_str());
    X509_VERIFY_PARAM_set1_host(parameters, host.c_str(), host.size());
    X509_VERIFY_PARAM_set_hostflags(parameters, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
  }
  error = {};
  co_await tls.async_handshake(ssl::stream_base::client, asio::redirect_error(asio::use_awaitable, error));
  if (!error) co_return;
  const std::string why = why_not(raw, error, host);
  if (why.empty()) throw boost::system::system_error(error);
  throw ConfigError("the daemon at " + url + " cannot be trusted: " + why);
}

}  // namespace fusion
