#include "tests/end_to_end/bad_link.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <deque>
#include <filesystem>
#include <vector>

#include "base/random.h"

namespace fusion::testing {

namespace {

using Clock = std::chrono::steady_clock;
constexpr const char* kUnshare = "/usr/bin/unshare";
constexpr const char* kNsenter = "/usr/bin/nsenter";

struct Packet {
  Clock::time_point due;
  std::vector<char> bytes;
};

std::filesystem::path link_of(pid_t pid) { return "/proc/" + std::to_string(pid) + "/ns/net"; }

std::string network_of(const std::filesystem::path& link) {
  std::error_code error;
  return std::filesystem::read_symlink(link, error).string();
}

}  // namespace

std::string TwoHosts::missing() {
  if (::geteuid() != 0) return "network namespaces need root";
  for (const char* file : {kUnshare, kNsenter, "/usr/bin/mount", "/bin/ip", "/dev/net/tun"}) {
    if (!std::filesystem::exists(file)) return std::string(file) + " is not there (iproute2, util-linux, a kernel with TUN)";
  }
  const int device = ::open("/dev/net/tun", O_RDWR | O_CLOEXEC);
  if (device < 0) return std::string("/dev/net/tun cannot be opened: ") + std::strerror(errno);
  ::close(device);
  return "";
}

TwoHosts::TwoHosts(const Process::Options& options) : options_(options) {
  const std::string ours = network_of("/proc/self/ns/net");
  for (int host = 0; host < 2; ++host) {
    holders_[host] = std::make_unique<Process>(std::vector<std::string>{kUnshare, "--net", "--mount", "/usr/bin/sleep", "100000"}, options_);
    const auto end = Clock::now() + std::chrono::seconds(30);
    while (network_of(link_of(holders_[host]->pid())) == ours && Clock::now() < end) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    devices_[host] = make_device(host);
    const std::string address = kAddress[host], peer = kAddress[1 - host];
    for (const auto& command : std::vector<std::vector<std::string>>{{"/bin/ip", "link", "set", "lo", "up"},
                                                                     {"/bin/ip", "addr", "add", address, "peer", peer, "dev", "link0"},
                                                                     {"/bin/ip", "link", "set", "link0", "up"}}) {
      const Finished finished = run(on(host, command), options_);
      EXPECT_EQ(finished.status, 0) << finished.err;
    }
  }
  carrier_ = std::thread([this] { carry(); });
}

TwoHosts::~TwoHosts() {
  stopping_ = true;
  if (carrier_.joinable()) carrier_.join();
  for (const int device : devices_) {
    if (device >= 0) ::close(device);
  }
}

// A thread may be in another network than its process; what it opens stays there.
int TwoHosts::make_device(int host) {
  int device = -1;
  std::thread([&] {
    const int network = ::open(link_of(holders_[host]->pid()).c_str(), O_RDONLY | O_CLOEXEC);
    if (network < 0 || ::setns(network, CLONE_NEWNET) != 0) return;
    ::close(network);
    device = ::open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
    ifreq request{};
    request.ifr_flags = IFF_TUN | IFF_NO_PI;
    std::strncpy(request.ifr_name, "link0", IFNAMSIZ - 1);
    if (device >= 0 && ::ioctl(device, TUNSETIFF, &request) == 0) return;
    ::close(device);
    device = -1;
  }).join();
  EXPECT_GE(device, 0) << "no TUN device: " << std::strerror(errno);
  return device;
}

std::vector<std::string> TwoHosts::on(int host, std::vector<std::string> command) const {
  std::vector<std::string> whole{kNsenter, "--target", std::to_string(holders_[host]->pid()), "--net", "--mount"};
  whole.insert(whole.end(), command.begin(), command.end());
  return whole;
}

void TwoHosts::hide(int host, const std::filesystem::path& folder) {
  const Finished finished = run(on(host, {"/usr/bin/mount", "-t", "tmpfs", "tmpfs", folder.string()}), options_);
  EXPECT_EQ(finished.status, 0) << finished.err;
}

void TwoHosts::set_weather(std::chrono::milliseconds delay, double loss) {
  delay_ms_ = delay.count();
  loss_ = loss;
}

void TwoHosts::carry() {
  Rng luck(1);
  std::deque<Packet> waiting[2];  // to the device of that number
  std::array<char, 65'536> buffer;
  while (!stopping_) {
    auto wake = Clock::now() + std::chrono::milliseconds(20);
    for (const auto& queue : waiting) {
      if (!queue.empty()) wake = std::min(wake, queue.front().due);
    }
    const auto pause = std::chrono::duration_cast<std::chrono::milliseconds>(wake - Clock::now()).count();
    pollfd ready[2] = {{devices_[0], POLLIN, 0}, {devices_[1], POLLIN, 0}};
    ::poll(ready, 2, static_cast<int>(std::max<std::int64_t>(0, pause)));
    for (int from = 0; from < 2; ++from) {
      for (ssize_t n = 0; (n = ::read(devices_[from], buffer.data(), buffer.size())) > 0;) {
        if (cut_ || luck.uniform(0, 1) < loss_) {
          ++lost_;
          continue;
        }
        waiting[1 - from].push_back({Clock::now() + std::chrono::milliseconds(delay_ms_), {buffer.data(), buffer.data() + n}});
      }
    }
    for (int to = 0; to < 2; ++to) {
      while (!waiting[to].empty() && waiting[to].front().due <= Clock::now()) {
        const Packet& packet = waiting[to].front();
        if (!cut_ && ::write(devices_[to], packet.bytes.data(), packet.bytes.size()) > 0) ++carried_;
        waiting[to].pop_front();
      }
    }
  }
}

}  // namespace fusion::testing
