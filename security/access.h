#pragma once

#include <sys/types.h>

#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "security/tokens.h"

namespace fusion {

/// Who may come without a token over loopback.
enum class LoopbackRule {
  same_user,  ///< processes of the daemon's own user: the kernel says whose the peer's socket is
  token,      ///< nobody
};
template <>
struct EnumNames<LoopbackRule> {
  static constexpr std::array<std::pair<LoopbackRule, std::string_view>, 2> kTable{
      {{LoopbackRule::same_user, "same_user"}, {LoopbackRule::token, "token"}}};
  static constexpr std::string_view kWhat = "loopback rule";
};

/// Where a connection comes from.
struct Peer {
  bool loopback = false;
  std::optional<uid_t> user;  ///< of a loopback peer, where the kernel tells
};

/// What was decided of one request.
struct Admission {
  int refused = 0;       ///< 0: let in; else 401 (nobody known) or 403 (known, but not for this)
  std::string sentence;  ///< of the refusal
  std::string token_id;  ///< of the token that was shown; empty for the daemon's own user and for nobody
  bool known = false;    ///< a valid token, or the daemon's own user; false: only what says nothing secret
};

/// Closed by default: decides of each request whether it is let in (docs/security.md has the table of roles).
///
/// `/api/v1/health`, `/healthz` and `/readyz` are for everybody. `/api/v1/worker` and `/api/v1/retrainings/<id>/files` are for the role worker alone, which
/// may fetch `/api/v1/blobs/...` too and nothing else. GET, HEAD and `POST /api/v1/query` (one statement, read-only) are for read and submit, everything
/// else for submit. The daemon's own user over loopback may all of it, if the rule is `same_user`. Without a tokens file no token is
/// looked at. Lives on the I/O thread.
class Access {
 public:
  /// No tokens; loopback of the same user.
  Access() = default;
  /// Reads the file (empty: there is none); throws as TokenTable::load.
  Access(std::filesystem::path tokens_file, LoopbackRule rule);

  Admission admit(std::string_view authorization, std::string_view method, std::string_view path, const Peer& peer) const;

  /// Reads the file again. Throws as TokenTable::load, and keeps what it had. What was revoked is not let in any more; sessions that are
  /// open are the server's to close (`Server::close_revoked`).
  void reload();
  /// The same where the file is another one than was read last, by its inode, size and time of change. Returns whether it was read.
  /// One that cannot be read throws once, then only after it changed again.
  bool reload_if_changed();
  /// Whether a session that began with this token may go on. Empty (the daemon's own user): yes.
  bool is_valid(const std::string& token_id) const { return token_id.empty() || tokens_.has(token_id); }

  /// A token of role worker for the daemon's own worker processes, made once per run and kept in memory only.
  std::string local_worker_token();

  LoopbackRule rule() const { return rule_; }
  bool has_tokens() const { return !file_.empty(); }
  /// Those of the file.
  std::size_t tokens() const { return tokens_.size() - (own_ ? 1 : 0); }

 private:
  struct Stamp {  // of the file
    std::uint64_t device = 0, inode = 0, bytes = 0;
    std::int64_t changed_ns = 0;
    bool operator==(const Stamp&) const = default;
  };
  static Stamp stamp_of(const std::filesystem::path& file);

  std::filesystem::path file_;
  Stamp stamp_;
  LoopbackRule rule_ = LoopbackRule::same_user;
  TokenTable tokens_;
  std::optional<IssuedToken> own_;
};

}  // namespace fusion
