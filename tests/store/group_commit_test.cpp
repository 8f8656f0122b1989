#include "store/group_commit.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <thread>

#include "base/error.h"
#include "store/store_reader.h"
#include "tests/store/fixtures.h"
#include "tests/temporary_folder.h"

namespace fusion {
namespace {

using fusion::testing::add_study;
using fusion::testing::add_trials;

class GroupCommitTest : public ::testing::Test {
 protected:
  GroupCommitTest() {
    Store store = Store::open(path, clock);
    study = add_study(store);
    group.emplace(std::move(store), [this](std::exception_ptr) { ++broken; });
  }
  /// Runs work on the store thread and waits for its answer.
  template <typename Work>
  auto wait_for(Work work) {
    using R = std::invoke_result_t<Work&, Store&>;
    auto promise = std::make_shared<std::promise<R>>();
    auto future = promise->get_future();
    group->async(answers.get_executor(), work, [promise](StoreResult<R> result) {
      try {
        promise->set_value(std::move(result.value()));
      } catch (...) {
        promise->set_exception(std::current_exception());
      }
    });
    return future.get();
  }

  fusion::testing::TemporaryFolder folder;
  std::string path = (folder / "fusion.db").string();
  SystemClock clock;
  StudyId study;
  std::atomic<int> broken{0};
  asio::thread_pool answers{1};  // outlives the store thread, which may still be waking it when an answer has come
  std::optional<GroupCommit> group;
};

TEST_F(GroupCommitTest, AnswerComesAfterTheCommitAndOnItsExecutor) {
  asio::io_context io;
  const auto stay = asio::make_work_guard(io);
  const auto here = std::this_thread::get_id();
  bool answered = false;
  group->async(
      io.get_executor(),
      [this, here](Store& store) {
        EXPECT_NE(std::this_thread::get_id(), here);
        return add_trials(store, study, 3).size();
      },
      [&](StoreResult<std::size_t> result) {
        EXPECT_EQ(std::this_thread::get_id(), here);
        EXPECT_EQ(result.value(), 3u);
        EXPECT_EQ(StoreReader::open(path).trials(study, {}).size(), 3u) << "another connection sees it";
        answered = true;
      });
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (!answered && std::chrono::steady_clock::now() < end) io.run_one_for(std::chrono::seconds(1));
  EXPECT_TRUE(answered);
}

TEST_F(GroupCommitTest, ManyThreadsLoseNothingAndKeepTheirOrder) {
  constexpr int kThreads = 8, kEach = 150;
  asio::io_context io;
  auto stay = asio::make_work_guard(io);
  std::thread answers([&] { io.run(); });
  std::vector<std::vector<int>> answered(kThreads);  // touched by the thread of the answers only
  std::atomic<int> left{kThreads * kEach};
  std::int64_t next = 0;  // touched by the store thread only
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kEach; ++i) {
        group->async(
            io.get_executor(), [this, &next](Store& store) { return add_trials(store, study, 1, next++)[0]; },
            [&, t, i](StoreResult<TrialId> result) {
              EXPECT_TRUE(result.ok());
              answered[static_cast<std::size_t>(t)].push_back(i);
              if (--left == 0) stay.reset();
            });
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  answers.join();
  for (const auto& each : answered) {
    ASSERT_EQ(each.size(), static_cast<std::size_t>(kEach));
    EXPECT_TRUE(std::is_sorted(each.begin(), each.end()));
  }
  EXPECT_EQ(wait_for([this](Store& store) { return store.trials(study).size(); }), kThreads * kEach);
  EXPECT_EQ(broken, 0);
}

TEST_F(GroupCommitTest, WorkThatThrowsIsUndoneAlone) {
  asio::thread_pool pool(1);
  std::atomic<int> good{0}, bad{0};
  // Held up until all is posted, so that it is one group.
  std::promise<void> go;
  group->async(
      pool.get_executor(), [wait = go.get_future().share()](Store&) { return wait.wait(), std::monostate{}; },
      [](StoreResult<std::monostate>) {});
  for (int n = 0; n < 30; ++n) {
    group->async(
        pool.get_executor(),
        [this, n](Store& store) {
          const auto next = static_cast<std::int64_t>(store.trials(study).size());
          add_trials(store, study, 1, next);
          if (n % 3 == 0) throw std::runtime_error("thrown after a write");
          if (n % 3 == 1) add_trials(store, study, 1, next);  // there already: a StoreError
          return std::monostate{};
        },
        [&](StoreResult<std::monostate> result) { ++(result.ok() ? good : bad); });
  }
  go.set_value();
  EXPECT_EQ(wait_for([this](Store& store) { return store.trials(study).size(); }), 10u);
  pool.join();
  EXPECT_EQ(good, 10);
  EXPECT_EQ(bad, 20);
  EXPECT_EQ(broken, 0);
}

TEST_F(GroupCommitTest, ExceptionOfTheWorkReachesTheAnswer) {
  EXPECT_THROW(wait_for([](Store&) -> int { throw std::out_of_range("mine"); }), std::out_of_range);
  EXPECT_EQ(wait_for([](Store&) { return 7; }), 7);
}

TEST_F(GroupCommitTest, DestructionFinishesWhatWasPosted) {
  asio::thread_pool pool(1);
  std::atomic<int> answered{0};
  for (int n = 0; n < 500; ++n) {
    group->async(
        pool.get_executor(), [this, n](Store& store) { return add_trials(store, study, 1, n)[0]; },
        [&](StoreResult<TrialId> result) { answered += result.ok(); });
  }
  group.reset();
  pool.join();
  EXPECT_EQ(answered, 500);
  EXPECT_EQ(Store::open(path, clock).trials(study).size(), 500u);
}

TEST_F(GroupCommitTest, FloodLargerThanAGroupIsStoredInOrder) {
  constexpr int kCount = 10'000;
  asio::thread_pool pool(1);
  std::vector<std::int64_t> ids;
  for (int n = 0; n < kCount; ++n) {
    group->async(
        pool.get_executor(),
        [this, n](Store& store) {
          store.add_event({0, 0, "flood", study, {}, {}, std::to_string(n)});
          return n;
        },
        [&](StoreResult<int> result) { ids.push_back(result.value()); });
  }
  group.reset();
  pool.join();
  ASSERT_EQ(ids.size(), static_cast<std::size_t>(kCount));
  EXPECT_TRUE(std::is_sorted(ids.begin(), ids.end()));
  EXPECT_EQ(StoreReader::open(path).events(study, 0, 100'000).size(), static_cast<std::size_t>(kCount));
}

}  // namespace
}  // namespace fusion
