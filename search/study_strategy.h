#pragma once

#include <memory>

#include "search/strategy.h"
#include "store/store.h"

namespace fusion {

/// The strategy of a stored study, as it was when the study was submitted: nothing asked, nothing told. Throws ConfigError if this
/// version refuses what is stored.
std::unique_ptr<Strategy> make_study_strategy(const StudyRecord& study);

}  // namespace fusion
