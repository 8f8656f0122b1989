#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <utility>

#include "base/error.h"

namespace fusion {

class JsonReader;

/// How much workers may put into the folders of retrainings over the network. Configured under "uploads" (configs/README.md).
struct UploadLimits {
  double file_gb = 64;       ///< gigabytes (10^9 bytes) of one file; beyond: 413
  double folder_gb = 256;    ///< of all files of one retraining; beyond: 413
  double keep_free_gb = 1;   ///< of the file system: what would leave less is refused with 507, for the database needs room too
  static UploadLimits read(JsonReader& reader, UploadLimits base);
  nlohmann::json to_json() const;
};

/// Why something was not done, with the HTTP status that says so.
class UploadProblem : public Error {
 public:
  UploadProblem(int status_, const std::string& sentence, std::optional<std::uint64_t> have_ = {})
      : Error(sentence), status(status_), have(have_) {}
  const int status;
  const std::optional<std::uint64_t> have;  ///< bytes of the file that are here, where another piece is expected
};

/// What is wrong with the name of a file that a worker names: letters, digits, '.', '_' and '-', at most 200, not hidden. Empty: nothing.
std::string problem_of_file_name(const std::string& name);

/// The folder of one retraining, filled by a worker that does not share it (docs/protocol.md, "Files of a retraining").
///
///     <folder>/.mark            a random text: who can read it there shares the folder
///     <folder>/.<sha256>.part   what has come of the file that is coming; one at a time
///     <folder>/<name>           whole, and with the digest that was announced
///
/// Pieces come one after the other. They are hashed as they come, synced before the file gets its name in one step, and what is not what was announced
/// is removed. A part outlives connections, workers and the daemon: the next one that announces the same digest goes on behind it. Blocks; for the
/// thread of files only.
class ReceivedFolder {
 public:
  ReceivedFolder(std::filesystem::path folder, const UploadLimits& limits);
  ~ReceivedFolder();
  ReceivedFolder(const ReceivedFolder&) = delete;
  ReceivedFolder& operator=(const ReceivedFolder&) = delete;

  /// Of the folder; made where there is none.
  std::string mark() const;
  /// [{"name", "bytes", "sha256"}], the newest first; the digest only if asked for, as every file is read for it.
  nlohmann::json list(bool digests) const;
  /// The path of one. Throws UploadProblem (404).
  std::filesystem::path file(const std::string& name) const;

  struct Piece {
    std::string name, sha256;          ///< of the whole file
    std::uint64_t begin = 0, bytes = 0;  ///< where in it the piece lies, and how long it is as a whole
    std::string data;                  ///< empty: only asks how much is here
  };
  struct Taken {
    std::uint64_t have = 0;  ///< bytes of the file that are here
    bool complete = false;   ///< all of them, with the right digest: publish() gives it its name
    bool there = false;      ///< the file has its name already, and this content
  };
  /// Throws UploadProblem: 400 a piece that reaches beyond the file's end, 413 too large, 416 not the piece that is expected (`have`), 422 the
  /// digest is another (what had come is removed), 507 no room; 500 for what else a disk may refuse.
  Taken take(const Piece& piece);
  /// After take() said complete; nothing otherwise.
  void publish(const std::string& name);
  /// True if it was there.
  bool remove(const std::string& name) const;
  /// Removes what has come of a file that never was complete.
  void drop_part();

 private:
  struct Part;
  bool is_there(const Piece& piece) const;
  void begin_part(const Piece& piece);
  void check_limits(const Piece& piece) const;
  void check_room(std::uint64_t bytes) const;
  void remove_parts() const;

  std::filesystem::path folder_;
  UploadLimits limits_;
  std::unique_ptr<Part> part_;
};

}  // namespace fusion
