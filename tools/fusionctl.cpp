// The client: turns a command line into requests of docs/protocol.md, and answers into tables. docs/fusionctl.md is its manual.
#include <algorithm>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "base/json_reader.h"
#include "base/version.h"
#include "tools/ctl/commands.h"
#include "tools/ctl/simulate_command.h"
#include "tools/run_main.h"

namespace {

using fusion::ctl::Context;

void add_shared_options(CLI::App& app, Context& context) {
  app.add_option("--url", context.url, "where the daemon listens")->envname("FUSION_URL")->capture_default_str();
  app.add_option("--token-file", context.token_file, "a file with the token to show, mode 0600 (or the variables FUSION_TOKEN, FUSION_TOKEN_FILE)");
  app.add_option("--ca", context.ca_file, "for https: a PEM file with the authority of the daemon's certificate (or the variable FUSION_CA)");
  app.add_flag("--json", context.json, "print the daemon's answer as it came, one JSON object, and nothing else");
  app.add_flag("--no-color", context.no_color, "no bold, no colours (so does the variable NO_COLOR)");
  app.add_option("--timeout", context.timeout_s, "seconds an answer may take")
      ->capture_default_str()
      ->check(CLI::Range(0.01, 86'400.0));
  app.set_version_flag("--version", std::string("fusionctl ") + fusion::kCodeVersion);
}

/// "healht is not a command; did you mean health?", else what the parser says.
std::string wrong_command_line(const CLI::App* app, const CLI::Error& error) {
  std::string sentence = error.what();
  const std::vector<std::string> rest = app->remaining();
  if (app->get_subcommands().empty() && !rest.empty() && !rest[0].starts_with('-')) {
    std::set<std::string, std::less<>> known;
    for (const CLI::App* command : app->get_subcommands([](const CLI::App*) { return true; })) known.insert(command->get_name());
    const auto near = fusion::nearest_name(rest[0], known);
    sentence = "\"" + rest[0] + "\" is not a command" + (near ? "; did you mean " + *near + "?" : "");
  }
  return "fusionctl: " + sentence + "\nfusionctl: --help lists what is known.\n";
}

/// What the daemon could not do ends with status 1, a sentence a line.
int run_command(const Context& context) {
  int status = 1;
  try {
    status = context.chosen();
  } catch (const fusion::ctl::DaemonFailure& failure) {
    const std::string text = failure.what();
    for (std::size_t at = 0; at <= text.size();) {
      const std::size_t end = std::min(text.find('\n', at), text.size());
      fusion::ctl::say(text.substr(at, end - at));
      at = end + 1;
    }
  }
  if (!fusion::ctl::stdout_is_whole()) {
    fusion::ctl::say("stdout could not be written in full.");
    return 1;
  }
  return status;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("fusionctl: submit, follow and question studies of a fusiond", "fusionctl");
  app.footer("Exit status: 0 done; 1 the daemon cannot be reached or failed, or (watch) what was watched failed or was cancelled, or (replay) a "
             "difference was found; 2 bad input: the command line, a file, whatever the daemon refused.");
  Context context;
  add_shared_options(app, context);
  fusion::ctl::add_study_commands(app, context);
  fusion::ctl::add_fork_command(app, context);
  fusion::ctl::add_trial_commands(app, context);
  fusion::ctl::add_retraining_commands(app, context);
  fusion::ctl::add_daemon_commands(app, context);
  fusion::ctl::add_backup_command(app, context);
  fusion::ctl::add_replay_command(app, context);
  fusion::ctl::add_simulate_command(app, context);
  fusion::ctl::add_security_commands(app, context);
  app.require_subcommand(1);
  app.failure_message(wrong_command_line);
  return fusion::run_main("fusionctl", app, argc, argv, [&context] { return run_command(context); });
}
