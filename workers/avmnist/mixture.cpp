#include "workers/avmnist/mixture.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/random.h"
#include "workers/avmnist/spectrogram.h"

namespace fusion {

AvmnistPart part_of(const SpeechFile& clip, SpeechSplit split) {
  if (split == SpeechSplit::recording) {
    return clip.index < 5 ? AvmnistPart::test : clip.index < 10 ? AvmnistPart::dev : AvmnistPart::train;
  }
  return clip.speaker == "yweweler" ? AvmnistPart::test : clip.speaker == "lucas" ? AvmnistPart::dev : AvmnistPart::train;
}

AvmnistPart part_of(const NoiseFile& clip) {
  return clip.fold <= 3 ? AvmnistPart::train : clip.fold == 4 ? AvmnistPart::dev : AvmnistPart::test;
}

std::optional<AvmnistPart> reference_part_of(const SpeechFile& clip) {
  constexpr std::array<std::string_view, 4> kSpeakers{"jackson", "nicolas", "theo", "yweweler"};
  if (std::find(kSpeakers.begin(), kSpeakers.end(), clip.speaker) == kSpeakers.end()) return std::nullopt;
  if (clip.index < 40) return AvmnistPart::train;
  return clip.index < 50 ? std::optional(AvmnistPart::test) : std::nullopt;
}

namespace {

/// Told apart in the hashes, and never renumbered: a dataset's bytes hang on them.
enum class Purpose : std::uint64_t { speech = 1, noise = 2, offset = 3 };

std::uint64_t hash_of(std::uint64_t part_seed, std::int64_t row, Purpose purpose) {
  return fusion::mix(fusion::mix(part_seed, static_cast<std::uint64_t>(row)), static_cast<std::uint64_t>(purpose));
}

/// Multiply-shift: uniform in [0, n) but for n / 2^64.
std::uint64_t below(std::uint64_t hash, std::uint64_t n) {
  return static_cast<std::uint64_t>((static_cast<unsigned __int128>(hash) * n) >> 64);
}

}  // namespace

MixturePool::MixturePool(AvmnistPart part, std::uint64_t seed, std::optional<double> snr_db, std::vector<Speech> speech,
                         std::vector<Noise> noise)
    : seed_(mix_text(seed, name_of(part))), snr_db_(snr_db), speech_(std::move(speech)), noise_(std::move(noise)) {
  const std::string where = "the " + std::string(name_of(part)) + " part";
  for (const Speech& clip : speech_) {
    ++digit_begin_[static_cast<std::size_t>(clip.from.digit) + 1];
    try {
      segments_of(static_cast<std::int64_t>(clip.samples.size()));
    } catch (const DataError& error) {
      throw DataError(clip.from.file.string() + ": " + error.what());
    }
  }
  for (std::size_t digit = 0; digit < 10; ++digit) {
    if (digit_begin_[digit + 1] == 0) {
      throw DataError("there is no recording of digit " + std::to_string(digit) + " for " + where);
    }
    digit_begin_[digit + 1] += digit_begin_[digit];
  }
  if (snr_db_ && noise_.empty()) throw DataError("there is no noise clip for " + where);
  for (const Noise& clip : noise_) {
    noise_power_.push_back(mean_power(clip.samples));
    if (noise_power_.back() <= 0) throw DataError(clip.from.file.string() + ": is silent from begin to end");
  }
}

double MixturePool::window_power(const Noise& noise, std::int64_t offset, std::size_t samples) const {
  const std::size_t length = noise.samples.size(), begin = static_cast<std::size_t>(offset);
  if (begin + samples <= length) return mean_power(std::span(noise.samples).subspan(begin, samples));
  double sum = 0;
  for (std::size_t i = 0; i < samples; ++i) {
    const double x = noise.samples[(begin + i) % length];
    sum += x * x;
  }
  return sum / static_cast<double>(samples);
}

std::int64_t MixturePool::draw_offset(std::uint64_t hash, std::size_t noise, std::size_t samples) const {
  constexpr std::uint64_t kRedraws = 8;
  const Noise& clip = noise_[noise];
  const std::size_t length = clip.samples.size();
  const std::uint64_t places = length >= samples ? length - samples + 1 : length;
  std::int64_t loudest = -1;
  double most = 0;
  for (std::uint64_t attempt = 0; attempt <= kRedraws; ++attempt) {
    const auto offset = static_cast<std::int64_t>(below(fusion::mix(hash, attempt), places));
    const double power = window_power(clip, offset, samples);
    if (power >= noise_power_[noise] / 10) return offset;
    if (power > most) {
      most = power;
      loudest = offset;
    }
  }
  if (loudest >= 0) return loudest;
  const auto peak = std::max_element(clip.samples.begin(), clip.samples.end(),
                                     [](float a, float b) { return std::abs(a) < std::abs(b); });
  const std::int64_t begin = peak - clip.samples.begin() - static_cast<std::int64_t>(samples / 2);
  return std::clamp<std::int64_t>(begin, 0, static_cast<std::int64_t>(places) - 1);
}

Mixture MixturePool::draw(std::int64_t row, int digit) const {
  const std::size_t begin = digit_begin_[static_cast<std::size_t>(digit)];
  const std::size_t clips = digit_begin_[static_cast<std::size_t>(digit) + 1] - begin;
  Mixture mixture;
  mixture.speech = begin + below(hash_of(seed_, row, Purpose::speech), clips);
  if (!snr_db_) return mixture;
  const std::vector<float>& speech = speech_[mixture.speech].samples;
  mixture.noise = below(hash_of(seed_, row, Purpose::noise), noise_.size());
  mixture.offset = draw_offset(hash_of(seed_, row, Purpose::offset), mixture.noise, speech.size());
  const double noise_power = window_power(noise_[mixture.noise], mixture.offset, speech.size());
  mixture.gain = std::sqrt(mean_power(speech) / (noise_power * std::pow(10.0, *snr_db_ / 10)));
  return mixture;
}

std::vector<Mixture> MixturePool::walk(std::span<const std::uint8_t> labels) const {
  std::array<std::size_t, 10> taken{};
  std::vector<Mixture> rows;
  rows.reserve(labels.size());
  for (const std::uint8_t digit : labels) {
    const std::size_t clips = digit_begin_[digit + std::size_t{1}] - digit_begin_[digit];
    Mixture mixture;
    mixture.speech = digit_begin_[digit] + taken[digit]++ % clips;
    rows.push_back(mixture);
  }
  return rows;
}

void MixturePool::mix(const Mixture& mixture, std::vector<double>& out) const {
  const std::vector<float>& speech = speech_[mixture.speech].samples;
  out.assign(speech.begin(), speech.end());
  if (mixture.gain == 0) return;
  const std::vector<float>& noise = noise_[mixture.noise].samples;
  std::size_t at = static_cast<std::size_t>(mixture.offset);
  for (double& x : out) {
    x += mixture.gain * noise[at];
    if (++at == noise.size()) at = 0;
  }
}

}  // namespace fusion
