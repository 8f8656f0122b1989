#include "tools/received_folder.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>
#include <random>
#include <vector>

#include "base/digest.h"
#include "base/files.h"
#include "base/json_reader.h"

namespace fusion {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

constexpr double kGigabyte = 1e9;
constexpr double kMostGigabytes = 1e6;
constexpr std::size_t kLongestName = 200, kMostFiles = 200, kHashed = 1u << 20;
constexpr const char* kMark = ".mark";

std::string gigabytes(double bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3f GB", bytes / kGigabyte);
  return text;
}

[[noreturn]] void fail(const fs::path& file, const std::string& what, int error) {
  const bool room = error == ENOSPC || error == EDQUOT || error == EFBIG;
  throw UploadProblem(room ? 507 : 500, file.string() + ": cannot be " + what + " on the daemon's host: " + std::strerror(error));
}

bool is_hidden(const fs::path& file) { return file.filename().string().starts_with("."); }

struct Entry {
  fs::path file;
  std::uint64_t bytes = 0;
  fs::file_time_type modified;
};

/// Regular files that are whole, the newest first.
std::vector<Entry> entries_of(const fs::path& folder) {
  std::vector<Entry> entries;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const bool temporary = entry.path().filename().string().find(".tmp.") != std::string::npos;
    if (is_hidden(entry.path()) || temporary || !fs::is_regular_file(entry.symlink_status(error))) continue;
    entries.push_back({entry.path(), entry.file_size(error), entry.last_write_time(error)});
  }
  std::ranges::sort(entries, [](const Entry& a, const Entry& b) { return a.modified > b.modified; });
  return entries;
}

std::string random_text() {
  std::random_device device;
  char text[33];
  std::snprintf(text, sizeof text, "%08x%08x%08x%08x", device(), device(), device(), device());
  return text;
}

}  // namespace

UploadLimits UploadLimits::read(JsonReader& reader, UploadLimits l) {
  l.file_gb = reader.number("file_gb", 0.000001, kMostGigabytes, l.file_gb);
  l.folder_gb = reader.number("folder_gb", 0.000001, kMostGigabytes, l.folder_gb);
  l.keep_free_gb = reader.number("keep_free_gb", 0, kMostGigabytes, l.keep_free_gb);
  reader.finish();
  return l;
}

json UploadLimits::to_json() const { return {{"file_gb", file_gb}, {"folder_gb", folder_gb}, {"keep_free_gb", keep_free_gb}}; }

std::string problem_of_file_name(const std::string& name) {
  const auto legal = [](unsigned char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
  };
  if (!name.empty() && name.size() <= kLongestName && name.front() != '.' && std::ranges::all_of(name, legal)) return "";
  return "file: expected a name of at most " + std::to_string(kLongestName) + " letters, digits, '.', '_' and '-' that does not begin with '.', got " +
         json(name.substr(0, kLongestName)).dump(-1, ' ', true, json::error_handler_t::replace);
}

/// The file that is coming.
struct ReceivedFolder::Part {
  ~Part() {
    if (fd >= 0) ::close(fd);
  }
  std::string sha256;
  std::uint64_t bytes = 0, have = 0;
  fs::path path;
  int fd = -1;
  Sha256 digest;  // of what is here
  bool verified = false;

  void write(const std::string& data) {
    for (std::size_t done = 0; done < data.size();) {
      const ssize_t wrote = ::pwrite(fd, data.data() + done, data.size() - done, static_cast<off_t>(have + done));
      if (wrote < 0 && errno == EINTR) continue;
      if (wrote < 0) {
        const int error = errno;
        if (::ftruncate(fd, static_cast<off_t>(have)) != 0) fail(path, "truncated", errno);
        fail(path, "written", error);
      }
      done += static_cast<std::size_t>(wrote);
    }
    digest.update(data.data(), data.size());
    have += data.size();
  }

  void hash_what_is_here() {
    std::vector<char> buffer(kHashed);
    for (std::uint64_t at = 0; at < have;) {
      const ssize_t got = ::pread(fd, buffer.data(), std::min<std::uint64_t>(buffer.size(), have - at), static_cast<off_t>(at));
      if (got <= 0) fail(path, "read", got == 0 ? EIO : errno);
      digest.update(buffer.data(), static_cast<std::size_t>(got));
      at += static_cast<std::uint64_t>(got);
    }
  }
};

ReceivedFolder::ReceivedFolder(fs::path folder, const UploadLimits& limits) : folder_(std::move(folder)), limits_(limits) {
  std::error_code error;
  fs::create_directories(folder_, error);
  if (error) fail(folder_, "made", error.value());
}

ReceivedFolder::~ReceivedFolder() = default;

std::string ReceivedFolder::mark() const {
  const fs::path file = folder_ / kMark;
  if (!fs::exists(file)) write_atomically(file, random_text());
  return read_text(file);
}

json ReceivedFolder::list(bool digests) const {
  json files = json::array();
  for (const Entry& entry : entries_of(folder_)) {
    json& file = files.emplace_back(json{{"name", entry.file.filename().string()}, {"bytes", entry.bytes}});
    if (digests) file["sha256"] = sha256_of_file(entry.file);
  }
  return files;
}

fs::path ReceivedFolder::file(const std::string& name) const {
  std::error_code error;
  if (fs::is_regular_file(fs::symlink_status(folder_ / name, error))) return folder_ / name;
  throw UploadProblem(404, "the retraining has no file \"" + name + "\"");
}

