#pragma once

#include <memory>
#include <span>

#include "search/strategy.h"
#include "store/store.h"

namespace fusion {

/// The strategy of a stored study, as it was when the study was submitted: nothing asked, nothing told. `trials` are those of the study by
/// ask_index; of a fork the inherited ones, which come first, are part of its beginning (search/forked_strategy.h), and must be among
/// them. Throws ConfigError if this version refuses what is stored.
std::unique_ptr<Strategy> make_study_strategy(const StudyRecord& study, std::span<const Trial> trials = {});

}  // namespace fusion
