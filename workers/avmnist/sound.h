#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace fusion {

/// One channel of sound in [-1, 1).
struct Sound {
  int rate = 0;  ///< samples per second
  std::vector<float> samples;
};

/// Reads a WAV or Ogg Vorbis file by libsndfile; several channels are averaged to one.
///
/// The decoders pass over damage in silence (a cut file becomes a shorter clip), so the container is checked first: every
/// RIFF chunk must lie within the file, every Ogg page must have its checksum and the last page must say that it is the last.
/// Throws DataError naming the file for anything else, and for a clip without samples or with one that is not finite.
Sound read_sound(const std::filesystem::path& file);

/// Band-limited resampling by libsamplerate's medium sinc (121 dB, pass band to 90% of the lower Nyquist frequency).
/// The same bits for the same input on one machine; not those of librosa.
std::vector<float> resample(std::span<const float> samples, int from_rate, int to_rate);

/// Mean of the squares; 0 for no samples.
double mean_power(std::span<const float> samples);

/// A recording of the Free Spoken Digit Dataset, `{digit}_{speaker}_{index}.wav`.
struct SpeechFile {
  std::filesystem::path file;
  int digit = 0;
  std::string speaker;
  int index = 0;
};

/// The recordings in `folder` or in its `recordings/`, sorted by (digit, speaker, index). Throws DataError for a missing
/// folder, for none at all, and for a .wav file with another kind of name.
std::vector<SpeechFile> list_speech(const std::filesystem::path& folder);

/// A clip of environmental sound. Takes of one source recording share their fold.
struct NoiseFile {
  std::filesystem::path file;
  std::string category;
  int fold = 0;  ///< 1 to 5
};

/// The clips of ESC-10 (`001-dog-bark/1-100032-A.ogg`: the fold leads the name, the folder is the category) or of ESC-50
/// (`audio/1-100032-A-0.wav`: fold first, category last; `meta/esc50.csv` says the same again and is not needed). WAV and Ogg
/// are taken in both. Sorted by (category, file name). Throws DataError for a missing folder, for none at all, and for a
/// sound file with another kind of name.
std::vector<NoiseFile> list_noise(const std::filesystem::path& folder);

}  // namespace fusion
