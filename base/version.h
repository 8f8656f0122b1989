#pragma once

namespace fusion {

/// Of the programs; stands with every score.
inline constexpr const char* kCodeVersion = FUSION_VERSION;

}  // namespace fusion
