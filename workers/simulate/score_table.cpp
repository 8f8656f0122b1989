#include "workers/simulate/score_table.h"

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/error.h"
#include "base/json_reader.h"
#include "store/store_reader.h"

namespace fusion {

namespace {

using nlohmann::json;
constexpr std::chrono::minutes kDeadline{5};
// A page of trials and their epochs stays well below the largest answer that a reader gives.
constexpr std::int64_t kPage = 2'000, kEpochs = 500'000;

struct StudyChoice {
  StudyId id;
  std::string text;  ///< `1 "avmnist-exhaustive" (27930 scores)`
};

json rows_of(const StoreReader& reader, const std::string& sql, std::int64_t limit) {
  return reader.query(sql, limit, kDeadline)["rows"];
}

std::vector<StudyChoice> studies_with_scores(const StoreReader& reader) {
  std::vector<StudyChoice> studies;
  const json rows = rows_of(reader,
                            "SELECT s.id, s.name, count(*) FROM studies AS s JOIN trials AS t ON t.study_id = s.id"
                            " WHERE t.state = 'completed' AND NOT t.pruned GROUP BY s.id ORDER BY s.id", 10'000);
  for (const json& row : rows) {
    const auto id = row[0].get<std::int64_t>();
    studies.push_back({StudyId{id}, std::to_string(id) + " \"" + row[1].get<std::string>() + "\" (" + row[2].dump() + " scores)"});
  }
  return studies;
}

StudyId choose(const std::vector<StudyChoice>& studies, std::optional<StudyId> wanted, const std::string& file, const std::string& option) {
  std::string known;
  for (std::size_t i = 0; i < std::min<std::size_t>(studies.size(), 10); ++i) known += (i > 0 ? ", " : "") + studies[i].text;
  if (studies.size() > 10) known += ", ...";
  if (studies.empty()) throw ConfigError(file + ": no study in this database has scores; run an exhaustive one first");
  if (!wanted && studies.size() == 1) return studies[0].id;
  if (!wanted) throw ConfigError(file + ": several studies have scores: " + known + "; choose one with " + option + " N");
  for (const StudyChoice& study : studies) {
    if (study.id == *wanted) return study.id;
  }
  throw ConfigError(option + " " + to_string(*wanted) + ": no such study with scores in " + file + "; it has " + known);
}

DatasetSpec dataset_of(const StoreReader& reader, StudyId study, const std::string& file) {
  const json document = reader.study(study).value()["dataset_spec"];
  JsonProblems problems;
  JsonReader dataset(document, file + ", dataset of study " + to_string(study), problems);
  DatasetSpec spec = DatasetSpec::read(dataset);
  problems.throw_if_any();
  return spec;
}

/// Trials of one study by id, a page at a time: a table may have millions.
class Trials {
 public:
  Trials(const StoreReader& reader, StudyId study) : reader_(reader), study_(to_string(study)) {}

  /// Rows of id, architecture, dev_score, test_score, parameters; none after the last.
  json next() {
    json rows = rows_of(reader_,
                        "SELECT id, architecture, dev_score, test_score, parameters FROM trials WHERE study_id = " + study_ +
                            " AND state = 'completed' AND NOT pruned AND id > " + std::to_string(last_) + " ORDER BY id LIMIT " +
                            std::to_string(kPage), kPage);
    first_ = last_ + 1;
    if (!rows.empty()) last_ = rows.back()[0].get<std::int64_t>();
    return rows;
  }
  /// Learning curves of the page: trial id to dev score after each epoch. Those with a gap are left out.
  std::unordered_map<std::int64_t, std::vector<double>> curves() const {
    std::unordered_map<std::int64_t, std::vector<double>> curves;
    const json rows = rows_of(reader_,
                              "SELECT e.trial_id, e.epoch, e.dev_score FROM epochs AS e JOIN trials AS t ON t.id = e.trial_id"
                              " AND t.scored_attempt = e.attempt WHERE t.study_id = " + study_ + " AND e.trial_id BETWEEN " +
                                  std::to_string(first_) + " AND " + std::to_string(last_) + " ORDER BY e.trial_id, e.epoch", kEpochs);
    for (const json& row : rows) {
      std::vector<double>& curve = curves[row[0].get<std::int64_t>()];
      if (row[1].get<std::size_t>() == curve.size() + 1) curve.push_back(row[2].get<double>());
    }
    return curves;
  }

 private:
  const StoreReader& reader_;
  std::string study_;
  std::int64_t first_ = 0, last_ = 0;
};

ScoreTable::Entry entry_of(const json& row, const std::vector<double>* curve) {
  ScoreTable::Entry entry;
  entry.dev_score = row[2].get<double>();
  if (row[3].is_number()) entry.test_score = row[3].get<double>();
  if (row[4].is_number_integer()) entry.parameters = row[4].get<std::int64_t>();
  if (curve != nullptr && *std::max_element(curve->begin(), curve->end()) == entry.dev_score) entry.curve = *curve;
  return entry;
}

}  // namespace

ScoreTable ScoreTable::open(const std::string& file, std::optional<StudyId> study, const std::string& option) {
  const StoreReader reader = StoreReader::open(file);
  ScoreTable table;
  table.file_ = file;
  table.study_ = choose(studies_with_scores(reader), study, file, option);
  table.dataset_ = dataset_of(reader, table.study_, file);
  Trials trials(reader, table.study_);
  for (json page = trials.next(); !page.empty(); page = trials.next()) {
    const auto curves = trials.curves();
    for (const json& row : page) {
      const auto curve = curves.find(row[0].get<std::int64_t>());
      // The first trial of an architecture is the one with the lowest id.
      table.entries_.try_emplace(row[1].get<std::string>(), entry_of(row, curve == curves.end() ? nullptr : &curve->second));
    }
  }
  return table;
}

const ScoreTable::Entry* ScoreTable::find(const Architecture& architecture) const {
  const auto found = entries_.find(canonical_text(architecture));
  return found == entries_.end() ? nullptr : &found->second;
}

std::optional<double> ScoreTable::truth(const Architecture& architecture) const {
  const Entry* entry = find(architecture);
  return entry == nullptr ? std::nullopt : std::optional(entry->dev_score);
}

std::optional<double> ScoreTable::score(const Architecture& architecture, std::uint64_t) const { return truth(architecture); }

std::vector<double> ScoreTable::curve(const Architecture& architecture, std::uint64_t, int epochs) const {
  const Entry* entry = find(architecture);
  if (entry == nullptr) return {};
  if (entry->curve.size() == static_cast<std::size_t>(epochs)) return entry->curve;
  return rising_curve(entry->dev_score, architecture, epochs);
}

std::optional<double> ScoreTable::test_score(const Architecture& architecture, std::uint64_t) const {
  const Entry* entry = find(architecture);
  return entry == nullptr ? std::nullopt : entry->test_score;
}

std::int64_t ScoreTable::parameters(const Architecture& architecture) const {
  const Entry* entry = find(architecture);
  return entry == nullptr ? 0 : entry->parameters;
}

}  // namespace fusion
