#include <gmock/gmock.h>
#include <unistd.h>

#include "base/files.h"
#include "tests/workers/dispatch/harness.h"

namespace fusion {
namespace {

using testing::Harness;
using testing::TemporaryFolder;

/// A server whose every answer is one file of a million bytes with the tag "t".
class ServerFilesTest : public ::testing::Test {
 protected:
  ServerFilesTest() {
    for (std::size_t i = 0; i < 1'000'000; ++i) content_.push_back(static_cast<char>('a' + i % 23));
    write_atomically(folder_ / "file", content_);
    h_.handler = [this](HttpRequest, std::function<void(HttpResponse)> respond) {
      HttpResponse response;
      response.content_type = "application/octet-stream";
      response.file = (folder_ / "file").string();
      response.headers = {{"ETag", "\"t\""}};
      respond(std::move(response));
    };
  }

  http::response<http::string_body> ask(const std::string& method, const std::string& more) {
    const std::string bytes = method + " /file HTTP/1.1\r\nHost: localhost\r\n" + more + "\r\n";
    asio::write(socket_, asio::buffer(bytes));
    http::response_parser<http::string_body> parser;
    parser.skip(method == "HEAD");
    parser.body_limit(2'000'000);
    http::read(socket_, buffer_, parser);
    return parser.release();
  }
  void connect() { socket_.connect(tcp::endpoint(asio::ip::make_address("127.0.0.1"), h_.port())); }

  TemporaryFolder folder_;
  std::string content_;
  Harness h_;
  asio::io_context io_;
  tcp::socket socket_{io_};
  beast::flat_buffer buffer_;
};

TEST_F(ServerFilesTest, PartsOfAFileOnOneConnection) {
  connect();
  const auto whole = ask("GET", "");
  EXPECT_EQ(whole.result_int(), 200u);
  EXPECT_EQ(whole.body(), content_);
  EXPECT_EQ(whole[http::field::accept_ranges], "bytes");
  EXPECT_EQ(whole[http::field::etag], "\"t\"");
  const auto middle = ask("GET", "Range: bytes=123456-654321\r\n");
  EXPECT_EQ(middle.result_int(), 206u);
  EXPECT_EQ(middle[http::field::content_range], "bytes 123456-654321/1000000");
  EXPECT_EQ(middle.body(), content_.substr(123456, 654321 - 123456 + 1));
  const auto rest = ask("GET", "Range: bytes=999999-\r\nIf-Range: \"t\"\r\n");
  EXPECT_EQ(rest.result_int(), 206u);
  EXPECT_EQ(rest.body(), content_.substr(999999));
  EXPECT_EQ(ask("GET", "Range: bytes=5-\r\nIf-Range: \"old\"\r\n").body().size(), content_.size());
}

TEST_F(ServerFilesTest, HeadSaysTheSizeAndSendsNothing) {
  connect();
  const auto head = ask("HEAD", "");
  EXPECT_EQ(head.result_int(), 200u);
  EXPECT_EQ(head[http::field::content_length], "1000000");
  const auto part = ask("HEAD", "Range: bytes=10-19\r\n");
  EXPECT_EQ(part.result_int(), 206u);
  EXPECT_EQ(part[http::field::content_length], "10");
  EXPECT_EQ(ask("GET", "Range: bytes=0-2\r\n").body(), "abc") << "the connection is in order";
}

TEST_F(ServerFilesTest, BehindTheEndThereIs416WithTheSize) {
  connect();
  const auto outside = ask("GET", "Range: bytes=1000000-\r\n");
  EXPECT_EQ(outside.result_int(), 416u);
  EXPECT_EQ(outside[http::field::content_range], "bytes */1000000");
  EXPECT_EQ(outside.body(), "");
  EXPECT_EQ(ask("GET", "Range: bytes=0-2\r\n").body(), "abc");
}

TEST_F(ServerFilesTest, AFileThatIsGoneOrIsAFolderIs410) {
  connect();
  std::filesystem::remove(folder_ / "file");
  EXPECT_EQ(ask("GET", "").result_int(), 410u);
  std::filesystem::create_directory(folder_ / "file");
  EXPECT_EQ(ask("GET", "").result_int(), 410u);
}

// 60 MB do not fit the sockets' buffers, so the rest is gone before it is read.
TEST_F(ServerFilesTest, AFileThatShrinksAmidTheAnswerEndsTheConnection) {
  connect();
  ASSERT_EQ(::truncate((folder_ / "file").c_str(), 60'000'000), 0);
  const std::string bytes = "GET /file HTTP/1.1\r\nHost: localhost\r\n\r\n";
  asio::write(socket_, asio::buffer(bytes));
  char first = 0;
  asio::read(socket_, asio::buffer(&first, 1));
  ASSERT_EQ(::truncate((folder_ / "file").c_str(), 1000), 0);
  std::vector<char> piece(1u << 20);
  boost::system::error_code error;
  std::size_t received = 1;
  while (!error) received += socket_.read_some(asio::buffer(piece), error);
  EXPECT_LT(received, 60'000'000u);
}

}  // namespace
}  // namespace fusion
