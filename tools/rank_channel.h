#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace fusion {

/// One end of the connection between a worker and a rank it started (tools/rank_team.h): a socket that carries a JSON object per line.
///
///     to a rank     {"start": {rank, ranks, meeting, timeout_s, device, rows_at_once, job}}, first and once; {"hand_back": true}
///     from a rank   {"epoch": ...}, {"progress": ...} of rank 0; {"outcome": ...} of each, last
/// One of them gone is the end of the stream for the other. One thread at a time.
class RankChannel {
 public:
  /// Takes the descriptor.
  explicit RankChannel(int descriptor) : descriptor_(descriptor) {}
  ~RankChannel();
  RankChannel(RankChannel&& other) noexcept;
  RankChannel& operator=(RankChannel&&) = delete;

  int descriptor() const { return descriptor_; }
  /// False if the other end is gone.
  bool send(const nlohmann::json& message) const;
  /// Waits for the next message; null at the end.
  nlohmann::json receive();
  /// What is there, without waiting.
  std::vector<nlohmann::json> received();

 private:
  bool read_more(int flags);
  bool take_line(std::string& line);

  int descriptor_;
  std::string buffer_;
};

}  // namespace fusion
