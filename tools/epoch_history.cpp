#include "tools/epoch_history.h"

#include <chrono>
#include <nlohmann/json.hpp>

#include "store/store_reader.h"

namespace fusion {

namespace {

constexpr const char* kEpochs =
    "SELECT e.retraining_id, w.device, e.epoch, e.phase, e.seconds FROM retrainings AS r JOIN retraining_epochs AS e ON e.retraining_id = r.id"
    " JOIN retraining_attempts AS a ON a.retraining_id = r.id AND a.attempt = e.attempt JOIN workers AS w ON w.id = a.worker_id"
    " WHERE r.ended_ms IS NULL AND e.seconds IS NOT NULL ORDER BY e.retraining_id, e.epoch, e.attempt";
constexpr std::int64_t kMost = 100'000;

}  // namespace

std::map<RetrainingId, EpochTimes> epoch_history(const std::string& database) {
  std::map<RetrainingId, EpochTimes> times;
  const nlohmann::json answer = StoreReader::open(database).query(kEpochs, kMost, std::chrono::seconds(10));
  for (const nlohmann::json& row : answer.at("rows")) {
    RetrainingEpoch epoch;
    epoch.epoch = row.at(2);
    epoch.phase = row.at(3);
    epoch.seconds = row.at(4);
    times[RetrainingId{row.at(0).get<std::int64_t>()}].note(row.at(1).get<std::string>(), epoch);
  }
  return times;
}

}  // namespace fusion
