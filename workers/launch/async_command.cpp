#include "workers/launch/async_command.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>
#include <optional>
#include <system_error>

#include "base/asio.h"
#include "workers/launch/child_process.h"

namespace fusion {

namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMostOutput = 64u << 20;
constexpr std::chrono::milliseconds kReapEvery{5};

/// A descriptor that is closed with its owner, and in every child.
class Descriptor {
 public:
  explicit Descriptor(int value) : value_(value) {
    if (value_ < 0) throw std::system_error(errno, std::generic_category(), "descriptor");
  }
  ~Descriptor() {
    if (value_ >= 0) ::close(value_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return value_; }
  int release() { return std::exchange(value_, -1); }

 private:
  int value_;
};

std::array<int, 2> make_pipe() {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) throw std::system_error(errno, std::generic_category(), "pipe");
  return ends;
}

// A file in memory in place of a pipe: nothing has to be written while the command runs, and one that reads nothing breaks no pipe.
int input_file(const std::string& text) {
  Descriptor file(::memfd_create("input", MFD_CLOEXEC));
  for (std::size_t at = 0; at < text.size();) {
    const ssize_t wrote = ::write(file.get(), text.data() + at, text.size() - at);
    if (wrote <= 0) throw std::system_error(errno, std::generic_category(), "input");
    at += static_cast<std::size_t>(wrote);
  }
  ::lseek(file.get(), 0, SEEK_SET);
  return file.release();
}

}  // namespace

class AsyncCommand::Impl : public std::enable_shared_from_this<Impl> {
 public:
  Impl(asio::io_context& io, std::function<void(CommandEnd)> done)
      : io_(io), output_{asio::posix::stream_descriptor(io), {}}, errors_{asio::posix::stream_descriptor(io), {}}, limit_(io), reap_(io),
        done_(std::move(done)) {}
  ~Impl() {
    if (pid_ <= 0) return;
    kill();
    ::waitpid(pid_, nullptr, 0);
  }

  void start(CommandLine line) {
    try {
      spawn(line);
    } catch (const std::system_error& error) {
      end_.problem = error.code().message();
      asio::post(io_, [weak = weak_from_this()] {
        if (const auto self = weak.lock()) self->finish();
      });
      return;
    }
    read(output_, end_.output);
    read(errors_, end_.errors);
    limit_.expires_after(line.limit);
    limit_.async_wait([weak = weak_from_this(), limit = line.limit](boost::system::error_code error) {
      const auto self = weak.lock();
      if (error || !self || self->pid_ <= 0) return;
      const std::string seconds = std::to_string(std::chrono::duration<double>(limit).count());
      self->end_.problem = "did not end within " + seconds.substr(0, seconds.find('.') + 2) + " s";
      self->kill();
    });
  }

 private:
  struct Stream {
    asio::posix::stream_descriptor descriptor;
    std::array<char, 16'384> buffer;
    bool open = false;
  };

  void spawn(const CommandLine& line) {
    const Descriptor input(input_file(line.input));
    const std::array<int, 2> out = make_pipe();
    output_.descriptor.assign(out[0]);
    const Descriptor out_end(out[1]);
    const std::array<int, 2> err = make_pipe();
    errors_.descriptor.assign(err[0]);
    const Descriptor err_end(err[1]);
    ChildCommand child;
    child.program = line.program;
    child.arguments = line.arguments;
    child.environment = line.environment;
    child.only_environment = true;
    child.input = input.get();
    child.output = out_end.get();
    child.errors = err_end.get();
    pid_ = start_child(child);
  }

  void read(Stream& stream, std::string& into) {
    stream.open = true;
    stream.descriptor.async_read_some(asio::buffer(stream.buffer), [weak = weak_from_this(), &stream, &into](boost::system::error_code error, std::size_t size) {
      const auto self = weak.lock();  // which the two references are parts of
      if (!self) return;
      into.append(stream.buffer.data(), size);
      if (into.size() > kMostOutput) {
        self->end_.problem = "wrote more than 64 MB";
        self->kill();
        error = asio::error::no_buffer_space;
      }
      if (!error) return self->read(stream, into);
      stream.open = false;
      if (!self->output_.open && !self->errors_.open) self->reap();
    });
  }

  // Who has closed both ends has as good as ended.
  void reap() {
    const auto status = ended_child(pid_);
    if (!status) {
      reap_.expires_after(kReapEvery);
      reap_.async_wait([weak = weak_from_this()](boost::system::error_code error) {
        const auto self = weak.lock();
        if (!error && self) self->reap();
      });
      return;
    }
    pid_ = 0;
    limit_.cancel();
    if (end_.problem.empty() && WIFEXITED(*status)) end_.status = WEXITSTATUS(*status);
    else if (end_.problem.empty()) end_.problem = end_text(*status);
    finish();
  }

  // The pipes go too: somebody who left the process group might hold the other ends for ever.
  void kill() {
    ::kill(-pid_, SIGKILL);
    boost::system::error_code ignored;
    output_.descriptor.close(ignored);
    errors_.descriptor.close(ignored);
  }
  void finish() {
    if (done_) std::exchange(done_, nullptr)(std::move(end_));
  }

  asio::io_context& io_;
  Stream output_, errors_;
  asio::steady_timer limit_, reap_;
  std::function<void(CommandEnd)> done_;
  CommandEnd end_;
  pid_t pid_ = 0;
};

std::unique_ptr<AsyncCommand> AsyncCommand::start(asio::io_context& io, CommandLine line, std::function<void(CommandEnd)> done) {
  auto impl = std::make_shared<Impl>(io, std::move(done));
  impl->start(std::move(line));
  return std::unique_ptr<AsyncCommand>(new AsyncCommand(std::move(impl)));
}

AsyncCommand::~AsyncCommand() = default;

std::string find_program(const std::string& name, const std::string& path) {
  const auto usable = [](const fs::path& file) {
    std::error_code ignored;
    return ::access(file.c_str(), X_OK) == 0 && !fs::is_directory(file, ignored);
  };
  if (name.find('/') != std::string::npos) return usable(name) ? name : "";
  for (std::size_t begin = 0; begin <= path.size();) {
    const std::size_t end = std::min(path.find(':', begin), path.size());
    const fs::path file = fs::path(path.substr(begin, end - begin)) / name;
    if (end > begin && usable(file)) return file.string();
    begin = end + 1;
  }
  return "";
}

}  // namespace fusion
