#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tests/faults/fault_vfs.h"
#include "tests/faults/sweep_worker.h"
#include "tests/faults/witness.h"
#include "tests/temporary_folder.h"

namespace fusion::testing {

/// What the daemon finds when it starts: nothing, or what another left that was killed amid the study, with a log that is not in the file, and
/// trials that are leased.
enum class Scene { new_database, after_a_crash };

/// What a daemon made of a fault.
enum class Coped { carried_on, stopped };

struct SweepRun {
  bool happened = false;  ///< false: there was no n-th operation of that kind, the run was as if nothing had been asked for
  Coped coped = Coped::carried_on;
  std::string sentence;   ///< of a daemon that stopped
  std::vector<std::string> violations;
};

/// A small study through the real daemon (store, search, dispatcher, server; real sockets) on a disk that fails at one place.
///
/// The study is submitted (or found), a worker scores its trials, the daemon is shut down; then the database is checked as it lies there, as it would be
/// found if the power had gone when the fault struck or at the end, with nothing, with some or with everything of what was not synced. A
/// daemon that stopped is started again on a disk that works, and must complete the study.
///
/// All runs of one kind of fault, added up.
struct SweepTotals {
  std::int64_t points = 0, carried_on = 0, stopped = 0, violations = 0;
  std::map<std::string, std::int64_t> sentences;  ///< of daemons that stopped, and how many
  void add(const SweepRun& run);
};

/// One at a time in a process. Once a daemon does not even end, every later run throws Error.
class Sweep {
 public:
  /// Makes its own folder for databases below the system's for temporary files. Puts an end to logs on stderr.
  Sweep();

  SweepRun run(Scene scene, FaultKind kind, std::int64_t nth);
  /// With n = 1, 1 + stride, ... until there is no n-th operation of that kind any more. `each` is called after each run.
  SweepTotals run_all(Scene scene, FaultKind kind, std::int64_t stride, const std::function<void(std::int64_t nth, const SweepRun&)>& each = {});
  /// The same with a disk that lies about syncs, or about its n-th write: what no database survives, to see that the checks find it.
  SweepRun run_on_a_liar();
  SweepRun run_with_lost_write(std::int64_t nth);

 private:
  struct Image {
    std::string when;
    DiskImage disk;
    Acknowledged acknowledged;
  };
  void kill_one();
  void begin(Scene scene);
  SweepRun run(Scene scene, std::optional<FaultKind> kind, std::int64_t nth);
  void live(SweepRun& run);
  void recover(SweepRun& run);
  void keep_images(const std::string& when, std::uint64_t seed);
  void check(SweepRun& run);

  TemporaryFolder folder_;
  FaultVfs disk_;
  std::filesystem::path database_;  ///< the folder of this run
  std::unique_ptr<Witness> witness_;
  std::unique_ptr<SweepWorker> worker_;
  std::vector<Image> images_;
  Image crashed_;              ///< where Scene::after_a_crash begins
  std::int64_t runs_ = 0;
  bool stuck_ = false;         ///< a daemon hangs, with files of this disk open
};

}  // namespace fusion::testing
