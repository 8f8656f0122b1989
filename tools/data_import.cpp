#include <cstdio>
#include <memory>

#include "tools/data_commands.h"
#include "tools/data_tables.h"
#include "workers/data/import_features.h"

namespace fusion {

void add_import_command(CLI::App& app) {
  CLI::App* const command = app.add_subcommand("import", "make features.json of features you already have");
  struct Options {
    std::string specification, out;
    TapType dtype = TapType::f32;
  };
  const auto options = std::make_shared<Options>();
  command->add_option("specification", options->specification, "import.json: which file holds which tap (docs/data.md)")->required();
  command->add_option("--out", options->out, "folder to write features.json and its files to")->required();
  add_dtype_option(*command, options->dtype);
  command->callback([options] {
    const ImportResult result = import_features(options->specification, options->out, options->dtype);
    print_baselines(result.manifest);
    for (const auto& [split, rows] : result.manifest.spec.rows) {
      std::printf("%s: %lld rows\n", split.c_str(), static_cast<long long>(rows));
    }
    std::printf("%s\ndigest %s\n", result.file.c_str(), result.digest.c_str());
  });
}

}  // namespace fusion
