#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <string>

namespace fusion {

/// A typed 64-bit id: ids of different things do not mix. 0 means "none"; SQLite row ids start at 1.
template <typename Tag>
struct Id {
  std::int64_t value = 0;
  auto operator<=>(const Id&) const = default;
  explicit operator bool() const { return value != 0; }
};

template <typename Tag>
std::string to_string(Id<Tag> id) {
  return std::to_string(id.value);
}

using StudyId = Id<struct StudyTag>;
using TrialId = Id<struct TrialTag>;
using WorkerId = Id<struct WorkerTag>;
using RetrainingId = Id<struct RetrainingTag>;

}  // namespace fusion

template <typename Tag>
struct std::hash<fusion::Id<Tag>> {
  std::size_t operator()(fusion::Id<Tag> id) const noexcept { return std::hash<std::int64_t>{}(id.value); }
};
