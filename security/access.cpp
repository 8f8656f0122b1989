#include "security/access.h"

#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"

namespace fusion {

namespace {

constexpr std::string_view kWorkerPath = "/api/v1/worker";
constexpr std::string_view kBlobs = "/api/v1/blobs/";
constexpr std::string_view kRetrainings = "/api/v1/retrainings/";

bool reads(std::string_view method) { return method == "GET" || method == "HEAD"; }

bool is_public(std::string_view method, std::string_view path) {
  return reads(method) && (path == "/api/v1/health" || path == "/healthz" || path == "/readyz");
}

/// "/api/v1/retrainings/<id>/files" and what is below it.
bool is_of_retraining_files(std::string_view path) {
  if (!path.starts_with(kRetrainings)) return false;
  path.remove_prefix(kRetrainings.size());
  const std::size_t slash = path.find('/');
  const std::string_view rest = slash == std::string_view::npos ? std::string_view() : path.substr(slash);
  return rest == "/files" || rest.starts_with("/files/");
}

bool allows(Role role, std::string_view method, std::string_view path) {
  if (path == kWorkerPath || is_of_retraining_files(path)) return role == Role::worker;
  if (role == Role::worker) return reads(method) && path.starts_with(kBlobs);
  if (role == Role::submit) return true;
  return reads(method) || (method == "POST" && path == "/api/v1/query");
}

std::string what_role_may(Role role) {
  switch (role) {
    case Role::read: return "it may read";
    case Role::submit: return "it may read and submit, but not work";
    case Role::worker: return "it may open /api/v1/worker, fetch /api/v1/blobs/... and use the files of its retraining";
  }
  return "";
}

/// The token of "Bearer TOKEN"; nothing if it is of another kind.
std::optional<std::string_view> bearer(std::string_view authorization) {
  constexpr std::string_view kScheme = "bearer ";
  if (authorization.size() < kScheme.size()) return std::nullopt;
  for (std::size_t i = 0; i < kScheme.size(); ++i) {
    const char c = authorization[i];
    if ((c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c) != kScheme[i]) return std::nullopt;
  }
  authorization.remove_prefix(kScheme.size());
  while (!authorization.empty() && authorization.front() == ' ') authorization.remove_prefix(1);
  while (!authorization.empty() && authorization.back() == ' ') authorization.remove_suffix(1);
  return authorization;
}

Admission refused(int status, std::string sentence) {
  Admission admission;
  admission.refused = status;
  admission.sentence = std::move(sentence);
  return admission;
}

Admission let_in(bool known, std::string token_id) {
  Admission admission;
  admission.known = known;
  admission.token_id = std::move(token_id);
  return admission;
}

}  // namespace

Access::Access(std::filesystem::path tokens_file, LoopbackRule rule) : file_(std::move(tokens_file)), rule_(rule) { reload(); }

Admission Access::admit(std::string_view authorization, std::string_view method, std::string_view path, const Peer& peer) const {
  const bool shown = !authorization.empty() && (has_tokens() || own_);
  if (shown) {
    const auto token = bearer(authorization);
    const auto record = token ? tokens_.find(*token) : std::nullopt;
    if (!record) return refused(401, "the token is not known here, or was revoked; expected `Authorization: Bearer TOKEN` with one of fusionctl tokens add");
    if (is_public(method, path) || allows(record->role, method, path)) return let_in(true, record->id);
    const std::string role(name_of(record->role));
    return refused(403, "the token \"" + record->name + "\" has the role " + role + ": " + what_role_may(record->role));
  }
  if (peer.loopback && rule_ == LoopbackRule::same_user) {
    if (peer.user && *peer.user == ::geteuid()) return let_in(true, "");
    if (is_public(method, path)) return let_in(false, "");
    const std::string who = peer.user ? "user " + std::to_string(*peer.user) : "a user that the kernel does not name";
    return refused(403, "without a token this daemon serves processes of its own user (" + std::to_string(::geteuid()) + ") only, the request comes from " +
                            who + "; its owner can make a token with fusionctl tokens add");
  }
  if (is_public(method, path)) return let_in(false, "");
  return refused(401, "a token is wanted: `Authorization: Bearer TOKEN`; fusionctl takes it by --token-file or FUSION_TOKEN, fusionctl tokens add makes one");
}

Access::Stamp Access::stamp_of(const std::filesystem::path& file) {
  struct stat status {};
  if (::stat(file.c_str(), &status) != 0) return {};
  return {status.st_dev, status.st_ino, static_cast<std::uint64_t>(status.st_size), status.st_ctim.tv_sec * 1'000'000'000 + status.st_ctim.tv_nsec};
}

bool Access::reload_if_changed() {
  if (file_.empty() || stamp_of(file_) == stamp_) return false;
  reload();
  return true;
}

void Access::reload() {
  if (file_.empty()) return;
  stamp_ = stamp_of(file_);  // before it is read: what changes meanwhile is seen the next time
  TokenTable read = TokenTable::load(file_);
  if (own_) read.add(own_->record);
  tokens_ = std::move(read);
}

std::string Access::local_worker_token() {
  if (!own_) {
    own_ = issue_token(Role::worker, "local workers", SystemClock().unix_ms());
    tokens_.add(own_->record);
  }
  return own_->text;
}

}  // namespace fusion
