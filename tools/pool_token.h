#pragma once

#include <functional>
#include <string>

#include "base/asio.h"

namespace fusion {

class Access;

/// Whether workers that show the token of a pool's file would be let in.
///
/// Lives on the I/O thread. Files are read on a thread of its own, one after the other: a pool's file lies where the nodes see it too, so
/// perhaps on a disk that does not answer.
class PoolTokens {
 public:
  using Say = std::function<void(std::string)>;

  /// `access` must outlive it.
  PoolTokens(asio::io_context& io, const Access& access) : io_(io), access_(access) {}

  /// Tells in one sentence why they would be turned away: the file cannot be read or may be read by others, the token is not known (any more), or is
  /// of another role. An empty one: they would be let in. `say` is called on the I/O thread, later.
  void check(const std::string& token_file, Say say);
  /// Waits for the file that is being read.
  void join() { reading_.join(); }

 private:
  std::string problem(const std::string& token_file, const std::string& token) const;

  asio::io_context& io_;
  const Access& access_;
  asio::thread_pool reading_{1};
};

}  // namespace fusion
