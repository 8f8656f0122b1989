#pragma once

#include <optional>
#include <string>
#include <vector>

#include "store/statement.h"
#include "store/store.h"

namespace fusion {

/// Rows as values, over whichever connection: the writing one (Store) or a read-only one (StoreReader). For store/ alone. `path`
/// names the file in errors.
std::optional<StudyRecord> read_study(StatementCache& statements, StudyId id, const std::string& path);
std::vector<StudyRecord> read_studies(StatementCache& statements, const std::string& path);  ///< by id
std::vector<Trial> read_trials(StatementCache& statements, StudyId study);                   ///< by ask_index
std::vector<FitRow> read_fits(StatementCache& statements, StudyId study);                    ///< by fit_index

}  // namespace fusion
