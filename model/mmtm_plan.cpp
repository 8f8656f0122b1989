#include "model/mmtm_plan.h"

#include <algorithm>

namespace fusion {

std::vector<MmtmPlace> plan_mmtm(const Architecture& architecture) {
  std::vector<MmtmPlace> places;
  for (std::size_t i = 0; i < architecture.steps.size(); ++i) places.push_back({i, architecture.steps[i].taps, {}});
  std::stable_sort(places.begin(), places.end(), [](const MmtmPlace& a, const MmtmPlace& b) { return a.taps < b.taps; });
  std::vector<std::int32_t> reached(places.empty() ? 0 : places.front().taps.size(), 0);
  for (MmtmPlace& place : places) {
    for (std::size_t m = 0; m < reached.size(); ++m) {
      place.gates.push_back(place.taps[m] >= reached[m]);
      reached[m] = std::max(reached[m], place.taps[m]);
    }
  }
  return places;
}

}  // namespace fusion
