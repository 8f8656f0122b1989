#include <memory>

#include "base/clock.h"
#include "base/error.h"
#include "security/certificates.h"
#include "security/private_file.h"
#include "security/tokens.h"
#include "tools/ctl/commands.h"
#include "tools/ctl/figures.h"
#include "tools/ctl/table.h"

namespace fusion::ctl {

using nlohmann::json;

namespace {

constexpr const char* kTokensFile = "tokens.json";

struct TokensOptions {
  std::string file = kTokensFile;
  std::string role, name, id;
};

json json_of(const TokenRecord& record) {
  return {{"id", record.id}, {"role", name_of(record.role)}, {"name", record.name}, {"created_ms", record.created_ms}};
}

int certs(const Context& context, const CertificateOrder& order) {
  const CertificateFiles files = make_certificates(order);
  if (context.json) {
    print_line(json{{"ca", files.authority.string()}, {"ca_key", files.authority_key.string()}, {"new_ca", files.new_authority},
                    {"certificate", files.certificate.string()}, {"key", files.key.string()}, {"names", files.names},
                    {"expires", files.expires}}.dump());
    return 0;
  }
  std::string names;
  for (const std::string& name : files.names) names += (names.empty() ? "" : " ") + name;
  Facts facts;
  facts.add("authority", files.authority.string() + (files.new_authority ? " (new)" : " (was there)"));
  facts.add("certificate", files.certificate.string());
  facts.add("key", files.key.string());
  facts.add("names", names);
  facts.add("expires", files.expires);
  print(facts.text());
  say("for the daemon: --tls-certificate " + files.certificate.string() + " --tls-key " + files.key.string());
  say("for workers and fusionctl: --ca " + files.authority.string() + " (copy it to them; keep " + files.authority_key.string() + " to yourself)");
  return 0;
}

TokenTable load_or_new(const std::string& file) { return std::filesystem::exists(file) ? TokenTable::load(file) : TokenTable(); }

int tokens_add(const Context& context, const TokensOptions& options) {
  const auto role = enum_from_name<Role>(options.role);
  if (!role) throw ConfigError("--role: expected one of " + enum_choices<Role>() + ", got \"" + options.role + "\"");
  const FolderLock lock(options.file);
  TokenTable table = load_or_new(options.file);
  const IssuedToken issued = issue_token(*role, options.name, SystemClock().unix_ms());
  table.add(issued.record);
  table.save(options.file);
  if (context.json) {
    json entry = json_of(issued.record);
    entry["token"] = issued.text;
    print_line(entry.dump(-1, ' ', false, json::error_handler_t::replace));
    return 0;
  }
  print_line(issued.text);
  say("that is the token " + issued.record.id + " of role " + options.role + "; it is shown this once and stored nowhere. Put it into a file of mode 0600 for "
      "--token-file or FUSION_TOKEN_FILE, or into FUSION_TOKEN. A running daemon takes it up within seconds");
  return 0;
}

int tokens_list(const Context& context, const TokensOptions& options) {
  const std::vector<TokenRecord> records = TokenTable::load(options.file).list();
  if (context.json) {
    json list = json::array();
    for (const TokenRecord& record : records) list.push_back(json_of(record));
    print_line(json{{"tokens", list}}.dump(-1, ' ', false, json::error_handler_t::replace));
    return 0;
  }
  if (records.empty()) {
    say("there is no token in " + options.file);
    return 0;
  }
  Table table({{"id"}, {"role"}, {"name", Align::left, true}, {"created"}});
  for (const TokenRecord& record : records) {
    table.add({record.id, std::string(name_of(record.role)), record.name, time_text(record.created_ms)});
  }
  print(table.text(context.terminal()));
  return 0;
}

int tokens_revoke(const Context& context, const TokensOptions& options) {
  const FolderLock lock(options.file);
  TokenTable table = TokenTable::load(options.file);
  if (!table.remove(options.id)) {
    throw ConfigError("there is no token \"" + options.id + "\" in " + options.file + "; fusionctl tokens list names them");
  }
  table.save(options.file);
  if (context.json) print_line(json{{"revoked", options.id}}.dump(-1, ' ', false, json::error_handler_t::replace));
  else say("the token " + options.id + " was revoked; a running daemon takes that up within seconds, and closes its workers");
  return 0;
}

void add_certs(CLI::App& app, Context& context) {
  auto order = std::make_shared<CertificateOrder>();
  CLI::App* command = add_command(app, context, "certs", "make a private authority and a server certificate for TLS", order, certs);
  command->add_option("--out", order->folder, "folder of the files; an authority that is there is used again")->required();
  command->add_option("--host", order->hosts, "a name or address that the daemon is reached by; may stand more than once, the first names the files")
      ->required();
  command->add_option("--days", order->days, "days the certificate is valid")->capture_default_str();
  command->add_option("--ca-days", order->authority_days, "days a new authority is valid")->capture_default_str();
  command->add_flag("--force", order->force, "replace the host's certificate and key (never the authority)");
}

CLI::App* add_tokens_command(CLI::App& tokens, Context& context, const std::string& name, const std::string& help,
                             const std::shared_ptr<TokensOptions>& options, int (*run)(const Context&, const TokensOptions&)) {
  CLI::App* command = add_command(tokens, context, name, help, options, run);
  command->add_option("--file", options->file, "the tokens file, mode 0600; add creates it")->capture_default_str();
  return command;
}

}  // namespace

void add_security_commands(CLI::App& app, Context& context) {
  add_certs(app, context);
  CLI::App* tokens = app.add_subcommand("tokens", "make, list and revoke the tokens that a daemon lets in");
  tokens->fallthrough();
  tokens->require_subcommand(1);
  auto added = std::make_shared<TokensOptions>(), listed = std::make_shared<TokensOptions>(), revoked = std::make_shared<TokensOptions>();
  CLI::App* add = add_tokens_command(*tokens, context, "add", "make a token and print it, once", added, tokens_add);
  add->add_option("--role", added->role, "submit (may read too), worker, or read")->required();
  add->add_option("--name", added->name, "whose it is, for people")->required();
  add_tokens_command(*tokens, context, "list", "the tokens of a file, without the tokens", listed, tokens_list);
  CLI::App* revoke = add_tokens_command(*tokens, context, "revoke", "take a token out of the file", revoked, tokens_revoke);
  revoke->add_option("ID", revoked->id, "as list names it")->required();
}

}  // namespace fusion::ctl
