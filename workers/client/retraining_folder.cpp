#include "workers/client/retraining_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <exception>
#include <future>
#include <set>
#include <tuple>

#include "base/asio.h"
#include "base/files.h"
#include "base/log.h"
#include "workers/client/remote_folder.h"
#include "workers/client/worker_condition.h"

namespace fusion {

namespace fs = std::filesystem;

namespace {

constexpr const char* kCheckpoint = "checkpoint";
constexpr const char* kTemporary = ".tmp.";  // write_atomically's
constexpr std::chrono::milliseconds kLook{100};

/// Whether `folder`, as this host sees it, is the one that the daemon marked.
bool is_marked(const fs::path& folder, const std::string& mark) {
  const fs::path file = folder / ".mark";
  if (mark.empty() || ::access(folder.c_str(), W_OK | X_OK) != 0 || ::access(file.c_str(), R_OK) != 0) return false;
  try {
    return read_text(file) == mark;
  } catch (const DataError&) {
    return false;
  }
}

bool is_checkpoint(const std::string& name) { return name.starts_with(kCheckpoint) && name.find(kTemporary) == std::string::npos; }

/// One version of a file: a file of the same name that replaces it is another.
struct Version {
  std::string name;
  ino_t inode = 0;
  std::int64_t changed_ns = 0;
  auto operator<=>(const Version&) const = default;
};

/// Checkpoints in a folder, the newest last.
std::vector<Version> checkpoints_of(const fs::path& folder) {
  std::vector<Version> found;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    struct stat state {};
    if (!is_checkpoint(name) || ::stat(entry.path().c_str(), &state) != 0 || !S_ISREG(state.st_mode)) continue;
    found.push_back({name, state.st_ino, state.st_mtim.tv_sec * 1'000'000'000 + state.st_mtim.tv_nsec});
  }
  // By their numbers where the clock does not tell them apart.
  std::ranges::sort(found, {}, [](const Version& v) { return std::tuple(v.changed_ns, v.name.size(), v.name); });
  return found;
}

/// Removes the folders of attempts whose process is gone. Call it with the lock of all of them held.
void remove_abandoned(const fs::path& folders) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folders, error)) {
    if (entry.path().extension() != ".lock") continue;
    const OwnedFile lock(::open(entry.path().c_str(), O_RDWR | O_CLOEXEC));
    if (!lock || ::flock(lock.fd(), LOCK_EX | LOCK_NB) != 0) continue;
    fs::path folder = entry.path();
    fs::remove_all(folder.replace_extension(), error);
    ::unlink(entry.path().c_str());
  }
}

}  // namespace

struct RetrainingFolder::Local {
  Local(const DatasetSourceOptions& options, const RetrainingJob& job)
      : remote(options.fetcher, job.retraining, job.attempt), retraining(job.retraining), there(job.folder) {}
  ~Local();

  void make(const DatasetSourceOptions& options, int attempt);
  void restore(const Stopped& stopped);
  void send_newest();
  void send_one(const Version& newest);
  template <typename Work>
  auto run(Work work, const Stopped& stopped) -> decltype(work());

  RemoteFolder remote;
  RetrainingId retraining;
  fs::path there, here;
  OwnedFile lock;
  fs::path lock_file;
  std::atomic<bool> offered{false}, ending{false};
  std::set<Version> sent;       // of the sending thread, as all below
  std::set<std::string> known;  // checkpoints that the daemon has
  asio::thread_pool sender{1};
};

RetrainingFolder::Local::~Local() {
  ending = true;
  sender.join();
  std::error_code error;
  if (!here.empty()) fs::remove_all(here, error);
  if (lock) ::unlink(lock_file.c_str());
}

