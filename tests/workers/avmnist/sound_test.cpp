#include "workers/avmnist/sound.h"

#include <gmock/gmock.h>

#include <cmath>

#include "base/error.h"
#include "base/files.h"
#include "tests/workers/avmnist/sources.h"

namespace fusion {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::message_of;
using testing::some_sound;
using testing::TemporaryFolder;
using testing::write_bytes;
using testing::write_sound;

TEST(SoundTest, ReadsWavExactlyAndOggNearly) {
  const TemporaryFolder folder;
  const std::vector<float> samples = some_sound(20'000, 5);
  write_sound(folder / "a.wav", samples, 8000);
  write_sound(folder / "a.ogg", samples, 44'100);
  const Sound wav = read_sound(folder / "a.wav"), ogg = read_sound(folder / "a.ogg");
  EXPECT_EQ(wav.rate, 8000);
  EXPECT_EQ(ogg.rate, 44'100);
  ASSERT_EQ(wav.samples.size(), samples.size());
  ASSERT_EQ(ogg.samples.size(), samples.size());
  for (std::size_t i = 0; i < samples.size(); ++i) ASSERT_NEAR(wav.samples[i], samples[i], 1.0 / 32768) << i;
  EXPECT_NEAR(mean_power(ogg.samples) / mean_power(samples), 1, 0.2);
}

TEST(SoundTest, AveragesChannels) {
  const TemporaryFolder folder;
  write_sound(folder / "two.wav", {0.5f, 0.25f, -0.5f, 0.0f}, 8000, 2);
  EXPECT_THAT(read_sound(folder / "two.wav").samples, ::testing::ElementsAre(0.375f, -0.25f));
}

TEST(SoundTest, FindsDamageThatDecodersPassOver) {
  const TemporaryFolder folder;
  write_sound(folder / "a.wav", some_sound(5000, 6), 8000);
  write_sound(folder / "a.ogg", some_sound(50'000, 7), 44'100);
  const std::string wav = read_text(folder / "a.wav"), ogg = read_text(folder / "a.ogg");
  const auto reading = [&](const std::string& name, const std::string& bytes) {
    write_bytes(folder / name, bytes);
    return message_of<DataError>([&] { read_sound(folder / name); });
  };
  EXPECT_THAT(reading("cut.wav", wav.substr(0, wav.size() - 2)), AllOf(HasSubstr("cut.wav: "), HasSubstr("truncated")));
  EXPECT_THAT(reading("head.wav", wav.substr(0, 20)), AllOf(HasSubstr("head.wav: "), HasSubstr("truncated")));
  std::string longer = wav;
  longer[40] = '\xff';  // the data chunk's size
  longer[42] = '\x7f';
  EXPECT_THAT(reading("chunk.wav", longer), AllOf(HasSubstr("chunk.wav: "), HasSubstr("chunk at byte")));

  EXPECT_THAT(reading("cut.ogg", ogg.substr(0, ogg.size() - 1)), AllOf(HasSubstr("cut.ogg: "), HasSubstr("truncated")));
  const std::size_t last_page = ogg.rfind("OggS");
  ASSERT_GT(last_page, 0u);
  EXPECT_THAT(reading("page.ogg", ogg.substr(0, last_page)), HasSubstr("last page of the Ogg stream is missing"));
  std::string flipped = ogg;
  flipped[ogg.size() / 2] ^= 16;
  EXPECT_THAT(reading("flipped.ogg", flipped), AllOf(HasSubstr("flipped.ogg: "), HasSubstr("damaged")));

  EXPECT_THAT(reading("text.wav", "hello"), HasSubstr("neither a WAV nor an Ogg"));
  EXPECT_THAT(reading("empty.ogg", ""), HasSubstr("neither a WAV nor an Ogg"));
  EXPECT_THAT(message_of<DataError>([&] { read_sound(folder / "none.wav"); }), HasSubstr("none.wav: "));
}

TEST(SoundTest, ResamplingKeepsTheBandAndTheLevel) {
  const auto power_after = [](double hertz) {
    std::vector<float> tone(44'100);
    for (std::size_t i = 0; i < tone.size(); ++i) {
      tone[i] = static_cast<float>(std::sin(2 * std::numbers::pi * hertz / 44'100 * static_cast<double>(i)));
    }
    const std::vector<float> out = resample(tone, 44'100, 8000);
    EXPECT_NEAR(static_cast<double>(out.size()), 8000, 2);
    return mean_power(std::span(out).subspan(500, 7000));
  };
  EXPECT_NEAR(power_after(1000), 0.5, 0.001);
  EXPECT_NEAR(power_after(3400), 0.5, 0.005);
  EXPECT_LT(power_after(5000), 1e-9);
  const std::vector<float> same = some_sound(100, 8);
  EXPECT_EQ(resample(same, 8000, 8000), same);
}

TEST(SoundListTest, SortsSpeechByDigitSpeakerAndIndex) {
  const TemporaryFolder folder;
  for (const char* name : {"1_theo_0.wav", "0_theo_10.wav", "0_theo_9.wav", "0_jackson_49.wav"}) {
    write_bytes(folder / "recordings" / name, "");
  }
  write_bytes(folder / "recordings" / "notes.txt", "");
  std::string names;
  for (const SpeechFile& clip : list_speech(folder.path())) names += clip.file.stem().string() + " ";
  EXPECT_EQ(names, "0_jackson_49 0_theo_9 0_theo_10 1_theo_0 ");
  EXPECT_EQ(list_speech(folder / "recordings").size(), 4u);
  write_bytes(folder / "recordings" / "ten_theo_1.wav", "");
  EXPECT_THAT(message_of<DataError>([&] { list_speech(folder.path()); }), HasSubstr("ten_theo_1.wav: is not named"));
  EXPECT_THAT(message_of<DataError>([&] { list_speech(folder / "none"); }), HasSubstr("none: is not a folder"));
}

TEST(SoundListTest, KnowsBothLayoutsOfNoise) {
  const TemporaryFolder folder;
  write_bytes(folder / "ten" / "002-rain" / "5-1-A.ogg", "");
  write_bytes(folder / "ten" / "001-dog-bark" / "2-7-A.ogg", "");
  write_bytes(folder / "ten" / "ATTRIBUTION", "");
  write_bytes(folder / "fifty" / "audio" / "1-100032-A-10.wav", "");
  write_bytes(folder / "fifty" / "audio" / "4-100038-A-9.wav", "");
  write_bytes(folder / "fifty" / "meta" / "esc50.csv", "");
  const auto listed = [&](const std::string& name) {
    std::string text;
    for (const NoiseFile& clip : list_noise(folder / name)) text += clip.category + ":" + std::to_string(clip.fold) + " ";
    return text;
  };
  EXPECT_EQ(listed("ten"), "001-dog-bark:2 002-rain:5 ");
  EXPECT_EQ(listed("fifty"), "09:4 10:1 ");
  EXPECT_EQ(listed("fifty/audio"), "09:4 10:1 ");
  EXPECT_THAT(message_of<DataError>([&] { listed("fifty/meta"); }), HasSubstr("neither the folders of ESC-10"));
  EXPECT_THAT(message_of<DataError>([&] { listed("none"); }), HasSubstr("is not a folder"));
  write_bytes(folder / "ten" / "002-rain" / "6-1-A.ogg", "");
  EXPECT_THAT(message_of<DataError>([&] { listed("ten"); }), HasSubstr("6-1-A.ogg: is not named as a clip of ESC-10"));
}

TEST(SoundListTest, ReadsTheRealClips) {
  REQUIRE_REAL_DATA(data);
  const auto speech = list_speech(*data / "fsdd");
  const auto noise = list_noise(*data / "esc10");
  EXPECT_EQ(speech.size(), 3000u);
  EXPECT_EQ(noise.size(), 400u);
  for (std::size_t i = 0; i < speech.size(); i += 100) EXPECT_EQ(read_sound(speech[i].file).rate, 8000);
  for (std::size_t i = 0; i < noise.size(); i += 40) EXPECT_EQ(read_sound(noise[i].file).rate, 44'100);
}

}  // namespace
}  // namespace fusion
