#include "base/tensor_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cstring>

#include "base/bfloat16.h"
#include "base/random.h"
#include "tests/temporary_folder.h"

namespace fusion {
namespace {

using testing::TemporaryFolder;
using ::testing::HasSubstr;

/// A .safetensors file with that header and that many bytes of data.
std::string safetensors_bytes(const std::string& header, std::size_t data_bytes) {
  std::string bytes(8, '\0');
  const std::uint64_t length = header.size();
  std::memcpy(bytes.data(), &length, 8);
  return bytes + header + std::string(data_bytes, '\0');
}

std::string error_of(const std::filesystem::path& file, const std::string& bytes) {
  write_atomically(file, bytes);
  try {
    SafetensorsFile::open(file);
  } catch (const DataError& error) {
    return error.what();
  }
  return "no error";
}

TEST(SafetensorsTest, RoundTripsWithMetadata) {
  TemporaryFolder folder;
  const std::vector<float> a{1.5f, -2, 3, 4, 5, 6};
  const std::vector<std::int64_t> b{7, -8};
  write_safetensors(folder / "x.safetensors", {{"a", {DType::f32, {2, 3}, a.data()}}, {"b", {DType::i64, {2}, b.data()}}},
                    {{"kind", "lenet"}});
  const SafetensorsFile file = SafetensorsFile::open(folder / "x.safetensors");
  EXPECT_EQ(file.at("a").to<float>(), a);
  EXPECT_EQ(file.at("a").shape, (std::vector<std::int64_t>{2, 3}));
  EXPECT_EQ(file.at("b").to<std::int64_t>(), b);
  EXPECT_EQ(file.metadata().at("kind"), "lenet");
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(file.at("a").data) % 64, 0u);
  EXPECT_THROW(file.at("c"), DataError);
}

TEST(SafetensorsTest, ConvertsHalfTypes) {
  TemporaryFolder folder;
  const std::vector<std::uint16_t> half{0x3C00, 0xC000, 0x0001, 0x7C00, 0x3555};
  const std::vector<std::uint16_t> brain{0x3F80, 0xC000};
  write_safetensors(folder / "h", {{"h", {DType::f16, {5}, half.data()}}, {"b", {DType::bf16, {2}, brain.data()}}});
  const SafetensorsFile file = SafetensorsFile::open(folder / "h");
  const std::vector<float> h = file.at("h").to<float>();
  EXPECT_EQ(h[0], 1.0f);
  EXPECT_EQ(h[1], -2.0f);
  EXPECT_EQ(h[2], 0x1p-24f);
  EXPECT_TRUE(std::isinf(h[3]));
  EXPECT_NEAR(h[4], 0.33325f, 1e-5);
  EXPECT_EQ(file.at("b").to<float>(), (std::vector<float>{1.0f, -2.0f}));
}

TEST(Bfloat16Test, WidensEveryNumberExactlyAtAnyLengthAndPlace) {
  std::vector<std::uint16_t> halves(65'536 + 1);
  for (std::size_t i = 0; i < halves.size(); ++i) halves[i] = static_cast<std::uint16_t>(i);
  std::vector<float> wide(65'536);
  widen_bfloat16(reinterpret_cast<const std::byte*>(halves.data()), wide.size(), wide.data());
  for (std::size_t i = 0; i < wide.size(); ++i) ASSERT_EQ(std::bit_cast<std::uint32_t>(wide[i]), i << 16);
  for (std::size_t count = 0; count < 20; ++count) {
    std::vector<float> some(21, -1.0F);
    widen_bfloat16(reinterpret_cast<const std::byte*>(halves.data() + 16'001), count, some.data());
    for (std::size_t i = 0; i < count; ++i) EXPECT_EQ(some[i], wide[16'001 + i]);
    EXPECT_EQ(some[count], -1.0F);
  }
}

TEST(SafetensorsTest, RefusesEveryKindOfCorruptHeaderWithASentence) {
  TemporaryFolder folder;
  const auto file = folder / "bad.safetensors";
  EXPECT_THAT(error_of(file, "short"), HasSubstr("too few"));
  EXPECT_THAT(error_of(file, std::string(8, '\xff') + "x"), HasSubstr("truncated"));
  EXPECT_THAT(error_of(file, safetensors_bytes("not json", 0)), HasSubstr("not a JSON object"));
  EXPECT_THAT(error_of(file, safetensors_bytes(R"({"a": 3})", 0)), HasSubstr("tensor \"a\""));
  EXPECT_THAT(error_of(file, safetensors_bytes(R"({"a": {"dtype": "F33", "shape": [1], "data_offsets": [0, 4]}})", 4)), HasSubstr("dtype"));
  EXPECT_THAT(error_of(file, safetensors_bytes(R"({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}})", 4)), HasSubstr("truncated"));
  EXPECT_THAT(error_of(file, safetensors_bytes(R"({"a": {"dtype": "F32", "shape": [2], "data_offsets": [4, 0]}})", 8)), HasSubstr("data_offsets"));
  EXPECT_THAT(error_of(file, safetensors_bytes(R"({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}})", 8)), HasSubstr("shape"));
  EXPECT_THAT(error_of(file, safetensors_bytes(R"({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 8]}})", 8)), HasSubstr("shape"));
  EXPECT_THAT(error_of(file, safetensors_bytes(R"({"a": {"dtype": "F64", "shape": [4611686018427387904, 8], "data_offsets": [0, 8]}})", 8)), HasSubstr("shape"));
  EXPECT_THAT(error_of(file, safetensors_bytes(R"({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "b": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}})", 12)), HasSubstr("overlap"));
  EXPECT_THAT(error_of(file, safetensors_bytes(R"({"a": {"dtype": "U8", "shape": [4611686018427387904, 2, 0], "data_offsets": [0, 0]}})", 0)), HasSubstr("shape"));
  EXPECT_THAT(error_of(file, safetensors_bytes("{\"a\": " + std::string(1'000'000, '[') + std::string(1'000'000, ']') + "}", 0)), HasSubstr("nested too deep"));
}

TEST(SafetensorsTest, NeverCrashesOnMutatedFiles) {
  TemporaryFolder folder;
  const std::vector<float> a(16, 1.0f);
  write_safetensors(folder / "x", {{"a", {DType::f32, {4, 4}, a.data()}}, {"b", {DType::f32, {16}, a.data()}}});
  const std::string good = read_text(folder / "x");
  const std::uint64_t seed = 20260101;
  SCOPED_TRACE("seed " + std::to_string(seed));
  Rng rng(seed);
  for (int i = 0; i < 500; ++i) {
    std::string bytes = good;
    for (std::uint64_t flips = 1 + rng.below(3); flips > 0; --flips) bytes[rng.below(bytes.size())] = static_cast<char>(rng.next_u32());
    if (rng.below(4) == 0) bytes.resize(rng.below(bytes.size()));
    write_atomically(folder / "m", bytes);
    try {
      const SafetensorsFile file = SafetensorsFile::open(folder / "m");
      for (const auto& [name, view] : file.tensors()) view.to<double>();
    } catch (const DataError&) {
    }
  }
}

TEST(NpyTest, RoundTripsEveryRank) {
  TemporaryFolder folder;
  const std::vector<std::uint8_t> values{1, 2, 3, 4, 5, 6};
  for (const std::vector<std::int64_t>& shape : {std::vector<std::int64_t>{6}, {2, 3}, {1, 2, 3}}) {
    write_npy(folder / "a.npy", {DType::u8, shape, values.data()});
    const TensorView view = open_npy(folder / "a.npy");
    EXPECT_EQ(view.shape, shape);
    EXPECT_EQ(view.to<std::int64_t>(), (std::vector<std::int64_t>{1, 2, 3, 4, 5, 6}));
  }
}

TEST(NpyTest, RefusesWhatItCannotReadWithASentence) {
  TemporaryFolder folder;
  const auto error_of_npy = [&](const std::string& bytes) -> std::string {
    write_atomically(folder / "a.npy", bytes);
    try {
      open_npy(folder / "a.npy");
    } catch (const DataError& error) {
      return error.what();
    }
    return "no error";
  };
  const std::vector<float> values(6, 1.0f);
  write_npy(folder / "good.npy", {DType::f32, {2, 3}, values.data()});
  const std::string good = read_text(folder / "good.npy");
  EXPECT_THAT(error_of_npy("hello"), HasSubstr("not a .npy file"));
  EXPECT_THAT(error_of_npy(good.substr(0, good.size() - 1)), HasSubstr("truncated"));
  EXPECT_THAT(error_of_npy(good.substr(0, 20)), HasSubstr("truncated"));
  std::string fortran = good;
  fortran.replace(fortran.find("False"), 5, "True ");
  EXPECT_THAT(error_of_npy(fortran), HasSubstr("Fortran"));
  std::string big_endian = good;
  big_endian.replace(big_endian.find("<f4"), 3, ">f4");
  EXPECT_THAT(error_of_npy(big_endian), HasSubstr("element type"));
  std::string overflowing = good;
  overflowing.replace(overflowing.find("(2, 3)"), 29, "(4611686018427387904, 2, 0), ");
  EXPECT_THAT(error_of_npy(overflowing), HasSubstr("too many bytes"));
}

}  // namespace
}  // namespace fusion
