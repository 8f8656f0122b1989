#include <cstdio>
#include <memory>
#include <vector>

#include "base/progress.h"
#include "tools/data_commands.h"
#include "workers/data/toy.h"

namespace fusion {

namespace {

struct ToyCommand {
  std::string out;
  std::vector<std::int64_t> rows{16000, 2000, 2000};
  std::uint64_t seed = 0;
  bool quiet = false;

  void run() const {
    const ToyOptions options{rows[0], rows[1], rows[2], seed};
    Progress progress("toy", rows[0] + rows[1] + rows[2], "rows", quiet);
    const std::string digest = make_toy(out, options, [&](std::int64_t done) { progress.set(done); });
    progress.finish();
    std::printf("%s/dataset.json: %lld train, %lld dev and %lld test rows\ndigest %s\n", out.c_str(),
                static_cast<long long>(rows[0]), static_cast<long long>(rows[1]), static_cast<long long>(rows[2]), digest.c_str());
  }
};

}  // namespace

void add_toy_command(CLI::App& app) {
  CLI::App* const command = app.add_subcommand("toy", "draw the built-in toy set: digits seen and heard, and a bit that only both together tell");
  const auto options = std::make_shared<ToyCommand>();
  command->add_option("--out", options->out, "folder to write to")->required();
  command->add_option("--seed", options->seed, "seed of every draw (0)");
  command->add_option("--rows", options->rows, "rows of train,dev,test (16000,2000,2000)")
      ->delimiter(',')
      ->expected(3)
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{10'000'000}));
  command->add_flag("--quiet", options->quiet, "no progress bar");
  command->callback([options] { options->run(); });
}

}  // namespace fusion
