#pragma once

#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/end_to_end/process.h"
#include "tests/temporary_folder.h"

namespace fusion::testing {

/// A real system in a folder of its own: fusiond with local workers, fusionctl, small features in features/.
class System {
 public:
  System();
  /// Starts fusiond on a free port and waits until it is ready. `more`: further options, or other values for ours. With --tls-certificate among
  /// them, or another address in --listen, `url()` is accordingly.
  void start(int local_workers, const std::map<std::string, std::string>& more = {});
  /// SIGTERM; returns the exit status.
  int stop();
  void kill_daemon();

  Process& daemon() { return *daemon_; }
  const std::string& url() const { return url_; }  ///< of the daemon that was started last
  const TemporaryFolder& folder() const { return folder_; }
  Process::Options options() const;

  /// What fusionctl finds in its environment from now on, beside FUSION_URL.
  void tell_ctl(std::map<std::string, std::string> environment) { ctl_environment_ = std::move(environment); }
  /// fusionctl with these arguments.
  Finished ctl(const std::vector<std::string>& arguments);
  /// The same with --json; fails the test if it does not exit 0.
  nlohmann::json ctl_json(std::vector<std::string> arguments);
  /// Writes the study into study.json and submits it; returns its id.
  std::int64_t submit(const nlohmann::json& study);
  /// Waits until the study ended; returns its state.
  std::string wait_for(std::int64_t study, std::chrono::seconds limit = std::chrono::seconds(180));
  /// Waits until so many of its trials are completed.
  void wait_for_completed(std::int64_t study, std::int64_t trials, std::chrono::seconds limit = std::chrono::seconds(120));
  /// Waits until it holds; else fails the test with what the daemon said.
  void wait_until(const std::function<bool()>& holds, std::chrono::seconds limit = std::chrono::seconds(180));
  /// A fusion-worker that trains nothing.
  std::unique_ptr<Process> simulated_worker(const std::string& name, const std::vector<std::string>& more = {}, const std::string& objective = "formula",
                                            const std::map<std::string, std::string>& environment = {}) const;
  /// One value or table of the database, read directly.
  nlohmann::json sql(const std::string& statement);

  /// An mfas study of 12 + 3 x 5 = 27 trials on the small features.
  static nlohmann::json small_study();

 private:
  TemporaryFolder folder_;
  std::unique_ptr<Process> daemon_;
  std::string url_;
  std::map<std::string, std::string> ctl_environment_;
};

}  // namespace fusion::testing
