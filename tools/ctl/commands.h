#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <functional>
#include <string>

#include "tools/ctl/http_client.h"
#include "tools/ctl/terminal.h"
#include "tools/ctl/watch.h"

namespace fusion::ctl {

/// What all commands share: the options before or behind the command's name, and the command that was chosen.
struct Context {
  std::string url = "http://127.0.0.1:7878";
  bool json = false;
  bool no_color = false;
  double timeout_s = 30;
  std::string token_file;  ///< empty: FUSION_TOKEN
  std::string ca_file;     ///< empty: FUSION_CA, then the system's authorities
  std::function<int()> chosen;  ///< set by the parser; returns the program's status

  HttpClient client() const;
  Terminal terminal() const { return Terminal::of_stdout(no_color); }
};

/// Adds the commands to the program. `context` must outlive the app; options of a command live as long as the app.
void add_study_commands(CLI::App& app, Context& context);   ///< submit validate list status watch fits export pause resume cancel
void add_fork_command(CLI::App& app, Context& context);     ///< fork
void add_trial_commands(CLI::App& app, Context& context);   ///< best trials show
void add_retraining_commands(CLI::App& app, Context& context);  ///< retrain retrainings evaluate
void add_daemon_commands(CLI::App& app, Context& context);  ///< query workers events health shutdown
void add_backup_command(CLI::App& app, Context& context);   ///< backup: of a daemon's database, or of a file
void add_replay_command(CLI::App& app, Context& context);   ///< replay: reads a file, asks no daemon
void add_security_commands(CLI::App& app, Context& context);  ///< certs tokens: they work on files, without a daemon

// For the files of commands:

/// A command with a line of help. `run` is called after the whole command line was read, with what `options` holds then.
template <typename Options>
CLI::App* add_command(CLI::App& app, Context& context, const std::string& name, const std::string& help,
                      std::shared_ptr<Options> options, int (*run)(const Context&, const Options&)) {
  CLI::App* command = app.add_subcommand(name, help);
  command->fallthrough();
  command->callback([&context, options, run] { context.chosen = [&context, options, run] { return run(context, *options); }; });
  return command;
}

/// `/api/v1/studies/7`
std::string study_path(std::int64_t study);

/// Requires a positive integer, named for people ("ID", "TRIAL").
CLI::Option* add_id(CLI::App* command, const std::string& name, std::int64_t& id, const std::string& help);

/// Adds `--retraining N`, which stands in place of the command's own id.
CLI::Option* add_retraining_id(CLI::App* command, std::int64_t& id);
/// Throws ConfigError unless exactly one of them is given.
void require_one_id(std::int64_t id, std::int64_t retraining, const std::string& command, const std::string& name);

// What commands do where --retraining stands for the id:
int show_retraining(const Context& context, std::int64_t id);
int watch_retraining(const Context& context, std::int64_t id, WatchOptions how);
int change_retraining(const Context& context, std::int64_t id, const std::string& action);
int export_retraining(const Context& context, std::int64_t id, const std::string& format, const std::string& output);

/// With --json prints the answer as it came and returns true.
bool printed_as_json(const Context& context, const Answer& answer);

}  // namespace fusion::ctl
