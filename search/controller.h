#pragma once

#include <exception>
#include <functional>
#include <memory>
#include <vector>

#include "search/strategy.h"
#include "store/group_commit.h"
#include "store/store.h"

namespace fusion {

/// A stored trial that waits for a worker.
struct ReadyTrial {
  TrialId id;
  std::int64_t ask_index = 0;
  Architecture architecture;
  std::uint64_t seed = 0;
  int attempts = 0;        ///< begun so far
  bool recovered = false;  ///< found in the database on start: its worker may still be training it
  bool alone = false;      ///< Trial::alone
};

/// The loop of one study: ask the strategy, store the proposals, hand them out once they are on disk, tell the strategy how
/// they ended, until it is finished.
///
/// Lives on its study's strand: every public function is called there, every hook is called there. It is made by
/// std::make_shared, because work at the store outlives a call.
class Controller : public std::enable_shared_from_this<Controller> {
 public:
  struct Hooks {
    std::function<void(std::vector<ReadyTrial>)> ready;    ///< stored and waiting for workers, in the order of proposals
    std::function<void()> completed;                       ///< the study's state `completed` is on disk
    std::function<void(std::exception_ptr)> broken;        ///< the strategy or the store threw; the controller is at rest. Called once
  };

  /// `strand` must be a strand of the study alone. `store` must outlive the controller.
  Controller(StudyRecord study, std::unique_ptr<Strategy> strategy, GroupCommit& store, asio::any_io_executor strand,
             Hooks hooks);

  /// Brings the strategy to where the database stands: asks for as many proposals as are stored, tells the ended ones in the
  /// order of `told_index`, and checks that each proposal is the stored one (search/replay.h; architecture, replica and seed).
  /// Then hands out what is queued and pumps. `trials` are all of the study, by ask_index. Throws StoreError naming the first
  /// proposal that differs (another code version, or a database changed by hand): nothing is proposed then.
  void resume(const std::vector<Trial>& trials);

  /// A trial of this study reached a final state; calls come in the order of told_index. One that `resume` found ended already is
  /// known: its call is ignored.
  void tell(const Told& ended, std::int64_t told_index);

  /// While paused nothing new is proposed.
  void set_paused(bool paused);
  /// No more proposals, for ever (the study was cancelled, the daemon stops).
  void stop();

  /// The strategy's own count of proposals in all, where known; as of the last pump.
  std::optional<std::uint64_t> total() const { return strategy_->total(); }

 private:
  void replay(const std::vector<Trial>& trials);
  void pump();
  void propose(std::vector<Proposal> proposals);
  void store_fits(const std::vector<FitRecord>& fits);
  void complete();
  void fail(std::exception_ptr error);

  StudyRecord study_;
  std::unique_ptr<Strategy> strategy_;
  GroupCommit& store_;
  asio::any_io_executor strand_;
  Hooks hooks_;
  std::int64_t asked_ = 0;        ///< proposals made so far: the next ask_index
  std::int64_t outstanding_ = 0;  ///< asked and not told
  std::int64_t told_ = 0;         ///< the next told_index
  bool paused_ = false, stopped_ = false, failed_ = false;
};

}  // namespace fusion
