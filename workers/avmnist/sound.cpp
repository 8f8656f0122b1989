#include "workers/avmnist/sound.h"

#include <samplerate.h>
#include <sndfile.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <regex>
#include <tuple>

#include "base/error.h"
#include "base/files.h"

namespace fusion {

namespace {

// ---------------------------------------------------------------------------------------------- containers

std::uint32_t little_endian(const unsigned char* at) {
  return at[0] | (std::uint32_t{at[1]} << 8) | (std::uint32_t{at[2]} << 16) | (std::uint32_t{at[3]} << 24);
}

void check_riff(const std::string& bytes, const std::string& name) {
  const auto* data = reinterpret_cast<const unsigned char*>(bytes.data());
  const std::uint64_t end = 8 + std::uint64_t{little_endian(data + 4)};
  if (end > bytes.size()) {
    throw DataError(name + ": is truncated: its RIFF header announces " + std::to_string(end) + " bytes, there are " +
                    std::to_string(bytes.size()));
  }
  for (std::uint64_t at = 12; at + 8 <= end;) {
    const std::uint64_t size = little_endian(data + at + 4);
    if (at + 8 + size > end) {
      throw DataError(name + ": is damaged: the chunk at byte " + std::to_string(at) + " announces " + std::to_string(size) +
                      " bytes, there are " + std::to_string(end - at - 8));
    }
    at += 8 + size + (size & 1);
  }
}

/// CRC of Ogg pages: polynomial 0x04c11db7, most significant bit first, start 0, the CRC field itself taken as 0.
constexpr std::array<std::uint32_t, 256> kOggCrc = [] {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    std::uint32_t r = i << 24;
    for (int bit = 0; bit < 8; ++bit) r = (r << 1) ^ ((r & 0x80000000u) != 0 ? 0x04c11db7u : 0u);
    table[i] = r;
  }
  return table;
}();

std::uint32_t ogg_crc(const unsigned char* page, std::size_t bytes) {
  std::uint32_t crc = 0;
  for (std::size_t i = 0; i < bytes; ++i) {
    const unsigned char byte = i >= 22 && i < 26 ? 0 : page[i];
    crc = (crc << 8) ^ kOggCrc[(crc >> 24) ^ byte];
  }
  return crc;
}

void check_ogg(const std::string& bytes, const std::string& name) {
  const auto* data = reinterpret_cast<const unsigned char*>(bytes.data());
  bool last = false;
  for (std::size_t at = 0; at < bytes.size();) {
    const std::string place = "the Ogg page at byte " + std::to_string(at);
    if (bytes.compare(at, 4, "OggS") != 0) throw DataError(name + ": is damaged: " + place + " does not begin with OggS");
    const std::size_t left = bytes.size() - at;
    std::size_t size = left >= 27 ? std::size_t{27} + data[at + 26] : left + 1;
    for (std::size_t i = 27; size <= left && i < std::size_t{27} + data[at + 26]; ++i) size += data[at + i];
    if (size > left) throw DataError(name + ": is truncated: it ends within " + place);
    if (ogg_crc(data + at, size) != little_endian(data + at + 22)) {
      throw DataError(name + ": is damaged: the checksum of " + place + " does not match");
    }
    last = (data[at + 5] & 4) != 0;
    at += size;
  }
  if (!last) throw DataError(name + ": is truncated: the last page of the Ogg stream is missing");
}

void check_container(const std::filesystem::path& file) {
  const std::string name = file.string(), bytes = read_text(file);
  if (bytes.size() >= 12 && bytes.starts_with("RIFF") && bytes.compare(8, 4, "WAVE") == 0) return check_riff(bytes, name);
  if (bytes.starts_with("OggS")) return check_ogg(bytes, name);
  throw DataError(name + ": is neither a WAV nor an Ogg file (" + std::to_string(bytes.size()) + " bytes)");
}

}  // namespace

// ---------------------------------------------------------------------------------------------- sounds

Sound read_sound(const std::filesystem::path& file) {
  check_container(file);
  const std::string name = file.string();
  SF_INFO info{};
  const std::unique_ptr<SNDFILE, int (*)(SNDFILE*)> stream(sf_open(name.c_str(), SFM_READ, &info), &sf_close);
  if (!stream) throw DataError(name + ": cannot be decoded: " + sf_strerror(nullptr));
  if (info.channels < 1 || info.frames < 1) throw DataError(name + ": holds no samples");
  const auto channels = static_cast<std::size_t>(info.channels);
  std::vector<float> interleaved(static_cast<std::size_t>(info.frames) * channels);
  const sf_count_t got = sf_readf_float(stream.get(), interleaved.data(), info.frames);
  if (got != info.frames) {
    throw DataError(name + ": announces " + std::to_string(info.frames) + " samples, " + std::to_string(got) +
                    " can be decoded");
  }
  Sound sound{info.samplerate, std::move(interleaved)};
  if (channels > 1) {
    std::vector<float> mono(static_cast<std::size_t>(info.frames));
    for (std::size_t i = 0; i < mono.size(); ++i) {
      float sum = 0;
      for (std::size_t c = 0; c < channels; ++c) sum += sound.samples[i * channels + c];
      mono[i] = sum / static_cast<float>(channels);
    }
    sound.samples = std::move(mono);
  }
  if (!std::all_of(sound.samples.begin(), sound.samples.end(), [](float x) { return std::isfinite(x); })) {
    throw DataError(name + ": holds a sample that is not a finite number");
  }
  return sound;
}

