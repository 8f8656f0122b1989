#include "tools/ctl/commands.h"

#include <cmath>
#include <limits>

#include "base/error.h"
#include "security/credentials.h"

namespace fusion::ctl {

HttpClient Context::client() const {
  const Credentials credentials{token_to_show(token_file), ca_file_or_environment(ca_file)};
  return HttpClient(Url::parse(url), std::chrono::milliseconds(std::llround(timeout_s * 1000)), credentials);
}

std::string study_path(std::int64_t study) { return "/api/v1/studies/" + std::to_string(study); }

CLI::Option* add_id(CLI::App* command, const std::string& name, std::int64_t& id, const std::string& help) {
  const CLI::Validator positive(
      [name](std::string& text) {
        const bool digits = !text.empty() && text.size() < 19 && text.find_first_not_of("0123456789") == std::string::npos;
        return digits && text.find_first_not_of('0') != std::string::npos ? std::string()
                                                                         : "expected a number of at least 1, got \"" + text + "\"";
      },
      "", name);
  return command->add_option(name, id, help)->check(positive);
}

CLI::Option* add_retraining_id(CLI::App* command, std::int64_t& id) {
  return add_id(command, "--retraining", id, "a retraining, in place of the id");
}

void require_one_id(std::int64_t id, std::int64_t retraining, const std::string& command, const std::string& name) {
  if ((id > 0) != (retraining > 0)) return;
  throw ConfigError(command + ": expected either " + name + " or --retraining N, got " + (id > 0 ? "both" : "neither") +
                    "; " + name + " is required where there is no --retraining");
}

bool printed_as_json(const Context& context, const Answer& answer) {
  if (!context.json) return false;
  std::string_view body = answer.body;
  while (!body.empty() && (body.back() == '\n' || body.back() == '\r' || body.back() == ' ')) body.remove_suffix(1);
  print_line(body);
  return true;
}

}  // namespace fusion::ctl
