#include "workers/avmnist/mixture.h"

#include <gmock/gmock.h>

#include <cmath>
#include <map>
#include <set>

#include "base/error.h"
#include "tests/workers/avmnist/sources.h"

namespace fusion {
namespace {

using ::testing::HasSubstr;
using testing::message_of;
using testing::some_sound;

/// Two clips of each digit and the noises given.
MixturePool pool_of(std::optional<double> snr_db, std::vector<std::vector<float>> noises, std::uint64_t seed = 11) {
  std::vector<MixturePool::Speech> speech;
  for (int digit = 0; digit < 10; ++digit) {
    for (std::size_t take = 0; take < 2; ++take) {
      speech.push_back({{"speech.wav", digit, "theo", static_cast<int>(take)}, some_sound(2000 + 500 * take, 20 + take)});
    }
  }
  std::vector<MixturePool::Noise> noise;
  for (auto& samples : noises) noise.push_back({{"noise.ogg", "rain", 1}, std::move(samples)});
  return MixturePool(AvmnistPart::train, seed, snr_db, std::move(speech), std::move(noise));
}

/// Decibels of the speech over what was added to it.
double measured_snr(const MixturePool& pool, const Mixture& mixture) {
  std::vector<double> sound;
  pool.mix(mixture, sound);
  const auto& speech = pool.speech()[mixture.speech].samples;
  double signal = 0, added = 0;
  for (std::size_t i = 0; i < sound.size(); ++i) {
    signal += static_cast<double>(speech[i]) * speech[i];
    added += (sound[i] - speech[i]) * (sound[i] - speech[i]);
  }
  return 10 * std::log10(signal / added);
}

TEST(MixtureTest, HasTheRatioAskedFor) {
  for (const double snr : {-9.0, 0.0, 20.0}) {
    const MixturePool pool = pool_of(snr, {some_sound(40'000, 1), some_sound(700, 2), some_sound(2000, 3)});
    for (std::int64_t row = 0; row < 60; ++row) {
      EXPECT_NEAR(measured_snr(pool, pool.draw(row, static_cast<int>(row % 10))), snr, 0.01) << row;
    }
  }
}

TEST(MixtureTest, DrawsByRowAlone) {
  const MixturePool pool = pool_of(-9, {some_sound(40'000, 1), some_sound(40'000, 2)});
  const MixturePool again = pool_of(-9, {some_sound(40'000, 1), some_sound(40'000, 2)});
  const MixturePool other = pool_of(-9, {some_sound(40'000, 1), some_sound(40'000, 2)}, 12);
  std::set<std::int64_t> offsets;
  std::set<std::size_t> speech, noise;
  int differing = 0;
  for (std::int64_t row = 99; row >= 0; --row) {
    const Mixture a = pool.draw(row, 3), b = again.draw(row, 3);
    EXPECT_EQ(a.offset, b.offset);
    EXPECT_EQ(a.speech, b.speech);
    EXPECT_EQ(pool.speech()[a.speech].from.digit, 3);
    differing += other.draw(row, 3).offset != a.offset;
    offsets.insert(a.offset);
    speech.insert(a.speech);
    noise.insert(a.noise);
  }
  EXPECT_GT(differing, 95);
  EXPECT_GT(offsets.size(), 95u);
  EXPECT_EQ(speech.size(), 2u);
  EXPECT_EQ(noise.size(), 2u);
}

TEST(MixtureTest, AvoidsTheSilenceInANoise) {
  std::vector<float> padded = some_sound(20'000, 4);
  padded.resize(40'000);
  const MixturePool pool = pool_of(-9, {padded});
  for (std::int64_t row = 0; row < 200; ++row) EXPECT_LT(pool.draw(row, 0).offset, 20'000) << row;

  std::vector<float> click(40'000);
  click[39'000] = 0.5f;  // so short that every window tried is silent: the one around it is taken
  const MixturePool clicks = pool_of(-9, {click});
  for (std::int64_t row = 0; row < 50; ++row) {
    const Mixture mixture = clicks.draw(row, 0);
    EXPECT_TRUE(std::isfinite(mixture.gain));
    EXPECT_NEAR(measured_snr(clicks, mixture), -9, 0.01) << row;
  }
}

TEST(MixtureTest, WithoutNoiseIsTheSpeech) {
  const MixturePool pool = pool_of(std::nullopt, {});
  std::vector<double> sound;
  const Mixture mixture = pool.draw(5, 7);
  pool.mix(mixture, sound);
  EXPECT_EQ(mixture.gain, 0);
  const auto& speech = pool.speech()[mixture.speech].samples;
  EXPECT_TRUE(std::equal(sound.begin(), sound.end(), speech.begin(), speech.end()));
}

TEST(MixtureTest, WalksThroughTheClipsInTurn) {
  const MixturePool pool = pool_of(std::nullopt, {});
  const std::vector<std::uint8_t> labels{4, 4, 0, 4, 0, 4};
  std::vector<std::size_t> clips;
  for (const Mixture& mixture : pool.walk(labels)) clips.push_back(mixture.speech);
  EXPECT_THAT(clips, ::testing::ElementsAre(8, 9, 0, 8, 1, 9));
}

TEST(MixtureTest, SaysWhatIsMissing) {
  EXPECT_THAT(message_of<DataError>([] { pool_of(-9, {}); }), HasSubstr("no noise clip for the train part"));
  EXPECT_THAT(message_of<DataError>([] { pool_of(-9, {std::vector<float>(500)}); }), HasSubstr("noise.ogg: is silent"));
  const auto with = [](std::vector<MixturePool::Speech> speech) {
    return message_of<DataError>([&] { MixturePool(AvmnistPart::dev, 0, std::nullopt, std::move(speech), {}); });
  };
  EXPECT_THAT(with({{{"a.wav", 0, "theo", 1}, some_sound(2000, 1)}}), HasSubstr("no recording of digit 1 for the dev part"));
  EXPECT_THAT(with({{{"short.wav", 0, "theo", 1}, some_sound(100, 1)}}), HasSubstr("short.wav: a clip of 100 samples"));
}

TEST(SplitTest, NoClipIsInTwoParts) {
  REQUIRE_REAL_DATA(data);
  for (const SpeechSplit split : {SpeechSplit::recording, SpeechSplit::speaker}) {
    std::map<std::pair<int, AvmnistPart>, int> counts;  // every clip has one part, so the parts are disjoint; here, their sizes
    std::map<std::string, std::set<AvmnistPart>> by_speaker;
    for (const SpeechFile& clip : list_speech(*data / "fsdd")) {
      ++counts[{clip.digit, part_of(clip, split)}];
      by_speaker[clip.speaker].insert(part_of(clip, split));
    }
    const bool recording = split == SpeechSplit::recording;
    for (int digit = 0; digit < 10; ++digit) {
      EXPECT_EQ((counts[{digit, AvmnistPart::train}]), recording ? 240 : 200);
      EXPECT_EQ((counts[{digit, AvmnistPart::dev}]), recording ? 30 : 50);
      EXPECT_EQ((counts[{digit, AvmnistPart::test}]), recording ? 30 : 50);
    }
    for (const auto& [speaker, parts] : by_speaker) EXPECT_EQ(parts.size(), recording ? 3u : 1u) << speaker;
  }
  std::map<AvmnistPart, int> noise;
  std::map<std::string, std::set<AvmnistPart>> takes;  // of one source recording
  for (const NoiseFile& clip : list_noise(*data / "esc10")) {
    ++noise[part_of(clip)];
    const std::string name = clip.file.stem().string();
    takes[name.substr(0, name.rfind('-'))].insert(part_of(clip));
  }
  EXPECT_THAT(noise, ::testing::ElementsAre(::testing::Pair(AvmnistPart::train, 240), ::testing::Pair(AvmnistPart::dev, 80),
                                            ::testing::Pair(AvmnistPart::test, 80)));
  for (const auto& [source, parts] : takes) EXPECT_EQ(parts.size(), 1u) << source;
}

TEST(SplitTest, TheReferenceTakesFourSpeakers) {
  REQUIRE_REAL_DATA(data);
  std::map<std::pair<int, AvmnistPart>, int> counts;
  for (const SpeechFile& clip : list_speech(*data / "fsdd")) {
    if (const auto part = reference_part_of(clip)) ++counts[{clip.digit, *part}];
  }
  for (int digit = 0; digit < 10; ++digit) {
    EXPECT_EQ((counts[{digit, AvmnistPart::train}]), 160);
    EXPECT_EQ((counts[{digit, AvmnistPart::test}]), 40);
  }
  EXPECT_EQ(counts.size(), 20u);
}

}  // namespace
}  // namespace fusion
