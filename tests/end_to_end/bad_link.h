#pragma once

#include <sys/types.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>

#include "tests/end_to_end/process.h"

namespace fusion::testing {

/// Two hosts on this machine: network namespaces with an address each, mount namespaces of their own, and between them a network that is as bad as
/// it is told to be. Packets are carried by a thread of this process from one TUN device to the other, which loses and delays them; so TCP is the
/// kernel's own, and no kernel module (netem) is needed. Needs root, /dev/net/tun, iproute2 and util-linux.
class TwoHosts {
 public:
  /// Why it cannot be had here: a sentence; empty if it can.
  static std::string missing();

  explicit TwoHosts(const Process::Options& options);
  ~TwoHosts();

  static constexpr const char* kAddress[2] = {"10.87.0.1", "10.87.0.2"};
  /// A command line that runs `command` on one of the hosts, 0 or 1.
  std::vector<std::string> on(int host, std::vector<std::string> command) const;
  /// That host sees an empty folder there from now on.
  void hide(int host, const std::filesystem::path& folder);

  /// Of each direction. `loss`: the part of the packets that is lost.
  void set_weather(std::chrono::milliseconds delay, double loss);
  /// True: nothing passes until it is false again.
  void set_partition(bool cut) { cut_ = cut; }
  std::uint64_t carried() const { return carried_; }
  std::uint64_t lost() const { return lost_; }

 private:
  int make_device(int host);
  void carry();

  Process::Options options_;
  std::unique_ptr<Process> holders_[2];
  int devices_[2] = {-1, -1};
  std::atomic<std::int64_t> delay_ms_{0};
  std::atomic<double> loss_{0};
  std::atomic<bool> cut_{false}, stopping_{false};
  std::atomic<std::uint64_t> carried_{0}, lost_{0};
  std::thread carrier_;
};

}  // namespace fusion::testing
