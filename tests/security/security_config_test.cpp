#include "security/security_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/json_reader.h"

namespace fusion {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::ThrowsMessage;

std::vector<std::string> problems_of(const std::string& text, SecurityConfig& config) {
  const auto document = nlohmann::json::parse(text);
  JsonProblems problems;
  JsonReader reader(document, "daemon.json", problems);
  config = SecurityConfig::read(reader, {});
  reader.finish();
  return problems.list();
}

TEST(SecurityConfigTest, ReadsWhatItWrites) {
  SecurityConfig config;
  EXPECT_THAT(problems_of(R"({"tls": {"certificate": "c", "key": "k"}, "tokens": "t", "loopback": "same_user"})", config), ::testing::IsEmpty());
  EXPECT_EQ(config.loopback, LoopbackRule::same_user);
  nlohmann::json document;
  config.write(document);
  SecurityConfig again;
  EXPECT_THAT(problems_of(document.dump(), again), ::testing::IsEmpty());
  EXPECT_EQ(again.certificate + again.key + again.tokens, "ckt");
  EXPECT_THAT(problems_of("{}", again), ::testing::IsEmpty());
  EXPECT_FALSE(again.has_tls());
}

TEST(SecurityConfigTest, HalvesAreProblems) {
  SecurityConfig config;
  EXPECT_EQ(problems_of(R"({"tls": {"certificate": "c"}})", config).size(), 1u);
  EXPECT_EQ(problems_of(R"({"loopback": "everybody"})", config).size(), 1u);
  EXPECT_EQ(problems_of(R"({"tls": {"certificate": "c", "key": "k", "cypher": "x"}})", config).size(), 1u);
}

TEST(SecurityConfigTest, WhoNeedsNoTokenMustBeChosen) {
  SecurityConfig config;
  EXPECT_EQ(config.rule(), LoopbackRule::token);
  EXPECT_THAT([&] { config.check_served(); },
              ThrowsMessage<ConfigError>(AllOf(HasSubstr("--loopback same_user"), HasSubstr("fusionctl tokens add"), HasSubstr("--tokens"))));
  config.loopback = LoopbackRule::token;
  EXPECT_THROW(config.check_served(), ConfigError);
  config.loopback = LoopbackRule::same_user;
  EXPECT_NO_THROW(config.check_served());
  config = {};
  config.tokens = "t";
  EXPECT_NO_THROW(config.check_served());
}

TEST(SecurityConfigTest, OtherAddressesThanLoopbackNeedTlsAndTokens) {
  SecurityConfig none, tls, tokens, both;
  tls.certificate = both.certificate = tls.key = both.key = "x";
  tokens.tokens = both.tokens = "x";
  for (const char* address : {"127.0.0.1", "::1", "127.0.0.9"}) EXPECT_NO_THROW(none.check_address(address)) << address;
  for (const char* address : {"0.0.0.0", "::", "10.1.2.3", "::ffff:10.1.2.3"}) {
    EXPECT_THAT([&] { none.check_address(address); },
                ThrowsMessage<ConfigError>(AllOf(HasSubstr("fusionctl certs"), HasSubstr("fusionctl tokens add"), HasSubstr(address))));
    EXPECT_THAT([&] { tls.check_address(address); }, ThrowsMessage<ConfigError>(AllOf(Not(HasSubstr("certs")), HasSubstr("tokens add"))));
    EXPECT_THAT([&] { tokens.check_address(address); }, ThrowsMessage<ConfigError>(AllOf(HasSubstr("certs"), Not(HasSubstr("tokens add")))));
    EXPECT_NO_THROW(both.check_address(address)) << address;
  }
  EXPECT_THROW(both.check_address("example.org"), ConfigError);
}

}  // namespace
}  // namespace fusion
