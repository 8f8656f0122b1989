#include "tools/bench/control_daemon.h"

#include <fcntl.h>
#include <mntent.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <fstream>
#include <thread>

#include "base/asio.h"
#include "base/error.h"
#include "base/files.h"

namespace fusion::bench {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

double ms_since(Clock::time_point from) { return std::chrono::duration<double, std::milli>(Clock::now() - from).count(); }

/// Nanoseconds on a processor, of one thread.
double thread_cpu_s(const fs::path& task) {
  std::ifstream stream(task / "schedstat");
  double ns = 0;
  stream >> ns;
  return ns * 1e-9;
}

bool connects(std::uint16_t port) {
  asio::io_context io;
  tcp::socket socket(io);
  boost::system::error_code error;
  socket.connect({asio::ip::address_v4::loopback(), port}, error);
  return !error;
}

}  // namespace

BenchFolder::BenchFolder(const fs::path& parent) {
  std::string name = (parent / "fusion-bench-XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr) throw Error(parent.string() + ": no folder can be made in it; choose another one with --folder");
  path_ = name;
}

BenchFolder::~BenchFolder() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

ControlDaemon::ControlDaemon(const std::string& program, const fs::path& folder, const std::vector<std::string>& more) {
  const fs::path port_file = folder / "port", log = folder / "fusiond.log";
  fs::remove(port_file);
  std::vector<std::string> command{program,       "--db",         (folder / "fusion.db").string(), "--listen", "127.0.0.1:0", "--port-file",
                                   port_file.string(), "--data-root", folder.string(), "--loopback", "same_user"};
  command.insert(command.end(), more.begin(), more.end());
  std::vector<char*> arguments;
  for (std::string& argument : command) arguments.push_back(argument.data());
  arguments.push_back(nullptr);
  const auto begin = Clock::now();
  pid_ = ::fork();
  if (pid_ == 0) {
    const int out = ::open(log.c_str(), O_CREAT | O_APPEND | O_WRONLY, 0644);
    ::dup2(out, STDOUT_FILENO);
    ::dup2(out, STDERR_FILENO);
    ::execv(arguments[0], arguments.data());
    ::_exit(127);
  }
  while (!fs::exists(port_file)) {
    if (::waitpid(pid_, nullptr, WNOHANG) == pid_) {
      pid_ = -1;
      throw Error(program + ": it ended instead of listening: " + (fs::exists(log) ? read_text(log) : ""));
    }
    if (ms_since(begin) > 600'000) throw Error(program + ": it was not ready after 600 s");
    std::this_thread::sleep_for(1ms);
  }
  port_ = static_cast<std::uint16_t>(std::stoi(read_text(port_file)));
  while (!connects(port_)) std::this_thread::sleep_for(1ms);
  ready_ms_ = ms_since(begin);
}

ControlDaemon::~ControlDaemon() { kill(); }

void ControlDaemon::kill() {
  if (pid_ <= 0) return;
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
  pid_ = -1;
}

double ControlDaemon::cpu_s() const {
  double sum = 0;
  for (const auto& task : fs::directory_iterator("/proc/" + std::to_string(pid_) + "/task")) sum += thread_cpu_s(task.path());
  return sum;
}

double ControlDaemon::io_cpu_s() const {
  const std::string pid = std::to_string(pid_);
  return thread_cpu_s("/proc/" + pid + "/task/" + pid);
}

double ControlDaemon::resident_mb() const {
  std::ifstream stream("/proc/" + std::to_string(pid_) + "/statm");
  double size = 0, resident = 0;
  stream >> size >> resident;
  return resident * static_cast<double>(::sysconf(_SC_PAGESIZE)) / (1 << 20);
}

nlohmann::json ControlDaemon::get(const std::string& target) const {
  int status = 0;
  const std::string body = HttpClient(port_).request("GET", target, "", &status);
  if (status / 100 != 2) throw Error("GET " + target + ": status " + std::to_string(status) + ": " + body);
  return nlohmann::json::parse(body);
}

nlohmann::json ControlDaemon::post(const std::string& target, const nlohmann::json& document) const {
  int status = 0;
  const std::string body = HttpClient(port_).request("POST", target, document.dump(), &status);
  if (status / 100 != 2) throw Error("POST " + target + ": status " + std::to_string(status) + ": " + body);
  return nlohmann::json::parse(body);
}

struct HttpClient::Impl {
  asio::io_context io;
  beast::tcp_stream stream{io};
  beast::flat_buffer buffer;
};

HttpClient::HttpClient(std::uint16_t port) : impl_(std::make_unique<Impl>()) {
  impl_->stream.connect(tcp::endpoint(asio::ip::address_v4::loopback(), port));
  impl_->stream.socket().set_option(tcp::no_delay(true));
}

HttpClient::~HttpClient() = default;

std::string HttpClient::request(const std::string& method, const std::string& target, const std::string& body, int* status) {
  http::request<http::string_body> request(http::string_to_verb(method), target, 11);
  request.set(http::field::host, "127.0.0.1");
  request.body() = body;
  if (!body.empty()) request.set(http::field::content_type, "application/json");
  request.prepare_payload();
  http::write(impl_->stream, request);
  http::response_parser<http::string_body> parser;
  parser.body_limit(256u << 20);
  http::read(impl_->stream, impl_->buffer, parser);
  if (status != nullptr) *status = parser.get().result_int();
  return std::move(parser.get().body());
}

Disk measure_disk(const fs::path& folder) {
  Disk disk;
  std::size_t longest = 0;
  const std::string path = fs::weakly_canonical(folder).string();
  if (std::FILE* mounts = ::setmntent("/proc/self/mounts", "r")) {
    while (const mntent* mount = ::getmntent(mounts)) {
      const std::string at = mount->mnt_dir;
      if (path.compare(0, at.size(), at) != 0 || at.size() < longest) continue;
      longest = at.size();
      disk.file_system = mount->mnt_type;
    }
    ::endmntent(mounts);
  }
  const int file = ::open((folder / "sync-probe").c_str(), O_CREAT | O_TRUNC | O_WRONLY, 0644);
  const std::string page(4096, 'x');
  const auto begin = Clock::now();
  int syncs = 0;
  for (; syncs < 200 || ms_since(begin) < 300; ++syncs) {
    if (::write(file, page.data(), page.size()) < 0 || ::fdatasync(file) != 0) break;
  }
  disk.syncs_per_s = syncs / ms_since(begin) * 1000;
  ::close(file);
  fs::remove(folder / "sync-probe");
  return disk;
}

}  // namespace fusion::bench
