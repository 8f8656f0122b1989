#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <memory>
#include <optional>

#include "base/error.h"
#include "base/files.h"
#include "base/progress.h"
#include "store/backup.h"
#include "tools/ctl/commands.h"
#include "tools/ctl/figures.h"

namespace fusion::ctl {

using nlohmann::json;
namespace fs = std::filesystem;

namespace {

constexpr std::chrono::hours kLimit{12};  // of the daemon's copying and of the way to here

struct BackupOptions {
  std::string file, database;
  bool force = false;
};

/// What may not be overwritten, or would be taken for a part of the backup.
void check_target(const BackupOptions& options) {
  const fs::path file = options.file;
  std::error_code ignored;
  if (fs::is_directory(file, ignored)) throw ConfigError(options.file + ": is a folder; name the file in it that the backup shall be");
  if (!options.database.empty() && fs::equivalent(file, options.database, ignored)) {
    throw ConfigError(options.file + ": is the database itself; name another file");
  }
  for (const char* companion : {"-wal", "-journal"}) {
    if (!fs::exists(options.file + companion, ignored)) continue;
    throw ConfigError(options.file + ": " + options.file + companion + " lies beside it: a database that is in use, or was not closed; name another file");
  }
  if (!options.force && fs::exists(fs::symlink_status(file, ignored))) {
    throw ConfigError(options.file + ": there is a file of that name already; name another one, or have it replaced with --force");
  }
}

/// Drawn on terminals only; the total is known once the first bytes are there.
class BackupBar {
 public:
  void set(std::uint64_t bytes, std::uint64_t total) {
    const auto megabytes = [](std::uint64_t count) { return static_cast<std::int64_t>((count + 999'999) / 1'000'000); };
    if (!bar_) bar_.emplace("backup", megabytes(total), "MB", isatty(STDERR_FILENO) == 0);
    bar_->set(megabytes(bytes));
  }
  void finish() {
    if (bar_) bar_->finish();
  }

 private:
  std::optional<Progress> bar_;
};

void copy(const Context& context, const BackupOptions& options, const std::string& part) {
  BackupBar bar;
  if (options.database.empty()) {
    context.client().with_timeout_of_at_least(kLimit).download("/api/v1/backup", part, [&bar](std::uint64_t bytes, std::uint64_t total) { bar.set(bytes, total); });
  } else {
    copy_database(options.database, part, [&bar](std::int64_t done, std::int64_t pages) {
      bar.set(static_cast<std::uint64_t>(done) * 4096, static_cast<std::uint64_t>(pages) * 4096);
    });
  }
  bar.finish();
}

int backup(const Context& context, const BackupOptions& options) {
  check_target(options);
  const std::string part = options.file + ".part." + std::to_string(::getpid());
  DatabaseFacts facts;
  try {
    copy(context, options, part);
    facts = verify_database(part);
    publish_file(part, options.file, options.force);
  } catch (...) {
    std::error_code ignored;
    fs::remove(part, ignored);
    throw;
  }
  if (context.json) {
    print_line(json{{"file", options.file}, {"bytes", facts.bytes}, {"schema", facts.schema}, {"studies", facts.studies}, {"trials", facts.trials},
                    {"retrainings", facts.retrainings}, {"verified", true}}.dump(-1, ' ', false, json::error_handler_t::replace));
  } else {
    print_line(options.file + ": " + grouped(std::to_string(facts.bytes)) + " bytes, " + std::to_string(facts.studies) + (facts.studies == 1 ? " study, " : " studies, ") +
               plural(facts.trials, "trial") + ", " + plural(facts.retrainings, "retraining") + "; every page was read again and is sound");
  }
  return 0;
}

}  // namespace

void add_backup_command(CLI::App& app, Context& context) {
  auto options = std::make_shared<BackupOptions>();
  CLI::App* command = add_command(app, context, "backup", "Copy the daemon's database, as it is at one moment, into a file", options, backup);
  command->add_option("FILE", options->file, "the copy; it is read again and checked before it gets this name")->required();
  command->add_option("--db", options->database, "copy this database, without asking a daemon; one may be using it")->check(CLI::ExistingFile);
  command->add_flag("--force", options->force, "replace a file of that name");
}

}  // namespace fusion::ctl
