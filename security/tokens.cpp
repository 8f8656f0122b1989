#include "security/tokens.h"

#include <openssl/crypto.h>
#include <openssl/rand.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/digest.h"
#include "base/error.h"
#include "base/json_reader.h"
#include "security/private_file.h"

namespace fusion {

using nlohmann::json;

namespace {

constexpr std::string_view kPrefix = "fusion_";
constexpr std::size_t kIdDigits = 16, kSaltDigits = 32, kSecretDigits = 64, kDigestDigits = 64;
constexpr std::size_t kLongest = 256;  // bytes of a text that may be a token

std::string random_hex(std::size_t digits) {
  std::string bytes(digits / 2, '\0');
  if (RAND_bytes(reinterpret_cast<unsigned char*>(bytes.data()), static_cast<int>(bytes.size())) != 1) {
    throw ConfigError("the system's random generator gave nothing; no token was made");
  }
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (const unsigned char byte : bytes) {
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

bool is_hex(std::string_view text, std::size_t digits) {
  return text.size() == digits && text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

std::string digest_of(const std::string& salt, std::string_view secret) {
  Sha256 digest;
  digest.update(salt);
  digest.update(secret);
  return digest.hex();
}

TokenRecord read_record(JsonReader& reader) {
  TokenRecord record;
  record.id = reader.text("id");
  record.role = reader.choice<Role>("role");
  record.name = reader.text("name");
  record.created_ms = reader.integer("created_ms", 0, INT64_MAX, 0);
  record.salt = reader.text("salt");
  record.sha256 = reader.text("sha256");
  if (!is_hex(record.id, kIdDigits)) reader.fail("id", "expected 16 lower-case hexadecimal digits");
  if (!is_hex(record.salt, kSaltDigits)) reader.fail("salt", "expected 32 lower-case hexadecimal digits");
  if (!is_hex(record.sha256, kDigestDigits)) reader.fail("sha256", "expected 64 lower-case hexadecimal digits");
  reader.finish();
  return record;
}

}  // namespace

IssuedToken issue_token(Role role, const std::string& name, std::int64_t now_ms) {
  const std::string secret = random_hex(kSecretDigits);
  IssuedToken issued;
  issued.record = {random_hex(kIdDigits), role, name, now_ms, random_hex(kSaltDigits), ""};
  issued.record.sha256 = digest_of(issued.record.salt, secret);
  issued.text = std::string(kPrefix) + issued.record.id + "_" + secret;
  return issued;
}

TokenTable TokenTable::load(const std::filesystem::path& file) {
  const json document = parse_json(read_private(file, "tokens"), file.string());
  JsonProblems problems;
  JsonReader reader(document, file.string(), problems);
  reader.integer("version", 1, 1);
  TokenTable table;
  for (JsonReader& entry : reader.list("tokens", true)) {
    TokenRecord record = read_record(entry);
    if (table.has(record.id)) entry.fail("id", "\"" + record.id + "\" stands twice");
    table.add(std::move(record));
  }
  reader.raw("$comment");
  reader.finish();
  problems.throw_if_any();
  return table;
}

std::optional<TokenRecord> TokenTable::find(std::string_view token) const {
  static const TokenRecord kNobody{"", Role::read, "", 0, std::string(kSaltDigits, '0'), std::string(kDigestDigits, '0')};
  if (token.size() > kLongest) return std::nullopt;
  std::string_view id, secret;
  if (token.starts_with(kPrefix) && token.size() == kPrefix.size() + kIdDigits + 1 + kSecretDigits &&
      token[kPrefix.size() + kIdDigits] == '_') {
    id = token.substr(kPrefix.size(), kIdDigits);
    secret = token.substr(kPrefix.size() + kIdDigits + 1);
  }
  const auto found = records_.find(std::string(id));
  const TokenRecord& record = found == records_.end() ? kNobody : found->second;
  const std::string digest = digest_of(record.salt, secret);
  const bool equal = CRYPTO_memcmp(digest.data(), record.sha256.data(), kDigestDigits) == 0;
  if (!equal || found == records_.end()) return std::nullopt;
  return record;
}

void TokenTable::add(TokenRecord record) {
  std::string id = record.id;
  records_.insert_or_assign(std::move(id), std::move(record));
}

std::vector<TokenRecord> TokenTable::list() const {
  std::vector<TokenRecord> records;
  for (const auto& [id, record] : records_) records.push_back(record);
  std::ranges::stable_sort(records, {}, &TokenRecord::created_ms);
  return records;
}

void TokenTable::save(const std::filesystem::path& file) const {
  json entries = json::array();
  for (const TokenRecord& record : list()) {
    entries.push_back({{"id", record.id}, {"role", name_of(record.role)}, {"name", record.name}, {"created_ms", record.created_ms},
                       {"salt", record.salt}, {"sha256", record.sha256}});
  }
  write_private(file, json{{"version", 1}, {"tokens", entries}}.dump(2) + "\n", true);
}

}  // namespace fusion
