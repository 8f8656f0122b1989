#include "workers/avmnist/staging.h"

#include <unistd.h>

#include "base/error.h"

namespace fusion {

Staging::Staging(const std::filesystem::path& out) : out_(out), inside_(std::filesystem::exists(out)) {
  const std::string suffix = ".tmp." + std::to_string(::getpid());
  path_ = inside_ ? out_ / suffix : std::filesystem::path(out_.string() + suffix);
  std::error_code error;
  std::filesystem::create_directories(path_, error);
  if (error) throw DataError(path_.string() + ": the folder cannot be made: " + error.message());
}

Staging::~Staging() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

void Staging::publish(const std::vector<std::string>& files) {
  if (!inside_) return std::filesystem::rename(path_, out_);
  std::filesystem::remove(out_ / files.back());
  for (const std::string& file : files) {
    std::filesystem::create_directories((out_ / file).parent_path());
    std::filesystem::rename(path_ / file, out_ / file);
  }
}

}  // namespace fusion
