#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/asio.h"

namespace fusion {

/// A file that is open, of which a part is sent: the body of an HTTP message for Beast. 64 KiB are in memory at a time, read as the peer
/// takes them. A file that became shorter meanwhile ends the connection amid the answer.
struct FilePart {
  struct value_type {
    value_type() = default;
    ~value_type() {
      if (fd >= 0) ::close(fd);
    }
    value_type(const value_type&) = delete;
    value_type& operator=(const value_type&) = delete;
    value_type(value_type&& other) noexcept : fd(std::exchange(other.fd, -1)), size(other.size), begin(other.begin), bytes(other.bytes) {}
    value_type& operator=(value_type&&) = delete;

    /// All of it, until `begin` and `bytes` are changed. Regular files only.
    void open(const std::string& file, boost::system::error_code& error) {
      fd = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
      struct stat state {};
      if (fd < 0 || ::fstat(fd, &state) != 0) {
        error.assign(errno, boost::system::system_category());
      } else if (!S_ISREG(state.st_mode)) {
        error = boost::system::errc::make_error_code(boost::system::errc::no_such_file_or_directory);
      } else {
        size = bytes = static_cast<std::uint64_t>(state.st_size);
        ::posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
      }
    }

    int fd = -1;
    std::uint64_t size = 0;              ///< of the file
    std::uint64_t begin = 0, bytes = 0;  ///< what is sent
  };

  static std::uint64_t size(const value_type& body) { return body.bytes; }

  class writer {
   public:
    using const_buffers_type = asio::const_buffer;

    template <bool kRequest, typename Fields>
    writer(const http::header<kRequest, Fields>&, const value_type& body) : body_(body), at_(body.begin), left_(body.bytes) {}

    void init(boost::system::error_code& error) {
      buffer_.resize(64u << 10);
      error = {};
    }

    boost::optional<std::pair<const_buffers_type, bool>> get(boost::system::error_code& error) {
      error = {};
      if (left_ == 0) return boost::none;
      const std::size_t wanted = static_cast<std::size_t>(std::min<std::uint64_t>(left_, buffer_.size()));
      const ssize_t got = ::pread(body_.fd, buffer_.data(), wanted, static_cast<off_t>(at_));
      if (got <= 0) {
        error.assign(got == 0 ? EIO : errno, boost::system::system_category());
        return boost::none;
      }
      at_ += static_cast<std::uint64_t>(got);
      left_ -= static_cast<std::uint64_t>(got);
      return {{const_buffers_type(buffer_.data(), static_cast<std::size_t>(got)), left_ > 0}};
    }

   private:
    const value_type& body_;
    std::uint64_t at_, left_;
    std::vector<char> buffer_;
  };
};

}  // namespace fusion