void RetrainingFolder::Local::make(const DatasetSourceOptions& options, int attempt) {
  const BlobCache cache(options.cache.empty() ? default_cache_folder() : options.cache, options.cache_bytes);  // looks after the folder's owner and mode
  const fs::path folders = cache.folder() / "retrainings";
  ::mkdir(folders.c_str(), 0700);
  const OwnedFile all(::open((folders / "lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!all || ::flock(all.fd(), LOCK_EX) != 0) throw UnreadableData(folders.string() + ": cannot be written: " + std::strerror(errno));
  remove_abandoned(folders);
  const fs::path mine = folders / (there.filename().string() + "." + std::to_string(attempt));
  lock_file = mine.string() + ".lock";
  lock = OwnedFile(::open(lock_file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!lock || ::flock(lock.fd(), LOCK_EX | LOCK_NB) != 0) {
    throw UnreadableData(mine.string() + ": another worker of this host is at this attempt");
  }
  std::error_code ignored;
  fs::remove_all(mine, ignored);
  if (::mkdir(mine.c_str(), 0700) != 0) throw UnreadableData(mine.string() + ": cannot be made: " + std::strerror(errno));
  here = mine;
}

/// Fetches what the daemon has of checkpoints; they are of earlier attempts.
void RetrainingFolder::Local::restore(const Stopped& stopped) {
  RemoteFolder::Listing listing = remote.list(true, stopped);
  std::erase_if(listing.files, [](const RemoteFolder::File& file) { return !is_checkpoint(file.name); });
  std::ranges::reverse(listing.files);  // so that the newest is the newest here too
  for (const RemoteFolder::File& file : listing.files) {
    remote.fetch(file, here, stopped);
    known.insert(file.name);
  }
  for (const Version& version : checkpoints_of(here)) sent.insert(version);
  logger("worker")->info("retraining is not on this host, works in a folder of its own retraining={} folder={} checkpoints={}", retraining.value, here.string(),
                         listing.files.size());
}

void RetrainingFolder::Local::send_newest() {
  try {
    for (;;) {
      offered = false;
      const std::vector<Version> found = checkpoints_of(here);
      if (found.empty() || sent.contains(found.back())) return;
      send_one(found.back());
    }
  } catch (const FetchStopped&) {
    return;
  } catch (const std::exception& error) {
    logger("worker")->warn("checkpoint not sent, the next one may be retraining={} reason=\"{}\"", retraining.value, error.what());
  }
}

void RetrainingFolder::Local::send_one(const Version& newest) {
  const auto begun = std::chrono::steady_clock::now();
  const RemoteFolder::Stopped ended = [this] { return ending.load(); };
  if (!fs::exists(here / newest.name)) return;  // it was replaced already
  const RemoteFolder::File file = remote.send(here / newest.name, ended);
  sent.insert(newest);
  known.insert(newest.name);
  logger("worker")->debug("checkpoint sent retraining={} file={} bytes={} seconds={:.3f}", retraining.value, file.name, file.bytes,
                          std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count());
  std::set<std::string> here_now;
  for (const Version& version : checkpoints_of(here)) here_now.insert(version.name);
  std::vector<std::string> gone;
  std::ranges::set_difference(known, here_now, std::back_inserter(gone));
  for (const std::string& name : gone) {
    if (name == newest.name) continue;  // it is the newest that the daemon has
    remote.remove(name, ended);
    known.erase(name);
  }
}

/// On the sending thread, behind what it is at; waited for here.
template <typename Work>
auto RetrainingFolder::Local::run(Work work, const Stopped& stopped) -> decltype(work()) {
  std::packaged_task<decltype(work())()> task(std::move(work));
  auto result = task.get_future();
  asio::post(sender, [&task] { task(); });
  while (result.wait_for(kLook) != std::future_status::ready) {
    if (stopped && stopped()) ending = true;  // what is under way ends with FetchStopped
  }
  if (ending) throw FetchStopped();
  return result.get();
}

RetrainingFolder::RetrainingFolder(const DatasetSourceOptions& options, const RetrainingJob& job, const Stopped& stopped) : path_(job.folder) {
  if (options.use == BlobUse::never && ::access(job.folder.c_str(), W_OK | X_OK) == 0) return;
  auto local = std::make_unique<Local>(options, job);
  if (options.use != BlobUse::always && is_marked(job.folder, local->remote.list(false, stopped).mark)) return;
  if (options.use == BlobUse::never) {
    throw UnreadableData("retraining " + to_string(job.retraining) + " works in " + job.folder + ", which is not on this host, and this worker sends " +
                         "nothing to the daemon (--blobs never)");
  }
  try {
    local->make(options, job.attempt);
  } catch (const ConfigError& error) {  // the cache's folder
    throw UnreadableData(error.what());
  }
  local->restore(stopped);
  path_ = local->here;
  local_ = std::move(local);
}

RetrainingFolder::~RetrainingFolder() = default;

const fs::path& RetrainingFolder::path() const { return path_; }

bool RetrainingFolder::shared() const { return local_ == nullptr; }

void RetrainingFolder::offer() {
  if (!local_ || local_->offered.exchange(true)) return;
  asio::post(local_->sender, [local = local_.get()] { local->send_newest(); });
}

void RetrainingFolder::settle(const Stopped& stopped) {
  if (!local_) return;
  local_->run([local = local_.get()] { local->send_newest(); }, stopped);
}

void RetrainingFolder::send(std::vector<Artifact>& artifacts, const Stopped& stopped) {
  if (!local_) return;
  const auto send_all = [local = local_.get(), &artifacts] {
    for (Artifact& artifact : artifacts) {
      const RemoteFolder::File file = local->remote.send(artifact.path, [local] { return local->ending.load(); });
      artifact.name = file.name;
      artifact.path = (local->there / file.name).string();
      artifact.bytes = static_cast<std::int64_t>(file.bytes);
      artifact.sha256 = file.sha256;
    }
  };
  local_->run(send_all, stopped);
}

// ---- a whole attempt

namespace {

/// What came of it goes where the daemon has it: checkpoints also of what failed or had to stop amid an epoch, as the next attempt goes on
/// behind them.
void deliver(RetrainingFolder& folder, const RetrainingSession& session, RetrainingOutcome& outcome) {
  const auto abandoned = [&session] { return session.abandon().stop_requested(); };
  if (outcome.outcome == Outcome::completed) folder.send(outcome.score->artifacts, abandoned);
  else if (!abandoned()) folder.settle(abandoned);
}

}  // namespace

void retrain_in_folder(const DatasetSourceOptions& options, RetrainingSession& session, const TrainInFolder& train) {
  const auto stopped = [&session] { return session.cancel().stop_requested() || session.hand_back().stop_requested(); };
  try {
    RetrainingFolder folder(options, session.job(), stopped);
    RetrainingJob job = session.job();
    job.folder = folder.path().string();
    RetrainingOutcome outcome = train(job, folder);
    deliver(folder, session, outcome);
    session.on_end(std::move(outcome));
  } catch (const FetchStopped& error) {
    session.on_end(session.cancel().stop_requested() ? Outcome::cancelled : Outcome::preempted, error.what());
  } catch (const RemoteRefused& error) {
    session.on_end(error.is_over() ? Outcome::preempted : Outcome::failed, std::string("the daemon did not take what was sent: ") + error.what());
  }
}

}  // namespace fusion
