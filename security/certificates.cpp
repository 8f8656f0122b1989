#include "security/certificates.h"

#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <ctime>

#include "base/asio.h"
#include "base/error.h"
#include "base/files.h"
#include "security/openssl.h"
#include "security/private_file.h"

namespace fusion {

namespace {

namespace fs = std::filesystem;

constexpr long kBackdatedS = 3'600;  // clocks of two machines differ
constexpr long kDayS = 86'400;
constexpr int kSerialBits = 127;

struct Identity {
  X509Ptr certificate;
  KeyPtr key;
};

[[noreturn]] void failed(const std::string& what) { throw DataError("certificates: " + what + ": " + openssl_problem()); }

bool is_address(const std::string& text) {
  boost::system::error_code error;
  asio::ip::make_address(text, error);
  return !error;
}

bool is_host_name(const std::string& text) {
  constexpr const char* kAllowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.";
  return !text.empty() && text.size() <= 253 && text.find_first_not_of(kAllowed) == std::string::npos && text.front() != '.' &&
         text.front() != '-' && text.find("..") == std::string::npos;
}

KeyPtr new_key() {
  KeyPtr key(EVP_EC_gen("P-256"));
  if (!key) failed("no key was made");
  return key;
}

void set_serial(X509* certificate) {
  const NumberPtr number(BN_new());
  if (!number || BN_rand(number.get(), kSerialBits, BN_RAND_TOP_ANY, BN_RAND_BOTTOM_ANY) != 1) failed("no serial number");
  BN_to_ASN1_INTEGER(number.get(), X509_get_serialNumber(certificate));
}

void set_name(X509_NAME* name, const std::string& common) {
  const auto* bytes = reinterpret_cast<const unsigned char*>(common.c_str());
  X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, bytes, -1, -1, 0);
}

void add_extension(X509* certificate, X509* issuer, int nid, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  const ExtensionPtr extension(X509V3_EXT_conf_nid(nullptr, &context, nid, value.c_str()));
  if (!extension || X509_add_ext(certificate, extension.get(), -1) != 1) failed("extension " + value);
}

X509Ptr blank(EVP_PKEY* key, int days) {
  X509Ptr certificate(X509_new());
  if (!certificate) failed("out of memory");
  X509_set_version(certificate.get(), X509_VERSION_3);
  set_serial(certificate.get());
  X509_gmtime_adj(X509_getm_notBefore(certificate.get()), -kBackdatedS);
  X509_gmtime_adj(X509_getm_notAfter(certificate.get()), days * kDayS);
  X509_set_pubkey(certificate.get(), key);
  return certificate;
}

void sign(X509* certificate, EVP_PKEY* key) {
  if (X509_sign(certificate, key, EVP_sha256()) == 0) failed("signing failed");
}

Identity new_authority(int days) {
  Identity authority;
  authority.key = new_key();
  authority.certificate = blank(authority.key.get(), days);
  X509* raw = authority.certificate.get();
  set_name(X509_get_subject_name(raw), "Fusiond private authority");
  X509_set_issuer_name(raw, X509_get_subject_name(raw));
  add_extension(raw, raw, NID_basic_constraints, "critical,CA:TRUE,pathlen:0");
  add_extension(raw, raw, NID_key_usage, "critical,keyCertSign,cRLSign");
  add_extension(raw, raw, NID_subject_key_identifier, "hash");
  sign(raw, authority.key.get());
  return authority;
}

Identity new_server(const Identity& authority, const std::vector<std::string>& names, int days) {
  Identity server;
  server.key = new_key();
  server.certificate = blank(server.key.get(), days);
  X509* raw = server.certificate.get();
  const ASN1_TIME* last = X509_get0_notAfter(authority.certificate.get());
  if (ASN1_TIME_compare(X509_get0_notAfter(raw), last) > 0) X509_set1_notAfter(raw, last);
  set_name(X509_get_subject_name(raw), names.front().substr(0, 64));
  X509_set_issuer_name(raw, X509_get_subject_name(authority.certificate.get()));
  std::string alternatives;
  for (const std::string& name : names) alternatives += (alternatives.empty() ? "" : ",") + std::string(is_address(name) ? "IP:" : "DNS:") + name;
  X509* issuer = authority.certificate.get();
  add_extension(raw, issuer, NID_basic_constraints, "critical,CA:FALSE");
  add_extension(raw, issuer, NID_key_usage, "critical,digitalSignature");
  add_extension(raw, issuer, NID_ext_key_usage, "serverAuth");
  add_extension(raw, issuer, NID_subject_key_identifier, "hash");
  add_extension(raw, issuer, NID_authority_key_identifier, "keyid:always");
  add_extension(raw, issuer, NID_subject_alt_name, alternatives);
  sign(raw, authority.key.get());
  return server;
}

std::string text_of(BIO* bio) {
  char* data = nullptr;
  const long bytes = BIO_get_mem_data(bio, &data);
  return std::string(data, static_cast<std::size_t>(bytes));
}

std::string pem_of(X509* certificate) {
  const BioPtr bio(BIO_new(BIO_s_mem()));
  if (!bio || PEM_write_bio_X509(bio.get(), certificate) != 1) failed("a certificate cannot be written");
  return text_of(bio.get());
}

std::string pem_of(EVP_PKEY* key) {
  const BioPtr bio(BIO_new(BIO_s_mem()));
  if (!bio || PEM_write_bio_PKCS8PrivateKey(bio.get(), key, nullptr, nullptr, 0, nullptr, nullptr) != 1) failed("a key cannot be written");
  return text_of(bio.get());
}

Identity read_authority(const CertificateFiles& files) {
  const std::string certificate = read_text(files.authority), key = read_private(files.authority_key, "a key");
  const BioPtr certificate_bio(BIO_new_mem_buf(certificate.data(), static_cast<int>(certificate.size())));
  const BioPtr key_bio(BIO_new_mem_buf(key.data(), static_cast<int>(key.size())));
  Identity authority;
  authority.certificate.reset(PEM_read_bio_X509(certificate_bio.get(), nullptr, nullptr, nullptr));
  authority.key.reset(PEM_read_bio_PrivateKey(key_bio.get(), nullptr, nullptr, nullptr));
  if (!authority.certificate || !authority.key || X509_check_private_key(authority.certificate.get(), authority.key.get()) != 1) {
    ERR_clear_error();
    throw ConfigError(files.authority.string() + " and " + files.authority_key.string() + " are not a certificate and its key; name another folder with --out");
  }
  if (X509_cmp_current_time(X509_get0_notAfter(authority.certificate.get())) < 0) {
    throw ConfigError(files.authority.string() + " has expired; make a new authority in another folder with --out");
  }
  return authority;
}

std::string expiry_of(X509* certificate) {
  std::tm time{};
  ASN1_TIME_to_tm(X509_get0_notAfter(certificate), &time);
  char text[64];
  std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S UTC", &time);
  return text;
}

std::vector<std::string> names_of(const CertificateOrder& order) {
  std::vector<std::string> names;
  for (const auto& list : {order.hosts, std::vector<std::string>{"localhost", "127.0.0.1", "::1"}}) {
    for (const std::string& name : list) {
      if (std::ranges::find(names, name) == names.end()) names.push_back(name);
    }
  }
  return names;
}

void check_order(const CertificateOrder& order, const CertificateFiles& files) {
  std::vector<std::string> problems;
  if (order.hosts.empty()) problems.push_back("--host: expected at least one name or address that the daemon is reached by");
  for (const std::string& host : order.hosts) {
    if (!is_address(host) && !is_host_name(host)) problems.push_back("--host: expected a host's name or address, got \"" + host + "\"");
  }
  const auto days = [&](const char* option, int value) {
    if (value < 1 || value > 36'500) problems.push_back(std::string(option) + ": expected days in [1, 36500], got " + std::to_string(value));
  };
  days("--days", order.days);
  days("--ca-days", order.authority_days);
  for (const fs::path& file : {files.certificate, files.key}) {
    if (!order.force && fs::exists(file)) problems.push_back(file.string() + " is there already; it is replaced with --force only");
  }
  if (fs::exists(files.authority) != fs::exists(files.authority_key)) {
    problems.push_back("of " + files.authority.string() + " and " + files.authority_key.string() + " only one is there; name another folder with --out");
  }
  if (!problems.empty()) throw ConfigError(problems);
}

}  // namespace

CertificateFiles make_certificates(const CertificateOrder& order) {
  std::string base = order.hosts.empty() ? "server" : order.hosts.front();
  std::ranges::replace_if(base, [](char c) { return c == ':' || c == '/'; }, '-');
  if (base == "ca") base = "ca-host";
  CertificateFiles files;
  files.authority = order.folder / "ca.pem";
  files.authority_key = order.folder / "ca-key.pem";
  files.certificate = order.folder / (base + ".pem");
  files.key = order.folder / (base + "-key.pem");
  check_order(order, files);
  files.names = names_of(order);
  files.new_authority = !fs::exists(files.authority);
  const Identity authority = files.new_authority ? new_authority(order.authority_days) : read_authority(files);
  const Identity server = new_server(authority, files.names, order.days);
  files.expires = expiry_of(server.certificate.get());
  if (files.new_authority) {
    write_private(files.authority_key, pem_of(authority.key.get()), false);
    write_atomically(files.authority, pem_of(authority.certificate.get()));
  }
  write_private(files.key, pem_of(server.key.get()), order.force);
  write_atomically(files.certificate, pem_of(server.certificate.get()) + pem_of(authority.certificate.get()));
  return files;
}

}  // namespace fusion
