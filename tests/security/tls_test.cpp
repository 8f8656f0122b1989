#include "security/tls.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <optional>
#include <thread>

#include "base/error.h"
#include "security/certificates.h"
#include "tests/temporary_folder.h"

namespace fusion {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

CertificateFiles make(const std::filesystem::path& folder, std::vector<std::string> hosts) {
  CertificateOrder order;
  order.folder = folder;
  order.hosts = std::move(hosts);
  return make_certificates(order);
}

/// One handshake with a real server on loopback. Returns the client's sentence, "" for none; "error" where it was no sentence.
struct Handshake {
  explicit Handshake(std::shared_ptr<ssl::context> server_context) : server(std::move(server_context)) {}

  std::string connect(const std::string& host, const std::string& ca, std::function<void(SSL_CTX*)> adjust = {}) {
    std::thread serving([this] {
      tcp::socket socket(server_io);
      acceptor.accept(socket);
      boost::system::error_code error;
      if (!server) {
        asio::write(socket, asio::buffer(std::string("HTTP/1.1 400 Bad Request\r\n\r\n")), error);
        return;
      }
      ssl::stream<tcp::socket> stream(std::move(socket), *server);
      stream.handshake(ssl::stream_base::server, error);
      version = SSL_get_version(stream.native_handle());
      cipher = SSL_get_cipher_name(stream.native_handle());
      stream.shutdown(error);
    });
    asio::io_context io{1};
    std::string said;
    const auto context = client_tls(ca);
    if (adjust) adjust(context->native_handle());
    const auto stream = std::make_shared<Stream>(io);
    auto run = [&, stream]() -> asio::awaitable<void> {
      const tcp::endpoint there(asio::ip::make_address("127.0.0.1"), acceptor.local_endpoint().port());
      co_await stream->transport().async_connect(there, asio::use_awaitable);
      co_await connect_tls(*stream, context, host, "https://there");
      boost::system::error_code ignored;
      co_await stream->tls().async_shutdown(asio::redirect_error(asio::use_awaitable, ignored));
    };
    auto ended = [&](std::exception_ptr error) {
      try {
        if (error) std::rethrow_exception(error);
      } catch (const ConfigError& e) {
        said = e.what();
      } catch (const std::exception&) {
        said = "error";
      }
      stream->transport().close();
    };
    asio::co_spawn(io, std::move(run), std::move(ended));
    io.run();
    serving.join();
    return said;
  }

  std::shared_ptr<ssl::context> server;
  asio::io_context server_io{1};
  tcp::acceptor acceptor{server_io, tcp::endpoint(asio::ip::make_address("127.0.0.1"), 0)};
  std::string version, cipher;
};

TEST(TlsTest, ATrustedServerIsSpokenToOverModernTls) {
  testing::TemporaryFolder folder;
  const CertificateFiles files = make(folder.path(), {"gpu7.example"});
  Handshake handshake(server_tls(files.certificate.string(), files.key.string()));
  EXPECT_THAT(handshake.connect("127.0.0.1", files.authority.string()), IsEmpty());
  EXPECT_EQ(handshake.version, "TLSv1.3");
  EXPECT_THAT(handshake.connect("gpu7.example", files.authority.string(), [](SSL_CTX* c) { SSL_CTX_set_max_proto_version(c, TLS1_2_VERSION); }),
              IsEmpty());
  EXPECT_EQ(handshake.version, "TLSv1.2");
  EXPECT_THAT(handshake.cipher, HasSubstr("ECDHE"));
  EXPECT_THAT(handshake.connect("127.0.0.1", files.certificate.string()), IsEmpty()) << "its own certificate may be pinned";
}

TEST(TlsTest, OldTlsIsRefused) {
  testing::TemporaryFolder folder;
  const CertificateFiles files = make(folder.path(), {"x"});
  Handshake handshake(server_tls(files.certificate.string(), files.key.string()));
  const auto old = [](SSL_CTX* context) {
    SSL_CTX_set_security_level(context, 0);
    SSL_CTX_set_min_proto_version(context, TLS1_VERSION);
    SSL_CTX_set_max_proto_version(context, TLS1_1_VERSION);
  };
  EXPECT_THAT(handshake.connect("x", files.authority.string(), old), ::testing::Not(IsEmpty()));
}

TEST(TlsTest, EachReasonForDistrustHasASentence) {
  testing::TemporaryFolder folder;
  const CertificateFiles ours = make(folder / "a", {"gpu7"}), theirs = make(folder / "b", {"gpu7"});
  Handshake handshake(server_tls(ours.certificate.string(), ours.key.string()));
  EXPECT_THAT(handshake.connect("gpu7", theirs.authority.string()), HasSubstr("give its authority by --ca FILE or FUSION_CA"));
  EXPECT_THAT(handshake.connect("gpu7", ""), HasSubstr("give its authority by --ca")) << "the system does not know it";
  EXPECT_THAT(handshake.connect("gpu8", ours.authority.string()), HasSubstr("does not name gpu8"));
  EXPECT_THAT(handshake.connect("127.0.0.2", ours.authority.string()), HasSubstr("does not name 127.0.0.2"));
  const auto in_ten_years = [](SSL_CTX* context) { X509_VERIFY_PARAM_set_time(SSL_CTX_get0_param(context), std::time(nullptr) + 9 * 365 * 86'400L); };
  EXPECT_THAT(handshake.connect("gpu7", ours.authority.string(), in_ten_years), HasSubstr("has expired"));
  Handshake plain(nullptr);
  EXPECT_THAT(plain.connect("gpu7", ours.authority.string()), HasSubstr("try http://"));
}

}  // namespace
}  // namespace fusion
