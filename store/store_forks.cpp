#include <string>
#include <vector>

#include "store/store_impl.h"

namespace fusion {

namespace {

/// `INSERT INTO table (columns) SELECT values FROM source`, where every column of the table stands for itself (`from.column`), but for those
/// that `others` name with another value: a column that a later schema adds is copied too.
std::string copy_into(Database& database, const std::string& table, const std::string& from, const std::string& source,
                      const std::vector<std::pair<std::string, std::string>>& others) {
  std::string columns, values;
  Statement row(database, "SELECT name FROM pragma_table_info('" + table + "')");
  while (row.step()) {
    const std::string name = row.text(0);
    std::string value = from + "." + name;
    for (const auto& [column, other] : others) {
      if (column == name) value = other;
    }
    if (value.empty()) continue;
    columns += (columns.empty() ? "" : ", ") + name;
    values += (values.empty() ? "" : ", ") + value;
  }
  return "INSERT INTO " + table + " (" + columns + ") SELECT " + values + " FROM " + source;
}

}  // namespace

std::int64_t Store::forkable(StudyId id) const {
  const auto row = impl_->statements.use(
      "SELECT min(coalesce((SELECT min(told_index) FROM trials WHERE study_id = ?1 AND state = 'cancelled'), 9223372036854775807),"
      " (SELECT count(*) FROM trials WHERE study_id = ?1 AND told_index IS NOT NULL))");
  row->bind(id).step();
  return row->integer(0);
}

StudyId Store::fork_study(const Lineage& fork, const StudySpec& spec) {
  return impl_->atomically([&] {
    const auto parent = study(fork.from);
    if (!parent) throw StoreError(impl_->database.path() + ": there is no study " + to_string(fork.from) + " to fork");
    if (const std::int64_t most = forkable(fork.from); fork.at < 0 || fork.at > most) {
      throw StoreError(impl_->database.path() + ": study " + to_string(fork.from) + " cannot be forked at " + std::to_string(fork.at) +
                       "; expected 0 to " + std::to_string(most) + ", the trials that were told so far");
    }
    const StudyId id = impl_->create_study(spec, parent->dataset, parent->dataset_path);
    impl_->statements.use("UPDATE studies SET forked_from = ?2, forked_at = ?3, observed = ?4 WHERE id = ?1")
        ->bind(id, fork.from, fork.at, fork.observed)
        .run();
    impl_->inherit(fork, id);
    return id;
  });
}

// Trials and attempts refer to each other, so that the references are looked at in the end.
void Store::Impl::inherit(const Lineage& fork, StudyId id) {
  database.execute("PRAGMA defer_foreign_keys = ON");
  const std::string study = to_string(id);
  Statement(database, copy_into(database, "trials", "t", "trials AS t WHERE t.study_id = ?1 AND t.told_index < ?2 ORDER BY t.told_index",
                                {{"id", ""}, {"study_id", study}, {"ask_index", "t.told_index"}, {"inherited_from", "t.id"}}))
      .bind(fork.from, fork.at)
      .run();
  const std::string of_trials = " JOIN trials AS t ON t.study_id = " + study + " AND c.trial_id = t.inherited_from";
  Statement(database, copy_into(database, "attempts", "c", "attempts AS c" + of_trials, {{"trial_id", "t.id"}, {"inherited", "1"}})).run();
  Statement(database, copy_into(database, "epochs", "c", "epochs AS c" + of_trials, {{"trial_id", "t.id"}})).run();
  database.execute("PRAGMA defer_foreign_keys = OFF");
}

}  // namespace fusion
