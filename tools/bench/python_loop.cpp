#include "tools/bench/python_loop.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "base/error.h"

extern char** environ;

namespace fusion::bench {
namespace {

nlohmann::json job_of(const Shape& shape, std::span<const Architecture> architectures) {
  const TrainingOptions& options = shape.options;
  nlohmann::json job{{"widths", shape.widths},   {"rows", shape.rows},       {"classes", shape.classes},
                     {"width", options.width},   {"batch", options.batch},   {"dropout", options.dropout},
                     {"eta_max", options.eta_max}, {"eta_min", options.eta_min}, {"weight_decay", options.weight_decay}};
  for (const Architecture& architecture : architectures) job["architectures"].push_back(to_triplets(architecture));
  return job;
}

}  // namespace

std::unique_ptr<PythonLoop> PythonLoop::start(const std::string& python, const std::string& script, const Shape& shape,
                                              std::span<const Architecture> architectures) {
  ::signal(SIGPIPE, SIG_IGN);  // a child that has ended is noticed by its missing answer
  int to[2], from[2];
  if (::pipe2(to, O_CLOEXEC) != 0 || ::pipe2(from, O_CLOEXEC) != 0) throw Error("no pipe to Python could be made");
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, to[0], 0);
  ::posix_spawn_file_actions_adddup2(&actions, from[1], 1);
  std::string job = job_of(shape, architectures).dump(), program = python, path = script;
  char* const arguments[] = {program.data(), path.data(), job.data(), nullptr};
  pid_t child = 0;
  const int failed = ::posix_spawn(&child, python.c_str(), &actions, nullptr, arguments, environ);
  ::posix_spawn_file_actions_destroy(&actions);
  ::close(to[0]);
  ::close(from[1]);
  if (failed != 0) {
    ::close(to[1]);
    ::close(from[0]);
    std::fprintf(stderr, "bench_trainer: %s could not be started: nothing is compared with Python\n", python.c_str());
    return nullptr;
  }
  std::unique_ptr<PythonLoop> loop(new PythonLoop(child, ::fdopen(to[1], "w"), ::fdopen(from[0], "r")));
  const nlohmann::json ready = nlohmann::json::parse(loop->line(), nullptr, false);
  if (ready.is_discarded() || !ready.contains("torch")) {
    std::fprintf(stderr, "bench_trainer: %s has no torch (Debian: python3-torch): nothing is compared with Python\n", python.c_str());
    return nullptr;
  }
  return loop;
}

PythonLoop::~PythonLoop() {
  std::fclose(to_);  // the end of its input ends it
  std::fclose(from_);
  ::waitpid(child_, nullptr, 0);
}

std::string PythonLoop::line() {
  std::string text;
  for (int c = std::fgetc(from_); c != EOF && c != '\n'; c = std::fgetc(from_)) text.push_back(static_cast<char>(c));
  return text;
}

double PythonLoop::run(std::int64_t steps) {
  std::fprintf(to_, "%lld\n", static_cast<long long>(steps));
  std::fflush(to_);
  const nlohmann::json answer = nlohmann::json::parse(line(), nullptr, false);
  if (answer.is_discarded()) throw Error("the Python loop ended in the middle of a measurement");
  return answer.at("cpu_s_per_step").get<double>();
}

}  // namespace fusion::bench
