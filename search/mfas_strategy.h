#pragma once

#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "search/duplicates.h"
#include "search/proposal_ledger.h"
#include "search/strategy.h"
#include "search/temperature.h"
#include "surrogate/observation_set.h"
#include "surrogate/surrogate.h"

namespace fusion {

/// Defaults are the reference's, but for `duplicates`.
struct MfasOptions {
  int samples = 15;                 ///< K: networks trained in each step after the first
  TemperatureSchedule temperature;  ///< holds iterations and levels too
  Duplicates duplicates = Duplicates::distinct;

  /// Reads iterations, levels, samples, initial_temperature, final_temperature, temperature_decay, temperature_counter,
  /// duplicates. Levels are at most the space's longest network, which is also the default (at most 4).
  static MfasOptions read(JsonReader& reader, const SearchSpace& space);
};

/// Progressive search with a surrogate and a falling temperature (Perez-Rua et al., "MFAS: Multimodal Fusion
/// Architecture Search", CVPR 2019), step by step as in the authors' code.
///
/// A step is one level of one iteration. The first trains every one-step network; K of them, drawn by their scores,
/// survive. Every other step expands the survivors at its level (expansion.h), predicts all of them, draws K by their
/// predictions and the temperature (temperature.h) and trains those, which survive. After each step the surrogate is
/// fitted to all scores so far, taken in the order of proposals. So iteration 0 grows networks, later ones refine them
/// one step at a time.
///
/// Differs from the reference:
/// - `duplicates` is distinct by default: equal candidates count once and networks proposed before are left out, so
///   nothing is trained twice; on AV-MNIST 30 + 11 x 15 = 195 different networks. `reference` keeps all and may train
///   some again.
/// - A trial without a score counts as never made: it is not stored and does not survive. If none of a step survives,
///   the survivors of the step before go on; if the first step has none, the search ends. A step without candidates is
///   passed over.
class MfasStrategy final : public Strategy {
 public:
  MfasStrategy(SearchSpace space, const MfasOptions& options, std::unique_ptr<Surrogate> surrogate, std::uint64_t seed);

  /// The surrogate learns it from its first fit on.
  void observe(const Architecture& architecture, double score) override { store_.add(architecture, score); }
  std::vector<Proposal> ask(std::size_t count) override;
  /// Throws Error if the architecture is not the one proposed there. The last end of a step fits the surrogate and
  /// draws the next.
  void tell(const Told& ended) override;
  bool finished() const override { return ended_ && ledger_.none_outstanding(); }
  /// What there will be if every trial gets a score; what was asked once finished. Defaults on AV-MNIST: 195.
  std::optional<std::uint64_t> total() const override;
  std::vector<FitRecord> take_fit_records() override;
  std::string_view name() const override { return "mfas"; }

 private:
  struct StepTrial {
    Architecture architecture;
    int replica = 0;
    std::optional<double> prediction;  ///< absent in the first step
    std::optional<double> score;       ///< absent until told completed
  };

  int iteration() const { return step_ / options_.temperature.levels; }
  int level() const { return step_ % options_.temperature.levels; }
  bool first_step() const { return step_ == 0; }
  void add_trial(const Architecture& architecture, std::optional<double> prediction);
  std::vector<Architecture> candidates() const;
  void begin_step();
  void finish_step();
  void choose_survivors();
  void fit();
  std::vector<std::size_t> draw(std::span<const double> scores) const;
  std::uint64_t planned() const;

  const SearchSpace space_;
  const MfasOptions options_;
  const std::uint64_t seed_;
  const int steps_;
  const std::uint64_t planned_;
  std::unique_ptr<Surrogate> surrogate_;

  ProposalLedger ledger_;
  ObservationSet store_;
  std::map<Architecture, int> times_proposed_;
  std::vector<Architecture> survivors_;  ///< in the order drawn
  std::vector<FitRecord> fit_records_;
  int fits_ = 0;
  bool ended_ = false;

  int step_ = 0;
  std::vector<StepTrial> trials_;  ///< of this step, in order of proposal
  std::int64_t first_index_ = 0;   ///< ask_index of trials_[0]
};

}  // namespace fusion
