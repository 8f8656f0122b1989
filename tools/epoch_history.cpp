#include "tools/epoch_history.h"

#include <chrono>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/log.h"
#include "store/store_reader.h"

namespace fusion {

namespace {

// An epoch that several attempts told counts for the first of them, as in EpochTimes: with MIN, SQLite takes the other columns of that row.
constexpr const char* kEpochs =
    "WITH told AS (SELECT e.retraining_id AS retraining, e.epoch, e.phase, e.seconds, MIN(e.attempt),"
    " substr(w.device, 1, instr(w.device || ':', ':') - 1) AS kind FROM retrainings AS r JOIN retraining_epochs AS e ON e.retraining_id = r.id"
    " JOIN retraining_attempts AS a ON a.retraining_id = r.id AND a.attempt = e.attempt JOIN workers AS w ON w.id = a.worker_id"
    " WHERE r.ended_ms IS NULL AND e.seconds IS NOT NULL GROUP BY e.retraining_id, e.epoch),"
    " counted AS (SELECT *, ROW_NUMBER() OVER (PARTITION BY retraining, kind, phase ORDER BY epoch DESC) AS back FROM told)"
    " SELECT retraining, kind, epoch, phase, seconds FROM counted WHERE back <= ";
constexpr const char* kInOrder = " ORDER BY retraining, epoch";
constexpr std::int64_t kMost = 100'000;

std::map<RetrainingId, EpochTimes> read(const std::string& database, std::chrono::milliseconds deadline) {
  std::map<RetrainingId, EpochTimes> times;
  const nlohmann::json answer = StoreReader::open(database).query(kEpochs + std::to_string(EpochTimes::kKept) + kInOrder, kMost, deadline);
  for (const nlohmann::json& row : answer.at("rows")) {
    RetrainingEpoch epoch;
    epoch.epoch = row.at(2);
    epoch.phase = row.at(3);
    epoch.seconds = row.at(4);
    times[RetrainingId{row.at(0).get<std::int64_t>()}].note(row.at(1).get<std::string>(), epoch);
  }
  return times;
}

}  // namespace

std::map<RetrainingId, EpochTimes> epoch_history(const std::string& database, std::chrono::milliseconds deadline) {
  try {
    return read(database, deadline);
  } catch (const StoreError& error) {
    logger("fusiond")->warn("how long the epochs of open retrainings took is not known, and will be measured anew reason=\"{}\"", error.what());
    return {};
  }
}

}  // namespace fusion
