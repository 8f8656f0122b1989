#include "workers/avmnist/idx.h"

#include <zlib.h>

#include <algorithm>
#include <memory>

#include "base/error.h"

namespace fusion {

namespace {

constexpr std::int64_t kLargestArray = std::int64_t{1} << 31;

/// Bytes of a file that may be gzipped. zlib passes a plain file through as it is.
class GzReader {
 public:
  explicit GzReader(const std::filesystem::path& file) : file_(file), stream_(gzopen(file.c_str(), "rb"), &gzclose) {
    if (!std::filesystem::is_regular_file(file)) throw DataError(file.string() + ": is not a file that can be read");
    if (!stream_) throw DataError(file.string() + ": cannot be opened for reading");
    gzbuffer(stream_.get(), 1 << 18);
  }

  /// Up to `bytes` bytes; fewer only at the end of the file.
  std::size_t read(std::uint8_t* into, std::size_t bytes) {
    const int got = gzread(stream_.get(), into, static_cast<unsigned>(bytes));
    int code = Z_OK;
    const char* reason = gzerror(stream_.get(), &code);
    if (got < 0 || (code != Z_OK && code != Z_STREAM_END)) {
      throw DataError(file_.string() + ": the gzip data is damaged or ends early (" + std::string(reason) + ")");
    }
    return static_cast<std::size_t>(got);
  }

 private:
  std::filesystem::path file_;
  std::unique_ptr<gzFile_s, int (*)(gzFile)> stream_;
};

/// The sizes in the header, and their product.
std::int64_t read_header(GzReader& reader, const std::string& name, std::vector<std::int64_t>& shape) {
  std::uint8_t magic[4];
  if (reader.read(magic, 4) != 4) throw DataError(name + ": ends within the magic number (not an IDX file)");
  if (magic[0] != 0 || magic[1] != 0 || magic[2] != 8 || magic[3] < 1 || magic[3] > 4) {
    const unsigned number = (unsigned{magic[0]} << 24) | (unsigned{magic[1]} << 16) | (unsigned{magic[2]} << 8) | magic[3];
    throw DataError(name + ": the magic number is " + std::to_string(number) +
                    ", not that of an IDX file of unsigned bytes (2049 for labels, 2051 for images)");
  }
  std::int64_t count = 1;
  for (int i = 0; i < magic[3]; ++i) {
    std::uint8_t word[4];
    if (reader.read(word, 4) != 4) throw DataError(name + ": ends within the header");
    shape.push_back((std::int64_t{word[0]} << 24) | (word[1] << 16) | (word[2] << 8) | word[3]);
    if (shape.back() > 0 && count > kLargestArray / shape.back()) {
      throw DataError(name + ": the header asks for more than " + std::to_string(kLargestArray) + " bytes; it is damaged");
    }
    count *= shape.back();
  }
  return count;
}

}  // namespace

IdxArray read_idx(const std::filesystem::path& file) {
  GzReader reader(file);
  const std::string name = file.string();
  IdxArray array;
  const auto count = static_cast<std::size_t>(read_header(reader, name, array.shape));
  // Grown as the data comes: a damaged header must not make us reserve gigabytes.
  constexpr std::size_t kPiece = 1 << 18;
  while (array.data.size() < count) {
    const std::size_t have = array.data.size(), want = std::min(kPiece, count - have);
    array.data.resize(have + want);
    const std::size_t got = reader.read(array.data.data() + have, want);
    if (got < want) {
      throw DataError(name + ": is truncated: the header announces " + std::to_string(count) + " bytes of data, there are " +
                      std::to_string(have + got));
    }
  }
  std::uint8_t extra;
  if (reader.read(&extra, 1) != 0) {
    throw DataError(name + ": goes on after the " + std::to_string(count) + " bytes of data that the header announces");
  }
  return array;
}

namespace {

std::filesystem::path find_part(const std::filesystem::path& folder, const std::string& stem) {
  for (const char* ending : {".gz", ""}) {
    std::filesystem::path file = folder / (stem + ending);
    if (std::filesystem::exists(file)) return file;
  }
  throw DataError(folder.string() + ": has no " + stem + ".gz and no " + stem + "; the four MNIST files are expected here");
}

}  // namespace

std::array<std::filesystem::path, 2> mnist_files(const std::filesystem::path& folder, const std::string& part) {
  if (!std::filesystem::is_directory(folder)) {
    throw DataError(folder.string() + ": is not a folder; the folder of the four MNIST files was expected");
  }
  return {find_part(folder, part + "-images-idx3-ubyte"), find_part(folder, part + "-labels-idx1-ubyte")};
}

MnistPart read_mnist(const std::filesystem::path& folder, const std::string& part, std::optional<std::int64_t> limit) {
  const auto files = mnist_files(folder, part);
  const std::string images_name = files[0].string(), labels_name = files[1].string();
  IdxArray images = read_idx(files[0]), labels = read_idx(files[1]);
  if (images.shape.size() != 3 || images.shape[1] != 28 || images.shape[2] != 28) {
    throw DataError(images_name + ": does not hold images of 28 by 28 pixels");
  }
  if (labels.shape.size() != 1) throw DataError(labels_name + ": does not hold a list of labels");
  if (images.shape[0] != labels.shape[0]) {
    throw DataError(images_name + " holds " + std::to_string(images.shape[0]) + " images and " + labels_name + " " +
                    std::to_string(labels.shape[0]) + " labels; the numbers must be equal");
  }
  const auto wrong = std::find_if(labels.data.begin(), labels.data.end(), [](std::uint8_t label) { return label > 9; });
  if (wrong != labels.data.end()) {
    throw DataError(labels_name + ": label " + std::to_string(wrong - labels.data.begin()) + " is " + std::to_string(*wrong) +
                    "; a digit from 0 to 9 was expected");
  }
  const std::int64_t rows = limit ? std::min(*limit, images.shape[0]) : images.shape[0];
  images.data.resize(static_cast<std::size_t>(rows * 784));
  labels.data.resize(static_cast<std::size_t>(rows));
  return {std::move(images.data), std::move(labels.data)};
}

}  // namespace fusion
