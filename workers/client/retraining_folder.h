#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <vector>

#include "space/retraining.h"
#include "workers/client/dataset_source.h"
#include "workers/client/retraining_session.h"

namespace fusion {

/// Where an attempt of a retraining has its checkpoints and puts what it makes: the daemon's own folder where this host shares it, else a local one that is
/// copied to the daemon's.
///
/// Shared is what shows the same mark: the daemon says over HTTP what the file `.mark` in its folder holds, and the path that it names is looked at here. A
/// path that is not there, or another folder of that name, or one that cannot be written, is not shared.
///
/// A local folder lies below the cache (`<cache>/retrainings/<folder>.<attempt>`), belongs to this attempt alone and is gone with it; what a kill leaves
/// there the next attempt of this host removes. It begins with the checkpoints (files `checkpoint*`) that the daemon has. After each epoch a thread of its
/// own sends the newest one, while the training goes on, and removes there what is not here any more. Where the network is slower than the epochs
/// some are left out. So a worker that is killed costs the epoch at hand and those whose checkpoint was still on its way.
///
/// For the training thread.
class RetrainingFolder {
 public:
  using Stopped = std::function<bool()>;

  /// Asks the daemon. `options.use` `always`: as if nothing were shared; `never`: nothing is sent. Throws UnreadableData (the folder cannot be had),
  /// RemoteRefused, FetchStopped.
  RetrainingFolder(const DatasetSourceOptions& options, const RetrainingJob& job, const Stopped& stopped);
  /// Stops sending and removes the local folder.
  ~RetrainingFolder();
  RetrainingFolder(const RetrainingFolder&) = delete;
  RetrainingFolder& operator=(const RetrainingFolder&) = delete;

  const std::filesystem::path& path() const;
  bool shared() const;
  /// A checkpoint was written: it is sent meanwhile, if this folder is a local one.
  void offer();
  /// Waits until the newest checkpoint is with the daemon, or cannot be (then the log says why). Throws FetchStopped.
  void settle(const Stopped& stopped);
  /// Sends what the attempt made, and names the files as they lie there. Throws RemoteRefused, DataError, FetchStopped.
  void send(std::vector<Artifact>& artifacts, const Stopped& stopped);

 private:
  struct Local;
  std::filesystem::path path_;
  std::unique_ptr<Local> local_;  // null: shared
};

/// Trains in `folder.path()`, which is `job.folder` too; tells the folder of each checkpoint, and the session of each epoch. How it ended is what it returns.
using TrainInFolder = std::function<RetrainingOutcome(const RetrainingJob& job, RetrainingFolder& folder)>;

/// A whole attempt: finds its folder, has it trained in there, sends what was made and ends the session. What the daemon refuses ends it: preempted where the
/// attempt is over, else failed, with the daemon's sentence. Throws what `train` does, and UnreadableData.
void retrain_in_folder(const DatasetSourceOptions& options, RetrainingSession& session, const TrainInFolder& train);

}  // namespace fusion
