#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/enum_names.h"
#include "workers/avmnist/sound.h"

namespace fusion {

/// The rate at which speech and noise are mixed: that of FSDD.
inline constexpr int kMixRate = 8000;

enum class AvmnistPart : std::uint8_t { train, dev, test };
template <>
struct EnumNames<AvmnistPart> {
  static constexpr std::array<std::pair<AvmnistPart, std::string_view>, 3> kTable{
      {{AvmnistPart::train, "train"}, {AvmnistPart::dev, "dev"}, {AvmnistPart::test, "test"}}};
  static constexpr std::string_view kWhat = "part";
};

/// How speech is divided so that no recording, or no speaker, stands in two parts.
enum class SpeechSplit : std::uint8_t {
  recording,  ///< FSDD's own convention: indices 0-4 test, 5-9 dev, 10 and up train; every speaker in each
  speaker,    ///< yweweler test, lucas dev, the others train: the hard variant
};
template <>
struct EnumNames<SpeechSplit> {
  static constexpr std::array<std::pair<SpeechSplit, std::string_view>, 2> kTable{
      {{SpeechSplit::recording, "recording"}, {SpeechSplit::speaker, "speaker"}}};
  static constexpr std::string_view kWhat = "speech split";
};

/// The part a recording belongs to.
AvmnistPart part_of(const SpeechFile& clip, SpeechSplit split);
/// The part of a noise clip: folds 1-3 train, 4 dev, 5 test.
AvmnistPart part_of(const NoiseFile& clip);
/// What the reference takes: speakers jackson, nicolas, theo and yweweler, indices 0-39 for train (dev included), 40-49 for
/// test; nothing for the others.
std::optional<AvmnistPart> reference_part_of(const SpeechFile& clip);

/// What is heard in one row: y + gain * n[offset, offset + len(y)), the noise repeated if it is shorter than the speech.
struct Mixture {
  std::size_t speech = 0;  ///< index among the pool's speech clips
  std::size_t noise = 0;   ///< index among the pool's noise clips
  std::int64_t offset = 0;
  double gain = 0;         ///< sqrt(P_speech / (P_noise 10^(SNR / 10))), powers over the samples used; 0 for silent speech
};

/// The speech and noise of one part, decoded, at 8 kHz. Constant after construction, so every thread may draw from it.
///
/// Every draw is a hash of (seed, part, row, purpose): independent of the order of the rows and of the number of threads.
class MixturePool {
 public:
  struct Speech {
    SpeechFile from;
    std::vector<float> samples;
  };
  struct Noise {
    NoiseFile from;
    std::vector<float> samples;
  };

  /// Speech sorted by digit. Throws DataError naming a digit without a clip, a clip that cannot be cut into segments, and a
  /// noise clip that is wholly silent. Without noise, or without `snr_db`, mixtures have gain 0.
  MixturePool(AvmnistPart part, std::uint64_t seed, std::optional<double> snr_db, std::vector<Speech> speech,
              std::vector<Noise> noise);

  /// Draws the speech clip, the noise clip and its offset. A window whose power is below a tenth of its clip's mean is redrawn
  /// at most 8 times, else the loudest tried is taken (if all were silent, the one around the clip's peak).
  Mixture draw(std::int64_t row, int digit) const;
  /// The clips of each digit in turn, digit by digit, as the reference walks through the labels. No noise.
  std::vector<Mixture> walk(std::span<const std::uint8_t> labels) const;
  void mix(const Mixture& mixture, std::vector<double>& out) const;

  const std::vector<Speech>& speech() const { return speech_; }
  const std::vector<Noise>& noise() const { return noise_; }

 private:
  double window_power(const Noise& noise, std::int64_t offset, std::size_t samples) const;
  std::int64_t draw_offset(std::uint64_t hash, std::size_t noise, std::size_t samples) const;

  std::uint64_t seed_;
  std::optional<double> snr_db_;
  std::vector<Speech> speech_;
  std::vector<Noise> noise_;
  std::vector<double> noise_power_;
  std::array<std::size_t, 11> digit_begin_{};  // the clips of digit d are [digit_begin_[d], digit_begin_[d + 1])
};

}  // namespace fusion
