#pragma once

#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace fusion {

/// Root of the project's exceptions. `what()` is one or more full sentences, one a line, that name the subject, the
/// value and what was allowed; a program prints them as they are and exits with status 2.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Joins problems to one message, a line each.
std::string join_problems(const std::vector<std::string>& problems);

/// A document or an option is wrong. Holds every problem found, not only the first.
class ConfigError : public Error {
 public:
  explicit ConfigError(std::string problem) : Error(problem), problems_{std::move(problem)} {}
  explicit ConfigError(std::vector<std::string> problems)
      : Error(join_problems(problems)), problems_(std::move(problems)) {}
  const std::vector<std::string>& problems() const { return problems_; }

 private:
  std::vector<std::string> problems_;
};

/// An architecture or a search space is not legal.
class SpaceError : public Error {
  using Error::Error;
};
/// A message on a connection is not legal, or the peer speaks another protocol version.
class ProtocolError : public Error {
  using Error::Error;
};
/// The database cannot be opened, read or written.
class StoreError : public Error {
  using Error::Error;
};
/// A network cannot be built or run.
class ModelError : public Error {
  using Error::Error;
};
/// A data file (IDX, WAV, `.npy`, `.safetensors`, ...) is missing, truncated or corrupt; the message names file and place.
class DataError : public Error {
  using Error::Error;
};

}  // namespace fusion
