#pragma once

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <string>
#include <vector>

#include "base/json_reader.h"
#include "tests/temporary_folder.h"
#include "workers/train/rank_group.h"

namespace fusion::testing {

/// Runs work(group) in so many processes, each a rank. What it returns is there in the end, in the order of the ranks: null of a rank that died.
class ForkedRanks {
 public:
  using Work = std::function<nlohmann::json(const RankGroup* group)>;

  /// `ranks` 1: without a group. `timeout`: of the group.
  ForkedRanks(int ranks, const Work& work, std::chrono::seconds timeout = std::chrono::seconds(120)) {
    for (int rank = 0; rank < ranks; ++rank) {
      int ends[2];
      if (::pipe(ends) != 0) throw std::runtime_error("pipe");
      const pid_t child = ::fork();
      if (child == 0) {
        ::close(ends[0]);
        run({rank, ranks, folder_ / "meeting", timeout}, work, ends[1]);
      }
      ::close(ends[1]);
      children_.push_back(child);
      results_.push_back(ends[0]);
    }
  }
  ForkedRanks(const ForkedRanks&) = delete;
  ForkedRanks& operator=(const ForkedRanks&) = delete;

  /// `stopped`: a rank that stopped itself and is killed when those before it have ended.
  std::vector<nlohmann::json> wait(std::size_t stopped = SIZE_MAX) {
    std::vector<nlohmann::json> all;
    for (std::size_t rank = 0; rank < children_.size(); ++rank) {
      if (rank == stopped) ::kill(children_[rank], SIGKILL);
      std::string text;
      char part[4096];
      for (ssize_t got = 0; (got = ::read(results_[rank], part, sizeof part)) > 0;) text.append(part, static_cast<std::size_t>(got));
      ::close(results_[rank]);
      int status = 0;
      ::waitpid(children_[rank], &status, 0);
      all.push_back(text.empty() ? nlohmann::json() : nlohmann::json::parse(text));
    }
    return all;
  }

 private:
  [[noreturn]] static void run(const RankPlace& place, const Work& work, int out) {
    nlohmann::json result;
    try {
      std::unique_ptr<RankGroup> group;
      if (place.ranks > 1) group = std::make_unique<RankGroup>(place, c10::Device(c10::kCPU));
      result = work(group.get());
    } catch (const std::exception& error) {
      result = {{"threw", error.what()}};
    }
    const std::string text = result.dump();
    ::_exit(::write(out, text.data(), text.size()) == static_cast<ssize_t>(text.size()) ? 0 : 3);
  }

  TemporaryFolder folder_;
  std::vector<pid_t> children_;
  std::vector<int> results_;
};

}  // namespace fusion::testing
