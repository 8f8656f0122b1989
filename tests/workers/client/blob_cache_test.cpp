#include "workers/client/blob_cache.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>

#include "base/digest.h"
#include "base/files.h"
#include "base/random.h"
#include "tests/temporary_folder.h"
#include "tests/workers/client/blob_daemon.h"
#include "workers/client/worker_condition.h"

namespace fusion {
namespace {

using testing::BlobDaemon;
using testing::TemporaryFolder;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Kind = BlobDaemon::Fault::Kind;
using std::chrono::milliseconds;

std::string noise(std::size_t bytes, std::uint64_t seed) {
  Rng rng(seed);
  std::string text(bytes, '\0');
  for (char& c : text) c = static_cast<char>(rng.below(256));
  return text;
}

class BlobCacheTest : public ::testing::Test {
 protected:
  ManifestFile serve(std::size_t bytes, std::uint64_t seed) {
    std::string content = noise(bytes, seed);
    const std::string digest = sha256_of(content);
    daemon_.blobs[digest] = std::move(content);
    return {"file-" + std::to_string(seed), digest, false};
  }
  BlobFetcherOptions options() {
    BlobFetcherOptions options;
    options.url = daemon_.url();
    options.backoff_min = milliseconds(10);
    options.backoff_max = milliseconds(50);
    return options;
  }
  BlobCache cache(std::uint64_t limit = 1'000'000'000) { return BlobCache(folder_ / "cache", limit); }
  std::filesystem::path blob(const ManifestFile& file) { return folder_ / ("cache/blobs/" + file.digest); }
  std::string text_of(const CachedBlob& cached) { return read_text(cached.file); }
  /// When it was used last, in seconds since 1970.
  void set_used(const ManifestFile& file, time_t when) {
    const timespec times[2] = {{when, 0}, {0, UTIME_OMIT}};
    ASSERT_EQ(::utimensat(AT_FDCWD, blob(file).c_str(), times, 0), 0);
  }
  template <typename E>
  static std::string problem_of(const std::function<void()>& work) {
    try {
      work();
    } catch (const E& error) {
      return error.what();
    }
    return "";
  }

  TemporaryFolder folder_;
  BlobDaemon daemon_;
};

TEST_F(BlobCacheTest, FetchesOnceAndFindsAgain) {
  const ManifestFile file = serve(700'000, 1), empty = serve(0, 2);
  BlobFetcher fetcher(options());
  BlobCache here = cache();
  EXPECT_FALSE(here.find(file.digest));
  EXPECT_EQ(text_of(here.get(file, fetcher, {})), daemon_.blobs[file.digest]);
  EXPECT_EQ(text_of(here.get(empty, fetcher, {})), "");
  BlobCache other = cache();
  EXPECT_EQ(text_of(other.get(file, fetcher, {})), daemon_.blobs[file.digest]);
  EXPECT_THAT(daemon_.requests(), ElementsAre(file.digest, empty.digest));
  EXPECT_FALSE(std::filesystem::exists(blob(file).string() + ".part"));
}

TEST_F(BlobCacheTest, ABrokenConnectionGoesOnWhereItEnded) {
  const ManifestFile file = serve(700'000, 1);
  daemon_.faults = {{Kind::cut, 100'000}, {Kind::status, 503}, {Kind::cut, 50'000}};
  BlobFetcher fetcher(options());
  EXPECT_EQ(text_of(cache().get(file, fetcher, {})), daemon_.blobs[file.digest]);
  EXPECT_THAT(daemon_.requests(), ElementsAre(file.digest, file.digest + " bytes=100000-", file.digest + " bytes=100000-",
                                              file.digest + " bytes=150000-"));
  EXPECT_EQ(fetcher.received(), 700'000u) << "no byte came twice";
}

TEST_F(BlobCacheTest, AStalledConnectionIsGivenUpAndMadeAnew) {
  const ManifestFile file = serve(300'000, 1);
  daemon_.faults = {{Kind::stall, 200'000}};
  BlobFetcherOptions impatient = options();
  impatient.silence = milliseconds(300);
  BlobFetcher fetcher(impatient);
  EXPECT_EQ(text_of(cache().get(file, fetcher, {})), daemon_.blobs[file.digest]);
  EXPECT_THAT(daemon_.requests(), ElementsAre(file.digest, file.digest + " bytes=200000-"));
}

TEST_F(BlobCacheTest, AProcessKilledAmidAFetchIsContinuedByTheNext) {
  const ManifestFile file = serve(700'000, 1);
  daemon_.faults = {{Kind::stall, 400'000}};
  const pid_t child = ::fork();
  if (child == 0) {
    BlobFetcher fetcher(options());
    cache().get(file, fetcher, {});
    ::_exit(0);
  }
  const std::filesystem::path part = blob(file).string() + ".part";
  std::error_code error;
  for (int i = 0; i < 6000 && (!std::filesystem::exists(part) || std::filesystem::file_size(part, error) < 400'000); ++i) {
    std::this_thread::sleep_for(milliseconds(10));
  }
  ASSERT_EQ(std::filesystem::file_size(part), 400'000u);
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  BlobFetcher fetcher(options());
  EXPECT_EQ(text_of(cache().get(file, fetcher, {})), daemon_.blobs[file.digest]);
  EXPECT_THAT(daemon_.requests(), ElementsAre(file.digest, file.digest + " bytes=400000-"));
  EXPECT_EQ(fetcher.received(), 300'000u);
}

TEST_F(BlobCacheTest, WrongBytesAreFetchedOnceMore) {
  const ManifestFile file = serve(300'000, 1);
  daemon_.faults = {{Kind::none, 0, noise(300'000, 9)}};
  BlobFetcher fetcher(options());
  EXPECT_EQ(text_of(cache().get(file, fetcher, {})), daemon_.blobs[file.digest]);
  EXPECT_THAT(daemon_.requests(), ElementsAre(file.digest, file.digest));
}

TEST_F(BlobCacheTest, WrongBytesTwiceAreSaidAndNotKept) {
  const ManifestFile file = serve(300'000, 1);
  daemon_.blobs[file.digest][5] = static_cast<char>(daemon_.blobs[file.digest][5] ^ 1);
  BlobFetcher fetcher(options());
  BlobCache here = cache();
  EXPECT_THAT(problem_of<UnreadableData>([&] { here.get(file, fetcher, {}); }),
              AllOf(HasSubstr("file-1"), HasSubstr(file.digest), HasSubstr("fetched twice"), HasSubstr(daemon_.url().text())));
  EXPECT_EQ(daemon_.requests().size(), 2u);
  EXPECT_EQ(here.bytes(), 0u);
}

TEST_F(BlobCacheTest, AResumedPartOfAnotherFileIsFetchedAnew) {
  const ManifestFile file = serve(300'000, 1);
  cache();
  write_atomically(blob(file).string() + ".part", noise(1000, 9));
  BlobFetcher fetcher(options());
  EXPECT_EQ(text_of(cache().get(file, fetcher, {})), daemon_.blobs[file.digest]);
  EXPECT_THAT(daemon_.requests(), ElementsAre(file.digest + " bytes=1000-", file.digest));
}

TEST_F(BlobCacheTest, APartThatIsWholeIsNotSentAgain) {
  const ManifestFile file = serve(300'000, 1);
  cache();
  write_atomically(blob(file).string() + ".part", daemon_.blobs[file.digest]);
  BlobFetcher fetcher(options());
  EXPECT_EQ(text_of(cache().get(file, fetcher, {})), daemon_.blobs[file.digest]);
  EXPECT_EQ(fetcher.received(), 0u);
}

TEST_F(BlobCacheTest, APartLongerThanTheBlobIsFetchedAnew) {
  const ManifestFile file = serve(300'000, 1);
  cache();
  write_atomically(blob(file).string() + ".part", noise(300'001, 9));
  BlobFetcher fetcher(options());
  EXPECT_EQ(text_of(cache().get(file, fetcher, {})), daemon_.blobs[file.digest]);
  EXPECT_THAT(daemon_.requests(), ElementsAre(file.digest + " bytes=300001-", file.digest));
}

TEST_F(BlobCacheTest, WhatWasNotUsedForLongestMakesRoom) {
  const ManifestFile a = serve(400'000, 1), b = serve(400'000, 2), c = serve(400'000, 3);
  BlobFetcher fetcher(options());
  BlobCache here = cache(1'000'000);
  here.get(a, fetcher, {});
  here.get(b, fetcher, {});
  set_used(a, 2'000);
  set_used(b, 1'000);
  here.get(c, fetcher, {});
  EXPECT_TRUE(std::filesystem::exists(blob(a)));
  EXPECT_FALSE(std::filesystem::exists(blob(b)));
  EXPECT_TRUE(std::filesystem::exists(blob(c)));
  EXPECT_LE(here.bytes(), 1'000'000u);
}

TEST_F(BlobCacheTest, WhatIsInUseStaysAlsoForAnotherProcess) {
  const ManifestFile a = serve(400'000, 1), b = serve(400'000, 2), c = serve(400'000, 3);
  BlobFetcher fetcher(options());
  BlobCache here = cache(1'000'000), other = cache(1'000'000);
  {
    const CachedBlob first = here.get(a, fetcher, {}), second = here.get(b, fetcher, {});
    EXPECT_THAT(problem_of<UnreadableData>([&] { other.get(c, fetcher, {}); }), AllOf(HasSubstr("--cache-gb"), HasSubstr("no room")));
    EXPECT_TRUE(std::filesystem::exists(blob(a)) && std::filesystem::exists(blob(b)));
  }
  EXPECT_EQ(text_of(other.get(c, fetcher, {})), daemon_.blobs[c.digest]);
  EXPECT_LE(other.bytes(), 1'000'000u);
}

TEST_F(BlobCacheTest, TwoProcessesFetchABlobOnce) {
  const ManifestFile file = serve(2'000'000, 1);
  std::vector<pid_t> children;
  for (int i = 0; i < 3; ++i) {
    children.push_back(::fork());
    if (children.back() != 0) continue;
    BlobFetcher fetcher(options());
    const CachedBlob cached = cache().get(file, fetcher, {});
    ::_exit(sha256_of_file(cached.file) == file.digest ? 0 : 1);
  }
  for (const pid_t child : children) {
    int status = -1;
    ::waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
  }
  EXPECT_THAT(daemon_.requests(), ElementsAre(file.digest));
}

TEST_F(BlobCacheTest, AFetchEndsWhenItIsToldTo) {
  const ManifestFile file = serve(300'000, 1);
  daemon_.faults = {{Kind::stall, 100'000}};
  BlobFetcher fetcher(options());
  BlobCache here = cache();
  const auto stopped = [this, &file] {
    std::error_code error;
    return std::filesystem::file_size(blob(file).string() + ".part", error) == 100'000;
  };
  EXPECT_THROW(here.get(file, fetcher, stopped), FetchStopped);
  EXPECT_EQ(text_of(here.get(file, fetcher, {})), daemon_.blobs[file.digest]) << "it goes on afterwards";
}

TEST_F(BlobCacheTest, WhatTheDaemonDoesNotGiveIsASentence) {
  const ManifestFile file{"gone.safetensors", std::string(64, '0'), false};
  BlobFetcher fetcher(options());
  BlobCache here = cache();
  EXPECT_THAT(problem_of<UnreadableData>([&] { here.get(file, fetcher, {}); }),
              AllOf(HasSubstr(daemon_.url().text()), HasSubstr(file.digest), HasSubstr("no such blob here")));
  daemon_.faults = {{}, {Kind::status, 401}};
  EXPECT_THAT(problem_of<UnreadableData>([&] { here.get(file, fetcher, {}); }), HasSubstr("no such blob here"));
}

TEST_F(BlobCacheTest, ADaemonThatStaysAwayEndsThePatience) {
  BlobFetcherOptions away = options();
  away.url.port = "1";  // nobody listens there
  away.patience = milliseconds(200);
  BlobFetcher fetcher(away);
  BlobCache here = cache();
  EXPECT_THAT(problem_of<UnreadableData>([&] { here.get({"f", std::string(64, '0'), false}, fetcher, {}); }),
              AllOf(HasSubstr("nothing of blob"), HasSubstr("tried again later")));
}

TEST_F(BlobCacheTest, DamageOnDiskIsFoundAndRemoved) {
  const ManifestFile file = serve(1'000, 1);
  BlobFetcher fetcher(options());
  BlobCache here = cache();
  here.get(file, fetcher, {});
  EXPECT_FALSE(here.drop_if_damaged(file));
  const int opened = ::open(blob(file).c_str(), O_WRONLY);
  ASSERT_EQ(::pwrite(opened, "xyz", 3, 500), 3);
  ::close(opened);
  EXPECT_TRUE(here.drop_if_damaged(file));
  EXPECT_EQ(text_of(here.get(file, fetcher, {})), daemon_.blobs[file.digest]);
}

TEST_F(BlobCacheTest, AFolderThatOthersMayWriteIsRefused) {
  std::filesystem::create_directory(folder_ / "open");
  ASSERT_EQ(::chmod((folder_ / "open").c_str(), 0777), 0);
  EXPECT_THAT(problem_of<ConfigError>([&] { BlobCache(folder_ / "open", 1); }), HasSubstr("--cache"));
  write_atomically(folder_ / "file", "x");
  EXPECT_THAT(problem_of<ConfigError>([&] { BlobCache(folder_ / "file", 1); }), HasSubstr("--cache"));
}

}  // namespace
}  // namespace fusion
