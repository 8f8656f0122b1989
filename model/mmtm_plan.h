#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "space/architecture.h"

namespace fusion {

/// Where one MMTM sits: at the maps of these taps, one of each modality.
struct MmtmPlace {
  std::size_t step = 0;              ///< of the architecture, which it comes from
  std::vector<std::int32_t> taps;    ///< [m]
  std::vector<bool> gates;           ///< [m]: whether the modality's map is scaled; it is read in any case
  bool operator==(const MmtmPlace&) const = default;
};

/// One MMTM per found step, in the order in which they run.
///
/// A backbone runs forwards only, so steps whose taps cross cannot both scale what flows on. The rule: places are ordered by their taps,
/// those of the first modality first (equal taps: in the order of the steps). A module scales modality m's map if no module before it
/// has taken m's backbone further; otherwise the map was read by the next stage already, and the module reads it as it is without
/// scaling it. Modules at equal taps scale one after the other.
std::vector<MmtmPlace> plan_mmtm(const Architecture& architecture);

}  // namespace fusion
