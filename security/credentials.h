#pragma once

#include <filesystem>
#include <string>

namespace fusion {

/// The token a client shows, "" for none: the first line of `file` if one is given, else the environment's FUSION_TOKEN, else the first line
/// of the file that FUSION_TOKEN_FILE names. Throws DataError for a file that cannot be read, ConfigError for one that others than its owner may read, and for a token that
/// has characters which cannot stand in an HTTP header.
std::string token_to_show(const std::filesystem::path& file);

/// The file of `--ca`, or else of the environment's FUSION_CA; empty for none.
std::string ca_file_or_environment(const std::string& given);

/// Throws ConfigError where a token would cross a network for everybody to read: `token` is not empty, there is no TLS, and `host` is not
/// loopback. (A tunnel, ssh -L, ends at loopback.)
void require_hidden_token(const std::string& token, bool tls, const std::string& host, const std::string& url);

}  // namespace fusion