std::vector<float> resample(std::span<const float> samples, int from_rate, int to_rate) {
  if (from_rate == to_rate) return {samples.begin(), samples.end()};
  const double ratio = static_cast<double>(to_rate) / from_rate;
  std::vector<float> out(static_cast<std::size_t>(std::ceil(static_cast<double>(samples.size()) * ratio)) + 16);
  SRC_DATA data{};
  data.data_in = samples.data();
  data.input_frames = static_cast<long>(samples.size());
  data.data_out = out.data();
  data.output_frames = static_cast<long>(out.size());
  data.src_ratio = ratio;
  if (const int code = src_simple(&data, SRC_SINC_MEDIUM_QUALITY, 1); code != 0) {
    throw DataError("resampling from " + std::to_string(from_rate) + " to " + std::to_string(to_rate) +
                    " samples per second failed: " + src_strerror(code));
  }
  out.resize(static_cast<std::size_t>(data.output_frames_gen));
  return out;
}

double mean_power(std::span<const float> samples) {
  double sum = 0;
  for (const float x : samples) sum += static_cast<double>(x) * x;
  return samples.empty() ? 0 : sum / static_cast<double>(samples.size());
}

// ---------------------------------------------------------------------------------------------- folders

namespace {

void require_folder(const std::filesystem::path& folder, const std::string& what) {
  if (!std::filesystem::is_directory(folder)) throw DataError(folder.string() + ": is not a folder; " + what + " was expected");
}

bool is_sound(const std::filesystem::path& file) { return file.extension() == ".wav" || file.extension() == ".ogg"; }

}  // namespace

std::vector<SpeechFile> list_speech(const std::filesystem::path& folder) {
  require_folder(folder, "the Free Spoken Digit Dataset");
  const std::filesystem::path inner = folder / "recordings";
  const std::filesystem::path& from = std::filesystem::is_directory(inner) ? inner : folder;
  static const std::regex kName("([0-9])_([^_]+)_([0-9]{1,6})");
  std::vector<SpeechFile> clips;
  for (const auto& entry : std::filesystem::directory_iterator(from)) {
    const std::filesystem::path& file = entry.path();
    if (file.extension() != ".wav") continue;
    const std::string stem = file.stem().string();
    std::smatch part;
    if (!std::regex_match(stem, part, kName)) {
      throw DataError(file.string() + ": is not named as a recording of FSDD, {digit}_{speaker}_{index}.wav");
    }
    clips.push_back({file, std::stoi(part[1]), part[2], std::stoi(part[3])});
  }
  if (clips.empty()) throw DataError(from.string() + ": holds no recording {digit}_{speaker}_{index}.wav");
  std::sort(clips.begin(), clips.end(), [](const SpeechFile& a, const SpeechFile& b) {
    return std::tie(a.digit, a.speaker, a.index) < std::tie(b.digit, b.speaker, b.index);
  });
  return clips;
}

namespace {

/// Adds the sound files of one folder; `category` is empty where it stands in the file names (ESC-50).
void add_noise(const std::filesystem::path& folder, const std::string& category, std::vector<NoiseFile>& clips) {
  static const std::regex kEsc10("([1-5])-.+"), kEsc50("([1-5])-.+-([0-9]{1,2})");
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::filesystem::path& file = entry.path();
    if (!is_sound(file)) continue;
    const std::string stem = file.stem().string();
    std::smatch part;
    if (!std::regex_match(stem, part, category.empty() ? kEsc50 : kEsc10)) {
      throw DataError(file.string() + ": is not named as a clip of " +
                      (category.empty() ? "ESC-50, {fold}-{clip}-{take}-{target}.wav" : "ESC-10, {fold}-{clip}-{take}.ogg"));
    }
    std::string name = category;
    if (name.empty()) name = part[2].length() == 1 ? "0" + part[2].str() : part[2].str();
    clips.push_back({file, name, std::stoi(part[1])});
  }
}

}  // namespace

std::vector<NoiseFile> list_noise(const std::filesystem::path& folder) {
  require_folder(folder, "ESC-10 or ESC-50");
  static const std::regex kCategory("[0-9]{3}[- ].+");
  std::vector<NoiseFile> clips;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (entry.is_directory() && std::regex_match(name, kCategory)) add_noise(entry.path(), name, clips);
  }
  if (clips.empty()) {
    const std::filesystem::path inner = folder / "audio";
    add_noise(std::filesystem::is_directory(inner) ? inner : folder, "", clips);
  }
  if (clips.empty()) {
    throw DataError(folder.string() + ": holds neither the folders of ESC-10 (001-dog-bark, ...) nor the audio/ of ESC-50");
  }
  std::sort(clips.begin(), clips.end(), [](const NoiseFile& a, const NoiseFile& b) {
    return std::make_pair(a.category, a.file.filename()) < std::make_pair(b.category, b.file.filename());
  });
  return clips;
}

}  // namespace fusion