bool ReceivedFolder::is_there(const Piece& piece) const {
  std::error_code error;
  const fs::path file = folder_ / piece.name;
  return fs::is_regular_file(fs::symlink_status(file, error)) && fs::file_size(file, error) == piece.bytes && sha256_of_file(file) == piece.sha256;
}

void ReceivedFolder::check_limits(const Piece& piece) const {
  const auto bytes = static_cast<double>(piece.bytes);
  if (bytes > limits_.file_gb * kGigabyte) {
    throw UploadProblem(413, piece.name + " has " + gigabytes(bytes) + ", and this daemon takes files of at most " + gigabytes(limits_.file_gb * kGigabyte) +
                                 "; raise /uploads/file_gb in its configuration");
  }
  double sum = bytes;
  std::size_t count = 1;
  for (const Entry& entry : entries_of(folder_)) {
    if (entry.file.filename() == piece.name) continue;  // it is replaced
    sum += static_cast<double>(entry.bytes);
    ++count;
  }
  if (sum > limits_.folder_gb * kGigabyte) {
    throw UploadProblem(413, "with " + piece.name + " the retraining would have files of " + gigabytes(sum) + ", and this daemon takes at most " +
                                 gigabytes(limits_.folder_gb * kGigabyte) + "; raise /uploads/folder_gb in its configuration");
  }
  if (count > kMostFiles) throw UploadProblem(413, "a retraining may have at most " + std::to_string(kMostFiles) + " files");
}

void ReceivedFolder::check_room(std::uint64_t bytes) const {
  struct statvfs state {};
  if (::statvfs(folder_.c_str(), &state) != 0) return;  // what is written will tell
  const double free = static_cast<double>(state.f_bavail) * static_cast<double>(state.f_frsize);
  if (free - static_cast<double>(bytes) >= limits_.keep_free_gb * kGigabyte) return;
  throw UploadProblem(507, "the disk of the daemon's artifacts folder has no room for " + gigabytes(static_cast<double>(bytes)) + ": " + gigabytes(free) +
                               " are free, and " + gigabytes(limits_.keep_free_gb * kGigabyte) +
                               " of them are kept (/uploads/keep_free_gb in its configuration)");
}

void ReceivedFolder::begin_part(const Piece& piece) {
  check_limits(piece);
  auto part = std::make_unique<Part>();
  part->sha256 = piece.sha256;
  part->bytes = piece.bytes;
  part->path = folder_ / ("." + piece.sha256 + ".part");
  std::error_code absent;
  const std::uintmax_t found = fs::file_size(part->path, absent);
  if (absent) drop_part();  // that of another file
  check_room(piece.bytes - std::min<std::uint64_t>(piece.bytes, absent ? 0 : found));
  part->fd = ::open(part->path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
  struct stat state {};
  if (part->fd < 0 || ::fstat(part->fd, &state) != 0) fail(part->path, "opened", errno);
  part->have = static_cast<std::uint64_t>(state.st_size);
  if (part->have > part->bytes) {
    if (::ftruncate(part->fd, 0) != 0) fail(part->path, "truncated", errno);
    part->have = 0;
  }
  part->hash_what_is_here();
  part_ = std::move(part);
}

ReceivedFolder::Taken ReceivedFolder::take(const Piece& piece) {
  if (piece.begin > piece.bytes || piece.data.size() > piece.bytes - piece.begin) {
    throw UploadProblem(400, "the piece has " + std::to_string(piece.data.size()) + " bytes from byte " + std::to_string(piece.begin) +
                                 " on, but the file that was announced ends at " + std::to_string(piece.bytes));
  }
  if (!part_ || part_->sha256 != piece.sha256 || part_->bytes != piece.bytes) {
    if (is_there(piece)) return {piece.bytes, false, true};
    begin_part(piece);
  }
  if (!piece.data.empty() && piece.begin != part_->have) {
    throw UploadProblem(416, "expected the piece from byte " + std::to_string(part_->have) + " on, got the one from byte " + std::to_string(piece.begin) + " on",
                        part_->have);
  }
  if (!piece.data.empty()) {
    check_room(piece.data.size());
    part_->write(piece.data);
  }
  if (part_->have < part_->bytes) return {part_->have};
  if (!part_->verified) {
    const std::string found = part_->digest.hex();
    if (found != piece.sha256) {
      drop_part();
      throw UploadProblem(422, piece.name + ": the bytes that came have the SHA-256 " + found + ", expected " + piece.sha256 +
                                   "; they were removed, send it again");
    }
    part_->verified = true;
  }
  return {part_->have, true};
}

void ReceivedFolder::publish(const std::string& name) {
  if (!part_ || !part_->verified) return;
  publish_file(part_->path, folder_ / name, true);
  part_.reset();
}

bool ReceivedFolder::remove(const std::string& name) const {
  if (::unlink((folder_ / name).c_str()) == 0) return true;
  if (errno != ENOENT) fail(folder_ / name, "removed", errno);
  return false;
}

void ReceivedFolder::drop_part() {
  part_.reset();
  remove_parts();
}

void ReceivedFolder::remove_parts() const {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder_, error)) {
    if (is_hidden(entry.path()) && entry.path().extension() == ".part") ::unlink(entry.path().c_str());
  }
}

}  // namespace fusion
