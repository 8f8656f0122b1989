// fusion-data: builds datasets, trains backbones, extracts or imports features. Every subcommand may be run again: it does what is
// left to do.
#include "base/version.h"
#include "tools/data_commands.h"
#include "tools/keep_freed_memory.h"
#include "tools/run_main.h"

int main(int argc, char** argv) {
  fusion::keep_freed_memory();
  CLI::App app("Datasets, backbones and features for Fusiond (docs/data.md)", "fusion-data");
  app.set_version_flag("--version", fusion::kCodeVersion);
  app.footer("Exit status: 0 done; 1 an internal error; 2 bad input, each problem on a line, and nothing was changed.");
  app.require_subcommand(1);
#ifdef FUSION_WITH_AVMNIST
  fusion::add_avmnist_command(app);
#endif
  fusion::add_toy_command(app);
  fusion::add_train_backbones_command(app);
  fusion::add_extract_command(app);
  fusion::add_import_command(app);
  fusion::add_info_command(app);
  fusion::add_inspect_command(app);
  return fusion::run_main("fusion-data", app, argc, argv, [] { return 0; });
}
