#include "workers/launch/pool_options.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <set>

namespace fusion {

namespace {

constexpr std::int64_t kMostWorkers = 10'000;
constexpr double kDay = 86'400;

/// It stands in the names of jobs and files.
bool is_pool_name(const std::string& name) {
  return !name.empty() && name.size() <= 40 &&
         std::ranges::all_of(name, [](unsigned char c) { return std::isalnum(c) || c == '-' || c == '_'; });
}

/// What the daemon tells sbatch itself, because it recognises its jobs by it.
std::string forbidden_argument(const std::string& argument) {
  static constexpr std::array<std::string_view, 10> kOurs{"--array", "--comment", "--job-name", "--parsable", "--wrap", "--export", "--wait", "--ntasks",
                                                          "--signal", "--chdir"};
  const std::string_view name = std::string_view(argument).substr(0, argument.find('='));
  for (const std::string_view ours : kOurs) {
    if (name == ours) return std::string(ours);
  }
  for (const std::string_view ours : {"-a", "-J", "-W", "-n", "-D"}) {
    if (argument.starts_with(ours)) return std::string(ours);
  }
  return "";
}

std::map<std::string, std::string> read_environment(JsonReader reader) {
  std::map<std::string, std::string> environment;
  if (!reader.value().is_object()) return environment;
  for (const auto& [key, value] : reader.value().items()) {
    if (key.empty() || key.find('=') != std::string::npos) reader.fail(key, "expected the name of an environment variable");
    if (key.find("TOKEN") != std::string::npos && key != "FUSION_TOKEN_FILE") {
      reader.fail(key, "expected no secret here: name a file of mode 0600 in token_file");
    }
    environment[key] = reader.text(key);
  }
  return environment;
}

void read_slurm_keys(JsonReader& reader, PoolOptions& pool) {
  pool.url = reader.text("url", pool.url);
  pool.token_file = reader.text("token_file", pool.token_file);
  pool.cpus_per_worker = static_cast<int>(reader.integer("cpus_per_worker", 1, 4'096, pool.cpus_per_worker));
  pool.gpus_per_worker = static_cast<int>(reader.integer("gpus_per_worker", 0, 64, pool.gpus_per_worker));
  pool.memory = reader.text("memory", pool.memory);
  pool.time = reader.text("time", pool.time);
  pool.partition = reader.text("partition", pool.partition);
  pool.account = reader.text("account", pool.account);
  pool.qos = reader.text("qos", pool.qos);
  pool.extra_args = reader.texts("extra_args", pool.extra_args);
  for (const std::string& argument : pool.extra_args) {
    if (const std::string ours = forbidden_argument(argument); !ours.empty()) {
      reader.fail("extra_args", "expected no " + ours + ", which fusiond gives sbatch itself, got \"" + argument + "\"");
    }
  }
  pool.prologue = reader.text("prologue", pool.prologue);
  pool.script_template = reader.text("template", pool.script_template);
  pool.log_folder = reader.text("log_folder", pool.log_folder);
  pool.on_stop = reader.choice<OnStop>("on_stop", pool.on_stop);
}

PoolOptions read_pool(JsonReader& reader) {
  PoolOptions pool;
  pool.name = reader.text("name");
  if (!is_pool_name(pool.name)) reader.fail("name", "expected 1 to 40 letters, digits, - and _, got \"" + pool.name + "\"");
  pool.launcher = reader.choice<LauncherKind>("launcher");
  pool.max = static_cast<int>(reader.integer("max", 0, kMostWorkers));
  pool.min = static_cast<int>(reader.integer("min", 0, kMostWorkers, pool.min));
  if (pool.min > pool.max) reader.fail("min", "expected at most max, which is " + std::to_string(pool.max) + ", got " + std::to_string(pool.min));
  pool.trials_per_worker = static_cast<int>(reader.integer("trials_per_worker", 0, 65'536, pool.trials_per_worker));
  pool.shrink_after_s = reader.number("shrink_after_s", 0, 30 * kDay, pool.shrink_after_s);
  pool.worker_program = reader.text("worker_program", pool.worker_program);
  pool.worker_args = reader.texts("worker_args", pool.worker_args);
  pool.device = reader.text("device", pool.device);
  pool.environment = read_environment(reader.object("environment"));
  if (pool.launcher == LauncherKind::slurm) read_slurm_keys(reader, pool);
  if (pool.device.empty()) pool.device = pool.gpus_per_worker > 0 ? "cuda:0" : "cpu";
  reader.raw("$comment");
  reader.finish();
  return pool;
}

}  // namespace

nlohmann::json PoolOptions::to_json() const {
  nlohmann::json json{{"name", name},
                      {"launcher", name_of(launcher)},
                      {"min", min},
                      {"max", max},
                      {"trials_per_worker", trials_per_worker},
                      {"shrink_after_s", shrink_after_s},
                      {"worker_program", worker_program},
                      {"worker_args", worker_args},
                      {"device", device},
                      {"environment", environment}};
  if (launcher != LauncherKind::slurm) return json;
  json.update({{"url", url},
               {"token_file", token_file},
               {"cpus_per_worker", cpus_per_worker},
               {"gpus_per_worker", gpus_per_worker},
               {"memory", memory},
               {"time", time},
               {"partition", partition},
               {"account", account},
               {"qos", qos},
               {"extra_args", extra_args},
               {"prologue", prologue},
               {"template", script_template},
               {"log_folder", log_folder},
               {"on_stop", name_of(on_stop)}});
  return json;
}

SlurmTimes SlurmTimes::read(JsonReader reader) {
  SlurmTimes t;
  t.poll_s = reader.number("poll_s", 0.1, kDay, t.poll_s);
  t.steady_poll_s = reader.number("steady_poll_s", 0.1, kDay, t.steady_poll_s);
  if (t.steady_poll_s < t.poll_s) reader.fail("steady_poll_s", "expected at least poll_s");
  t.command_s = reader.number("command_s", 0.1, 600, t.command_s);
  t.absent_s = reader.number("absent_s", 0, kDay, t.absent_s);
  t.leave_s = reader.number("leave_s", 0, kDay, t.leave_s);
  t.connect_s = reader.number("connect_s", 0, kDay, t.connect_s);
  t.retry_s = reader.number("retry_s", 0.1, kDay, t.retry_s);
  t.retry_most_s = reader.number("retry_most_s", 0.1, kDay, t.retry_most_s);
  if (t.retry_most_s < t.retry_s) reader.fail("retry_most_s", "expected at least retry_s");
  reader.finish();
  return t;
}

nlohmann::json SlurmTimes::to_json() const {
  return {{"poll_s", poll_s},   {"steady_poll_s", steady_poll_s}, {"command_s", command_s}, {"absent_s", absent_s},
          {"leave_s", leave_s}, {"connect_s", connect_s},         {"retry_s", retry_s},     {"retry_most_s", retry_most_s}};
}

std::vector<PoolOptions> read_pools(JsonReader& reader) {
  std::vector<PoolOptions> pools;
  std::set<std::string> names;
  for (JsonReader& element : reader.list("pools")) {
    pools.push_back(read_pool(element));
    if (!names.insert(pools.back().name).second) element.fail("name", "expected a name that no other pool has, got \"" + pools.back().name + "\"");
  }
  return pools;
}

nlohmann::json pools_json(const std::vector<PoolOptions>& pools) {
  nlohmann::json list = nlohmann::json::array();
  for (const PoolOptions& pool : pools) list.push_back(pool.to_json());
  return list;
}

}  // namespace fusion
