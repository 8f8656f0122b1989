// fusion-data: builds datasets, trains backbones, extracts or imports features. Every subcommand may be run again: it does what is
// left to do.
#include <cstdlib>  // defines __GLIBC__ where that is the C library
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "base/version.h"
#include "tools/data_commands.h"
#include "tools/run_main.h"

namespace {

/// A network's activations are large and short-lived. By default the C library hands such memory back to the system at every step and
/// takes it again page by page, which on AV-MNIST's audio costs more than half of the time. Before any thread starts.
void keep_freed_memory() {
#ifdef __GLIBC__
  ::mallopt(M_ARENA_MAX, 1);
  ::mallopt(M_MMAP_THRESHOLD, 1 << 30);
  ::mallopt(M_TRIM_THRESHOLD, 2'000'000'000);
  ::mallopt(M_TOP_PAD, 64 << 20);
#endif
}

}  // namespace

int main(int argc, char** argv) {
  keep_freed_memory();
  CLI::App app("Datasets, backbones and features for Fusiond (docs/data.md)", "fusion-data");
  app.set_version_flag("--version", fusion::kCodeVersion);
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
