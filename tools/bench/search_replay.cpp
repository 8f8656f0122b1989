#include "tools/bench/search_replay.h"

#include <memory>

#include "base/random.h"
#include "search/mfas_strategy.h"
#include "surrogate/lstm_surrogate.h"
#include "tools/bench/avmnist_space.h"
#include "tools/bench/cpu_clock.h"

namespace fusion::bench {
namespace {

class TimedSurrogate final : public Surrogate {
 public:
  TimedSurrogate(const SearchSpace& space, SearchReplay& times) : surrogate_(space, {}), times_(times) {}

  FitReport fit(std::span<const Observation> observations) override {
    const double begin = cpu_seconds();
    FitReport report = surrogate_.fit(observations);
    times_.fit_cpu_s += cpu_seconds() - begin;
    ++times_.fits;
    return report;
  }
  std::vector<double> predict(std::span<const Architecture> candidates) const override {
    const double begin = cpu_seconds();
    std::vector<double> scores = surrogate_.predict(candidates);
    times_.predict_cpu_s += cpu_seconds() - begin;
    ++times_.predictions;
    return scores;
  }
  std::string_view name() const override { return surrogate_.name(); }

 private:
  LstmSurrogate surrogate_;
  SearchReplay& times_;
};

}  // namespace

SearchReplay replay_default_search() {
  SearchReplay times;
  const SearchSpace space = avmnist_space();
  MfasStrategy strategy(space, MfasOptions{}, std::make_unique<TimedSurrogate>(space, times), 0);
  Rng rng(1);
  const double begin = cpu_seconds();
  while (!strategy.finished()) {
    for (const Proposal& proposal : strategy.ask(1000)) {
      strategy.tell({times.trials++, proposal.architecture, TrialState::completed, rng.uniform(0.3, 0.95)});
    }
  }
  times.all_cpu_s = cpu_seconds() - begin;
  return times;
}

}  // namespace fusion::bench
