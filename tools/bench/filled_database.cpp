#include "tools/bench/filled_database.h"

#include <algorithm>
#include <array>

#include "base/clock.h"
#include "base/error.h"
#include "base/files.h"
#include "search/study_strategy.h"
#include "space/feature_manifest.h"
#include "store/database.h"
#include "store/statement.h"
#include "store/store.h"
#include "store/transaction.h"
#include "tools/study_document.h"

namespace fusion::bench {
namespace {

using nlohmann::json;
constexpr std::size_t kAskedAtOnce = 10'000;

/// Rows that are final from the start: the schema's triggers and foreign keys see them whole.
class Filler {
 public:
  explicit Filler(Database& database)
      : trial_(database,
               "INSERT INTO trials (id, study_id, ask_index, told_index, architecture, steps, replica, seed, state, attempts, scored_attempt,"
               " dev_score, best_epoch, dev_accuracy, dev_weighted_f1, dev_macro_f1, train_loss, train_s, parameters, facts, created_ms,"
               " updated_ms, ended_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?12, ?12, ?12, ?14, ?15, ?16, '{}',"
               " ?17, ?18, ?19)"),
        attempt_(database,
                 "INSERT INTO attempts (trial_id, attempt, worker_id, outcome, engine, device, code_version, torch_version, started_ms,"
                 " ended_ms) VALUES (?1, 1, 1, 'completed', 'none', 'none', 'bench', 'none', ?2, ?3)"),
        epoch_(database,
               "INSERT INTO epochs (trial_id, attempt, epoch, train_loss, dev_score, learning_rate, seconds, at_ms)"
               " VALUES (?1, 1, 1, 1.25, ?2, 0.001, 0.5, ?3)") {}

  void add(StudyId study, std::int64_t index, const Proposal& proposal, std::uint64_t seed, bool ended, UnixMs begun) {
    const std::int64_t id = index + 1;
    const double score = static_cast<double>(seed % 9973) / 9973;
    const auto if_ended = [ended](auto value) { return ended ? std::optional(value) : std::nullopt; };
    trial_.bind(id, study, index, if_ended(index), canonical_text(proposal.architecture), proposal.architecture.steps.size(),
                proposal.replica, seed, ended ? TrialState::completed : TrialState::queued, ended ? 1 : 0, if_ended(1), if_ended(score),
                if_ended(1), if_ended(1.25), if_ended(0.5), if_ended(4170), begun, begun + 2, if_ended(begun + 2));
    trial_.run();
    trial_.reset();
    if (!ended) return;
    attempt_.bind(id, begun + 1, begun + 2).run();
    attempt_.reset();
    epoch_.bind(id, score, begun + 2).run();
    epoch_.reset();
  }

 private:
  Statement trial_, attempt_, epoch_;
};

StudyRecord create(const std::filesystem::path& folder, const ParsedStudy& parsed) {
  const SystemClock clock;
  Store store = Store::open((folder / "fusion.db").string(), clock);
  const WorkerId worker = store.join_worker({{}, "bench", "loopback", "none", "bench", "none", 1, 1});
  store.leave_worker(worker, "the benchmark");
  return *store.study(store.create_study(parsed.spec, parsed.dataset, parsed.manifest));
}

}  // namespace

std::filesystem::path write_manifest_head(const std::filesystem::path& folder) {
  std::filesystem::create_directories(folder);
  json modalities = json::array();
  for (const char* name : {"audio", "image"}) {
    json taps = json::array();
    for (int i = 0; i < 4; ++i) taps.push_back({{"name", "tap" + std::to_string(i)}, {"width", 8}});
    modalities.push_back({{"name", name}, {"has_logits", false}, {"taps", taps}, {"backbone", {{"kind", "imported"}, {"digest", ""}}}});
  }
  json manifest = {{"format", "fusiond-features-1"}, {"name", "bench"},           {"dataset_digest", "bench"},
                   {"classes", 4},                   {"class_names", json::array()}, {"modalities", modalities},
                   {"rows", {{"train", 600}, {"dev", 200}}}, {"files", json::object()}};
  manifest["digest"] = manifest_digest(manifest);
  write_atomically(folder / "features.json", manifest.dump(2));
  return folder / "features.json";
}

json control_study(std::int64_t trials, int parallel) {
  return {{"name", "bench"},       {"dataset", "features.json"}, {"space", {{"steps", {{"max", 4}}}}},
          {"strategy", {{"name", "random"}, {"trials", trials}}}, {"parallel", parallel}, {"seed", 7}};
}

void fill_database(const std::filesystem::path& folder, std::int64_t rows, std::int64_t open) {
  write_manifest_head(folder);
  const StudyRecord study = create(folder, parse_study(control_study(rows, static_cast<int>(std::max<std::int64_t>(open, 64))), "bench", {folder}));
  const auto strategy = make_study_strategy(study);
  Database database((folder / "fusion.db").string(), Database::Access::create);
  database.execute("PRAGMA foreign_keys = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -524288; PRAGMA wal_autocheckpoint = 0");
  Transaction whole(database, Transaction::Kind::write);
  Filler filler(database);
  const UnixMs begin = SystemClock().unix_ms() - rows * 2;
  for (std::int64_t index = 0; index < rows;) {
    const auto proposals = strategy->ask(std::min(kAskedAtOnce, static_cast<std::size_t>(rows - index)));
    if (proposals.empty()) throw Error("the strategy has no proposal " + std::to_string(index));
    for (const Proposal& proposal : proposals) {
      const std::uint64_t seed = trial_seed(study.spec.seed, proposal.architecture, proposal.replica);
      filler.add(study.id, index, proposal, seed, index < rows - open, begin + index * 2);
      ++index;
    }
  }
  if (open == 0) database.execute("UPDATE studies SET state = 'completed'");
  whole.commit();
  if (database.integer("SELECT count(*) FROM pragma_foreign_key_check") > 0) throw Error("the filled database breaks its foreign keys");
  database.checkpoint(60'000);
}

}  // namespace fusion::bench
