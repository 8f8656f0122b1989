#include "workers/avmnist/idx.h"

#include <gmock/gmock.h>
#include <zlib.h>

#include "base/error.h"
#include "base/files.h"
#include "tests/workers/avmnist/sources.h"

namespace fusion {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::idx_bytes;
using testing::message_of;
using testing::TemporaryFolder;
using testing::write_bytes;

void write_gz(const std::filesystem::path& file, const std::string& bytes) {
  const gzFile stream = gzopen(file.c_str(), "wb");
  gzwrite(stream, bytes.data(), static_cast<unsigned>(bytes.size()));
  gzclose(stream);
}

TEST(IdxTest, ReadsPlainAndGzippedAlike) {
  const TemporaryFolder folder;
  const std::string bytes = idx_bytes({2, 3}, {1, 2, 3, 4, 5, 255});
  write_bytes(folder / "plain", bytes);
  write_gz(folder / "zipped", bytes);
  for (const char* name : {"plain", "zipped"}) {
    const IdxArray array = read_idx(folder / name);
    EXPECT_THAT(array.shape, ElementsAre(2, 3));
    EXPECT_THAT(array.data, ElementsAre(1, 2, 3, 4, 5, 255));
  }
}

TEST(IdxTest, SaysWhatIsWrong) {
  const TemporaryFolder folder;
  const auto reading = [&](const std::string& bytes) {
    write_bytes(folder / "file", bytes);
    return message_of<DataError>([&] { read_idx(folder / "file"); });
  };
  const std::string good = idx_bytes({4}, {1, 2, 3, 4});
  EXPECT_THAT(reading(good.substr(0, 3)), AllOf(HasSubstr("file: "), HasSubstr("magic number")));
  EXPECT_THAT(reading("PNG " + good), AllOf(HasSubstr("1347307296"), HasSubstr("2051")));
  EXPECT_THAT(reading(good.substr(0, 6)), HasSubstr("within the header"));
  EXPECT_THAT(reading(good.substr(0, good.size() - 1)), AllOf(HasSubstr("truncated"), HasSubstr("4 bytes"), HasSubstr("there are 3")));
  EXPECT_THAT(reading(good + "x"), HasSubstr("goes on after"));
  EXPECT_THAT(reading(idx_bytes({0xffffffff, 0xffffffff}, {})), HasSubstr("damaged"));
  EXPECT_THAT(message_of<DataError>([&] { read_idx(folder / "none"); }), HasSubstr("none: "));
}

TEST(IdxTest, FindsDamageInGzip) {
  const TemporaryFolder folder;
  std::vector<std::uint8_t> data(100'000);
  Rng rng(3);
  for (auto& byte : data) byte = static_cast<std::uint8_t>(rng.below(256));
  write_gz(folder / "good.gz", idx_bytes({100'000}, data));
  const std::string good = read_text(folder / "good.gz");
  EXPECT_EQ(read_idx(folder / "good.gz").data, data);

  write_bytes(folder / "cut.gz", good.substr(0, good.size() / 2));
  EXPECT_THAT(message_of<DataError>([&] { read_idx(folder / "cut.gz"); }), HasSubstr("cut.gz: "));
  std::string flipped = good;
  flipped[flipped.size() / 2] ^= 1;
  write_bytes(folder / "flipped.gz", flipped);
  EXPECT_THAT(message_of<DataError>([&] { read_idx(folder / "flipped.gz"); }), HasSubstr("flipped.gz: "));
  write_bytes(folder / "tail.gz", good.substr(0, good.size() - 4));  // data whole, checksum cut
  EXPECT_THAT(message_of<DataError>([&] { read_idx(folder / "tail.gz"); }), HasSubstr("tail.gz: "));
}

TEST(IdxTest, ChecksImagesAgainstLabels) {
  const TemporaryFolder folder;
  const std::filesystem::path images = folder / "train-images-idx3-ubyte", labels = folder / "train-labels-idx1-ubyte";
  const auto reading = [&] { return message_of<DataError>([&] { read_mnist(folder.path(), "train"); }); };
  EXPECT_THAT(reading(), HasSubstr("has no train-images-idx3-ubyte.gz"));
  write_bytes(images, idx_bytes({2, 28, 28}, std::vector<std::uint8_t>(2 * 784)));
  EXPECT_THAT(reading(), HasSubstr("train-labels-idx1-ubyte"));
  write_bytes(labels, idx_bytes({3}, {1, 2, 3}));
  EXPECT_THAT(reading(), AllOf(HasSubstr("2 images"), HasSubstr("3 labels")));
  write_bytes(labels, idx_bytes({2}, {9, 10}));
  EXPECT_THAT(reading(), HasSubstr("label 1 is 10"));
  write_bytes(labels, idx_bytes({2}, {9, 0}));
  EXPECT_EQ(read_mnist(folder.path(), "train").rows(), 2);
  EXPECT_EQ(read_mnist(folder.path(), "train", 1).pixels.size(), 784u);
  write_bytes(images, idx_bytes({2, 28, 27}, std::vector<std::uint8_t>(2 * 28 * 27)));
  EXPECT_THAT(reading(), HasSubstr("28 by 28"));
  EXPECT_THAT(message_of<DataError>([&] { read_mnist(folder / "nowhere", "train"); }), HasSubstr("is not a folder"));
}

TEST(IdxTest, ReadsTheRealMnist) {
  REQUIRE_REAL_DATA(data);
  const std::vector<int> train{5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949};
  const std::vector<int> test{980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009};
  for (const auto& [part, counts] : {std::pair{std::string("train"), train}, {std::string("t10k"), test}}) {
    const MnistPart mnist = read_mnist(*data / "mnist", part);
    std::vector<int> found(10);
    for (const std::uint8_t label : mnist.labels) ++found[label];
    EXPECT_EQ(found, counts);
    double sum = 0;
    for (const std::uint8_t pixel : mnist.pixels) sum += pixel;
    EXPECT_NEAR(sum / 255 / static_cast<double>(mnist.pixels.size()), part == "train" ? 0.130660 : 0.132515, 1e-6);
  }
}

}  // namespace
}  // namespace fusion
