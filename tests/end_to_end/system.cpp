#include "tests/end_to_end/system.h"

#include <gtest/gtest.h>
#include <signal.h>

#include <thread>

#include "base/files.h"
#include "store/store_reader.h"
#include "tests/end_to_end/small_features.h"

namespace fusion::testing {

using nlohmann::json;

namespace {
void pause_briefly() { std::this_thread::sleep_for(std::chrono::milliseconds(50)); }
}  // namespace

System::System() { write_small_features(folder_ / "features"); }

Process::Options System::options() const {
  return {folder_.path(), {{"FUSION_URL", url_}, {"OPENBLAS_NUM_THREADS", "1"}, {"OMP_NUM_THREADS", "1"}}};
}

void System::start(int local_workers, const std::map<std::string, std::string>& more) {
  std::filesystem::remove(folder_ / "port");
  std::map<std::string, std::string> arguments{{"--db", (folder_ / "fusion.db").string()},
                                               {"--listen", "127.0.0.1:0"},
                                               {"--port-file", (folder_ / "port").string()},
                                               {"--local-workers", std::to_string(local_workers)},
                                               {"--reconnect-grace-s", "0.5"},
                                               {"--loopback", "same_user"},
                                               {"--lease-s", "6"}};
  for (const auto& [option, value] : more) arguments[option] = value;
  std::vector<std::string> command{program("fusiond")};
  for (const auto& [option, value] : arguments) command.insert(command.end(), {option, value});
  daemon_ = std::make_unique<Process>(command, options());
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (!std::filesystem::exists(folder_ / "port")) {
    ASSERT_TRUE(daemon_->running()) << daemon_->err();
    ASSERT_LT(std::chrono::steady_clock::now(), end) << daemon_->err();
    pause_briefly();
  }
  std::string port = read_text(folder_ / "port");
  while (!port.empty() && port.back() == '\n') port.pop_back();
  const std::string listen = arguments.at("--listen");
  url_ = (arguments.contains("--tls-certificate") ? "https://" : "http://") + listen.substr(0, listen.rfind(':')) + ":" + port;
}

int System::stop() {
  daemon_->signal(SIGTERM);
  return daemon_->wait(std::chrono::seconds(60));
}

void System::kill_daemon() {
  daemon_->signal(SIGKILL);
  daemon_->wait(std::chrono::seconds(10));
}

Finished System::ctl(const std::vector<std::string>& arguments) {
  std::vector<std::string> command{program("fusionctl")};
  command.insert(command.end(), arguments.begin(), arguments.end());
  Process::Options all = options();
  all.environment.insert(ctl_environment_.begin(), ctl_environment_.end());
  return run(command, all);
}

json System::ctl_json(std::vector<std::string> arguments) {
  arguments.push_back("--json");
  const Finished finished = ctl(arguments);
  EXPECT_EQ(finished.status, 0) << finished.err;
  json parsed = json::parse(finished.out, nullptr, false);
  EXPECT_FALSE(parsed.is_discarded()) << finished.out;
  return parsed;
}

std::int64_t System::submit(const json& study) {
  write_atomically(folder_ / "study.json", study.dump(2));
  const json answer = ctl_json({"submit", (folder_ / "study.json").string()});
  return answer.is_object() && answer.contains("study") ? answer["study"]["id"].get<std::int64_t>() : 0;
}

std::string System::wait_for(std::int64_t study, std::chrono::seconds limit) {
  const auto end = std::chrono::steady_clock::now() + limit;
  while (std::chrono::steady_clock::now() < end) {
    const json rows = sql("select state from studies where id = " + std::to_string(study));
    const std::string state = rows.empty() ? "missing" : rows[0][0].get<std::string>();
    if (state != "running") return state;
    pause_briefly();
  }
  ADD_FAILURE() << "the study did not end in time; the daemon said:\n" << daemon_->err();
  return "too late";
}

void System::wait_for_completed(std::int64_t study, std::int64_t trials, std::chrono::seconds limit) {
  const std::string completed = "select count(*) from trials where state = 'completed' and study_id = " + std::to_string(study);
  wait_until([&] { return sql(completed)[0][0] >= trials; }, limit);
}

void System::wait_until(const std::function<bool()>& holds, std::chrono::seconds limit) {
  const auto end = std::chrono::steady_clock::now() + limit;
  while (!holds()) {
    ASSERT_LT(std::chrono::steady_clock::now(), end) << "it did not come true in time; the daemon said:\n" << daemon_->err();
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

std::unique_ptr<Process> System::simulated_worker(const std::string& name, const std::vector<std::string>& more, const std::string& objective,
                                                  const std::map<std::string, std::string>& environment) const {
  std::vector<std::string> command{program("fusion-worker"), "--name", name, "--simulate", objective};
  command.insert(command.end(), more.begin(), more.end());
  Process::Options there = options();
  there.environment.insert(environment.begin(), environment.end());
  return std::make_unique<Process>(command, there);
}

json System::sql(const std::string& statement) {
  return StoreReader::open((folder_ / "fusion.db").string()).query(statement, 100'000, std::chrono::seconds(10))["rows"];
}

json System::small_study() {
  return {{"name", "small"},
          {"dataset", "features/features.json"},
          {"space", {{"steps", {{"max", 2}}}}},
          {"strategy", {{"name", "mfas"}, {"iterations", 2}, {"levels", 2}, {"samples", 5}}},
          {"training", {{"epochs", 2}, {"dropout", 0.1}, {"evaluate_test", true}}},
          {"seed", 7}};
}

}  // namespace fusion::testing
