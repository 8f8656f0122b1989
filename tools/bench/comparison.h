#pragma once

#include <cstddef>
#include <string>

#include "tools/bench/engine_run.h"
#include "tools/bench/rounds.h"
#include "tools/bench/shape.h"

namespace fusion::bench {

struct ComparisonOptions {
  EngineRun engine;
  std::size_t architectures = 8;
  double cpu_s = 4;  ///< of this process per shape; at least kLeastRounds rounds are made whatever they cost
  std::string python = "/usr/bin/python3";
  std::string script;  ///< naive_loop.py
};
inline constexpr std::size_t kLeastRounds = 3;

/// CPU seconds per training step of one candidate, averaged over the same architectures, round by round.
struct Comparison {
  Shape shape;
  Rounds engine, naive, python;  ///< python: empty where it is not there
  Rounds gemm_rate;              ///< operations per second of the 512-cube product
  double flops_per_step = 0;     ///< of the step's matrix products

  Rounds vs_libtorch() const { return quotients(naive, engine); }
  Rounds vs_python() const { return quotients(python, engine); }
  Rounds gemm_share() const;
};

/// Largest difference between the engine's and the naive loop's mean training loss, relative where losses are above 1, over all
/// architectures, without dropout: of the first step, of the first 20, and of a whole epoch of the shape. The engine divides its sum by
/// the rows of the epoch, so rows that it left out would show.
struct LossCheck {
  double first_step = 0, first_20_steps = 0;
  double epoch = 0;  ///< 0 where it was not asked for
  bool passed() const { return first_step < 1e-5 && first_20_steps < 5e-5 && epoch < 1e-3; }
};

/// `whole_epoch`: the naive loop takes some seconds for it.
LossCheck check_losses(const Shape& shape, const ComparisonOptions& options, bool whole_epoch);

/// Methods take turns in short rounds, each round beginning with another one.
Comparison compare(const Shape& shape, const ComparisonOptions& options);

}  // namespace fusion::bench
