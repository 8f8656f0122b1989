#include "security/certificates.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "base/error.h"
#include "base/files.h"
#include "security/tls.h"
#include "tests/temporary_folder.h"

namespace fusion {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;
namespace fs = std::filesystem;

CertificateOrder order_of(const fs::path& folder, std::vector<std::string> hosts) {
  CertificateOrder order;
  order.folder = folder;
  order.hosts = std::move(hosts);
  return order;
}

mode_t mode_of(const fs::path& file) {
  struct stat status {};
  return ::stat(file.c_str(), &status) == 0 ? status.st_mode & 07777 : 0;
}

TEST(CertificatesTest, MakeAnAuthorityAndACertificateThatNamesItsHosts) {
  testing::TemporaryFolder folder;
  const CertificateFiles files = make_certificates(order_of(folder / "tls", {"gpu7.example", "10.1.2.3"}));
  EXPECT_TRUE(files.new_authority);
  EXPECT_EQ(mode_of(files.key), 0600u);
  EXPECT_EQ(mode_of(files.authority_key), 0600u);
  EXPECT_EQ(files.certificate.filename(), "gpu7.example.pem");
  for (const char* name : {"gpu7.example", "10.1.2.3", "localhost", "127.0.0.1", "::1"}) {
    EXPECT_TRUE(certificate_names(files.certificate.string(), name)) << name;
  }
  for (const char* name : {"gpu8.example", "10.1.2.4", "example"}) EXPECT_FALSE(certificate_names(files.certificate.string(), name)) << name;
  EXPECT_NO_THROW(server_tls(files.certificate.string(), files.key.string()));
}

TEST(CertificatesTest, TheAuthorityIsUsedAgainAndNothingIsOverwrittenUnlessForced) {
  testing::TemporaryFolder folder;
  const CertificateFiles first = make_certificates(order_of(folder.path(), {"a"}));
  const std::string authority = read_text(first.authority), key = read_text(first.key);
  EXPECT_FALSE(make_certificates(order_of(folder.path(), {"b"})).new_authority);
  EXPECT_EQ(read_text(first.authority), authority);
  EXPECT_THAT([&] { make_certificates(order_of(folder.path(), {"a"})); }, ThrowsMessage<ConfigError>(HasSubstr("--force")));
  EXPECT_EQ(read_text(first.key), key);
  CertificateOrder forced = order_of(folder.path(), {"a"});
  forced.force = true;
  make_certificates(forced);
  EXPECT_NE(read_text(first.key), key);
  EXPECT_EQ(mode_of(first.key), 0600u);
  EXPECT_EQ(read_text(first.authority), authority);
}

TEST(CertificatesTest, BadOrdersAreRefusedWithEveryProblemAndWriteNothing) {
  testing::TemporaryFolder folder;
  CertificateOrder order = order_of(folder / "tls", {"a b", "../x", "-x", "a,DNS:b"});
  order.days = 0;
  try {
    make_certificates(order);
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_EQ(error.problems().size(), 5u) << error.what();
  }
  EXPECT_THROW(make_certificates(order_of(folder / "tls", {})), ConfigError);
  EXPECT_FALSE(fs::exists(folder / "tls"));
}

TEST(CertificatesTest, AnAuthorityWithAnotherKeyIsRefused) {
  testing::TemporaryFolder folder;
  const CertificateFiles a = make_certificates(order_of(folder / "a", {"x"})), b = make_certificates(order_of(folder / "b", {"x"}));
  fs::copy_file(a.authority, b.authority, fs::copy_options::overwrite_existing);
  EXPECT_THROW(make_certificates(order_of(folder / "b", {"y"})), ConfigError);
  EXPECT_THAT([&] { server_tls(a.certificate.string(), b.key.string()); }, ThrowsMessage<ConfigError>(HasSubstr("is not the key")));
}

TEST(ServerTlsTest, WrongFilesAreRefusedInSentences) {
  testing::TemporaryFolder folder;
  const CertificateFiles files = make_certificates(order_of(folder.path(), {"x"}));
  const std::string certificate = files.certificate.string(), key = files.key.string();
  EXPECT_THAT([&] { server_tls(certificate, ""); }, ThrowsMessage<ConfigError>(HasSubstr("both")));
  EXPECT_THAT([&] { server_tls((folder / "none").string(), key); }, ThrowsMessage<ConfigError>(HasSubstr("cannot be read")));
  EXPECT_THAT([&] { server_tls(key, key); }, ThrowsMessage<ConfigError>(HasSubstr("no certificate")));
  ::chmod(key.c_str(), 0640);
  EXPECT_THAT([&] { server_tls(certificate, key); }, ThrowsMessage<ConfigError>(HasSubstr("expected 0600")));
  EXPECT_THAT([&] { client_tls((folder / "none").string()); }, ThrowsMessage<ConfigError>(HasSubstr("--ca")));
}

}  // namespace
}  // namespace fusion
