#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/enum_names.h"

namespace fusion {

/// What the bearer of a token may do (docs/security.md). `submit` may all that `read` may; `worker` may nothing of theirs.
enum class Role { read, submit, worker };
template <>
struct EnumNames<Role> {
  static constexpr std::array<std::pair<Role, std::string_view>, 3> kTable{
      {{Role::read, "read"}, {Role::submit, "submit"}, {Role::worker, "worker"}}};
  static constexpr std::string_view kWhat = "role";
};

/// One token as the file keeps it: what it takes to recognise the token, not the token.
struct TokenRecord {
  std::string id;  ///< 16 hexadecimal digits; no secret: it stands in logs and lists
  Role role = Role::read;
  std::string name;  ///< whose it is, for people
  std::int64_t created_ms = 0;
  std::string salt;    ///< 32 hexadecimal digits
  std::string sha256;  ///< of salt + secret

  bool operator==(const TokenRecord&) const = default;
};

struct IssuedToken {
  TokenRecord record;
  std::string text;  ///< "fusion_<id>_<secret>": shown once, stored nowhere
};

/// A token of 256 random bits from the system's generator.
///
/// The file keeps SHA-256 of a salt and the secret. That is enough, because the secret is random: nobody can try 2^256 of them, so the slow
/// hashes that passwords need would only make each request slow. The salt keeps equal entries of two files from looking equal.
IssuedToken issue_token(Role role, const std::string& name, std::int64_t now_ms);

/// The tokens that are valid. A value: a reload replaces it.
class TokenTable {
 public:
  TokenTable() = default;
  /// Reads a tokens file. Throws ConfigError with every problem (a mode that is not 0600, wrong JSON, an id twice), DataError if it cannot be read.
  static TokenTable load(const std::filesystem::path& file);

  /// The token's record if it is valid. Takes the same time for each text of the same length, whether its id is known or not: one hash
  /// and one comparison of constant time (the id is no secret and may be looked up as it comes).
  std::optional<TokenRecord> find(std::string_view token) const;
  bool has(const std::string& id) const { return records_.contains(id); }
  void add(TokenRecord record);
  bool remove(const std::string& id) { return records_.erase(id) > 0; }
  std::vector<TokenRecord> list() const;  ///< the oldest first
  std::size_t size() const { return records_.size(); }

  /// Writes the file, mode 0600, in one step.
  void save(const std::filesystem::path& file) const;

 private:
  std::map<std::string, TokenRecord> records_;
};

}  // namespace fusion
