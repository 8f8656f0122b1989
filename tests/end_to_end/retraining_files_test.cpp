// What workers send of retrainings: real sockets, a real dispatcher and store, real files.
#include "tools/retraining_files.h"

#include <gmock/gmock.h>
#include <sys/mount.h>

#include <nlohmann/json.hpp>
#include <set>

#include "base/digest.h"
#include "base/files.h"
#include "security/access.h"
#include "tests/workers/dispatch/harness.h"
#include "tools/api_parts.h"

namespace fusion {
namespace {

using nlohmann::json;
using protocol::RetrainingLease;
using testing::Harness;
using testing::ScriptedWorker;
using testing::TemporaryFolder;
using ::testing::HasSubstr;
namespace fs = std::filesystem;

struct Reply {
  unsigned status = 0;
  json body;
  std::string text;
};

class RetrainingFilesTest : public ::testing::Test {
 protected:
  RetrainingFilesTest() {
    worker_token_ = make(Role::worker);
    other_token_ = make(Role::worker);
    read_token_ = make(Role::read);
    submit_token_ = make(Role::submit);
    tokens_.save(folder_ / "tokens.json");
    access_.emplace(folder_ / "tokens.json", LoopbackRule::token);
    h_ = std::make_unique<Harness>([this](DispatchOptions&, ServerOptions& server) {
      server.access = &*access_;
      server.body_limit = 1u << 20;
    });
    h_->handler = [this](HttpRequest request, std::function<void(HttpResponse)> respond) { handle(std::move(request), std::move(respond)); };
    begin({});
    retraining_ = h_->submit(Harness::small_retraining((folder_ / "artifacts").string()));
    worker_ = std::make_unique<ScriptedWorker>(h_->port(), worker_token_);
    worker_->join("far");
    lease_ = worker_->expect<RetrainingLease>();
    content_ = std::string(3'000'000, 'x');
    for (std::size_t i = 0; i < content_.size(); ++i) content_[i] = static_cast<char>(i * i >> 7);
    digest_ = sha256_of(content_);
  }
  ~RetrainingFilesTest() override { end(); }

  std::string make(Role role) {
    const IssuedToken token = issue_token(role, "x", 1);
    tokens_.add(token.record);
    return token.text;
  }
  /// As a daemon that was started (again).
  void begin(const UploadLimits& limits) {
    end();
    files_ = std::make_unique<RetrainingFiles>(*h_->io, *h_->dispatcher, limits);
  }
  void end() {
    if (!files_) return;
    h_->on_io([this] { files_->stop(); });
    h_->on_io([] {});
    files_.reset();
  }
  void handle(HttpRequest request, std::function<void(HttpResponse)> respond) {
    std::vector<std::string> path = split(request.path);
    path.erase(path.begin(), path.begin() + 2);
    const auto refuse = respond;
    try {
      if (!files_->handle(request, path, respond)) respond(http_problem(404, "none of these addresses"));
    } catch (...) {
      refuse(refusal(422, std::current_exception()));
    }
  }

  fs::path there(const std::string& name) const { return fs::path(lease_.job.folder) / name; }
  /// Everything in the folder but its mark.
  std::set<std::string> names() const {
    std::set<std::string> all;
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(lease_.job.folder, error)) {
      if (entry.path().filename() != ".mark") all.insert(entry.path().filename().string());
    }
    return all;
  }
  std::string target(const std::string& name = "", int attempt = 1, const std::string& more = "") const {
    return "/api/v1/retrainings/" + to_string(retraining_) + "/files" + (name.empty() ? "" : "/" + name) + "?attempt=" + std::to_string(attempt) + more;
  }
  Reply ask(const std::string& method, const std::string& path, const std::string& token, const std::string& body = "", const std::string& more = "") {
    asio::io_context io;
    tcp::socket socket(io);
    socket.connect(tcp::endpoint(asio::ip::make_address("127.0.0.1"), h_->port()));
    std::string head = method + " " + path + " HTTP/1.1\r\nHost: localhost\r\n" + more + "Content-Length: " + std::to_string(body.size()) + "\r\n";
    if (!token.empty()) head += "Authorization: Bearer " + token + "\r\n";
    boost::system::error_code ignored;
    asio::write(socket, std::vector<asio::const_buffer>{asio::buffer(head), asio::buffer("\r\n", 2), asio::buffer(body)}, ignored);
    beast::flat_buffer buffer;
    http::response_parser<http::string_body> parser;
    parser.body_limit(1u << 30);
    http::read(socket, buffer, parser);
    return {parser.get().result_int(), json::parse(parser.get().body(), nullptr, false), parser.get().body()};
  }
  Reply put(const std::string& name, std::size_t begin, std::size_t bytes, const std::string& more = "", int attempt = 1) {
    const std::string query = more.empty() ? "&sha256=" + digest_ + "&bytes=" + std::to_string(content_.size()) : more;
    return ask("PUT", target(name, attempt, query + "&begin=" + std::to_string(begin)), worker_token_, content_.substr(begin, bytes));
  }
  /// The whole content, piece by piece.
  Reply send(const std::string& name) {
    Reply last;
    for (std::size_t at = 0; at < content_.size(); at += 1'000'000) last = put(name, at, 1'000'000);
    return last;
  }
  template <typename Condition>
  void wait(Condition condition) {
    for (int i = 0; i < 6000 && !condition(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
    EXPECT_TRUE(condition());
  }

  TemporaryFolder folder_;
  TokenTable tokens_;
  std::string worker_token_, other_token_, read_token_, submit_token_, content_, digest_;
  std::optional<Access> access_;
  std::unique_ptr<Harness> h_;
  std::unique_ptr<RetrainingFiles> files_;
  RetrainingId retraining_;
  std::unique_ptr<ScriptedWorker> worker_;
  RetrainingLease lease_;
};

TEST_F(RetrainingFilesTest, PiecesBecomeAFileInOneStep) {
  for (std::size_t at = 0; at < 2'000'000; at += 1'000'000) {
    const Reply reply = put("model.pt", at, 1'000'000);
    EXPECT_EQ(reply.status, 200u) << reply.text;
    EXPECT_EQ(reply.body["have"], at + 1'000'000);
    EXPECT_EQ(reply.body["done"], false);
    EXPECT_EQ(names(), std::set<std::string>{"." + digest_ + ".part"});
  }
  const Reply last = put("model.pt", 2'000'000, 1'000'000);
  EXPECT_EQ(last.body, (json{{"have", 3'000'000}, {"done", true}})) << last.text;
  EXPECT_EQ(names(), std::set<std::string>{"model.pt"});
  EXPECT_EQ(read_text(there("model.pt")), content_);
  EXPECT_EQ(put("model.pt", 2'000'000, 1'000'000).body["done"], true) << "said again, as after a lost answer";
  content_ = "another content of that name";
  digest_ = sha256_of(content_);
  EXPECT_EQ(put("model.pt", 0, 1'000).body["done"], true);
  EXPECT_EQ(read_text(there("model.pt")), content_);
  content_.clear();
  digest_ = sha256_of(content_);
  EXPECT_EQ(put("empty", 0, 0).body["done"], true);
  EXPECT_EQ(fs::file_size(there("empty")), 0u);
}

TEST_F(RetrainingFilesTest, WhatHasComeIsGoneOnWithAlsoAfterADaemonWasKilled) {
  put("model.pt", 0, 1'000'000);
  const Reply repeated = put("model.pt", 0, 1'000'000);
  EXPECT_EQ(repeated.status, 416u);
  EXPECT_EQ(repeated.body["have"], 1'000'000);
  EXPECT_EQ(put("model.pt", 2'000'000, 1'000'000).status, 416u) << "a gap";
  begin({});
  EXPECT_EQ(put("model.pt", 0, 0).body["have"], 1'000'000) << "an empty piece asks";
  put("model.pt", 1'000'000, 1'000'000);
  EXPECT_EQ(put("model.pt", 2'000'000, 1'000'000).body["done"], true);
  EXPECT_EQ(read_text(there("model.pt")), content_);
}

TEST_F(RetrainingFilesTest, WhatIsNotAsItShouldBeIsRefusedAndLeavesNothing) {
  const std::string all = "&sha256=" + digest_ + "&bytes=" + std::to_string(content_.size());
  const std::string piece(1'000, 'x');
  EXPECT_EQ(ask("PUT", target("model.pt", 1, all), "", piece).status, 401u);
  EXPECT_EQ(ask("PUT", target("model.pt", 1, all), read_token_, piece).status, 403u);
  EXPECT_EQ(ask("PUT", target("model.pt", 1, all), submit_token_, piece).status, 403u);
  const Reply anothers = ask("PUT", target("model.pt", 1, all), other_token_, piece);
  EXPECT_EQ(anothers.status, 403u);
  EXPECT_THAT(anothers.text, HasSubstr("another token"));
  for (const int attempt : {2, 1'000'000}) EXPECT_EQ(ask("PUT", target("model.pt", attempt, all), worker_token_, piece).status, 409u);
  EXPECT_EQ(ask("PUT", "/api/v1/retrainings/77/files/model.pt?attempt=1" + all, worker_token_, piece).status, 409u);
  for (const char* name : {"..%2fmodel.pt", "%2e%2e", ".hidden", "a%20b", "%2fetc%2fpasswd", "a%5cb", "-%0a"}) {
    const unsigned status = ask("PUT", target(name, 1, all), worker_token_, piece).status;
    EXPECT_TRUE(status == 404u || status == 422u) << name << " " << status;
  }
  EXPECT_EQ(ask("PUT", target(std::string(201, 'a'), 1, all), worker_token_, piece).status, 422u);
  for (const char* query : {"&bytes=5", "&sha256=abc&bytes=5", "&bytes=-1", "&bytes=5&other=1"}) {
    EXPECT_EQ(ask("PUT", target("model.pt", 1, query), worker_token_, piece).status, 422u) << query;
  }
  EXPECT_EQ(ask("PUT", target("model.pt", 1, "&bytes=500&sha256=" + digest_), worker_token_, piece).status, 400u) << "longer than was told";
  EXPECT_EQ(ask("PUT", target("model.pt", 1, all), worker_token_, std::string(2u << 20, 'x')).status, 413u) << "larger than a request may be";
  EXPECT_EQ(names(), std::set<std::string>{});
  const Reply wrong = ask("PUT", target("model.pt", 1, "&bytes=1000&sha256=" + digest_), worker_token_, piece);
  EXPECT_EQ(wrong.status, 422u);
  EXPECT_THAT(wrong.text, HasSubstr(sha256_of(piece)));
  EXPECT_EQ(names(), std::set<std::string>{});
}

TEST_F(RetrainingFilesTest, LimitsAreSaidInASentenceBeforeAnythingIsWritten) {
  UploadLimits limits;
  limits.file_gb = 0.002;
  begin(limits);
  const Reply large = put("model.pt", 0, 1'000);
  EXPECT_EQ(large.status, 413u);
  EXPECT_THAT(large.text, HasSubstr("model.pt has 0.003 GB, and this daemon takes files of at most 0.002 GB"));
  limits = {};
  limits.folder_gb = 0.004;
  begin(limits);
  EXPECT_EQ(send("a").body["done"], true);
  const Reply full = put("b", 0, 1'000);
  EXPECT_EQ(full.status, 413u);
  EXPECT_THAT(full.text, HasSubstr("/uploads/folder_gb"));
  EXPECT_EQ(put("a", 0, 1'000).body["done"], true) << "it is there";
  limits = {};
  limits.keep_free_gb = 1e6;
  begin(limits);
  const Reply room = put("b", 0, 1'000);
  EXPECT_EQ(room.status, 507u);
  EXPECT_THAT(room.text, HasSubstr("has no room for 0.003 GB"));
  EXPECT_EQ(names(), std::set<std::string>{"a"});
}

TEST_F(RetrainingFilesTest, AFullDiskIsASentenceAndTheFileComesWhenThereIsRoom) {
  struct SmallDisk {
    fs::path folder;
    bool mounted = ::mount("none", folder.c_str(), "tmpfs", 0, "size=2m") == 0;
    ~SmallDisk() {
      if (mounted) ::umount2(folder.c_str(), MNT_DETACH);
    }
  };
  fs::create_directories(lease_.job.folder);
  const SmallDisk disk{lease_.job.folder};
  if (!disk.mounted) GTEST_SKIP() << "a small disk needs the right to mount one";
  UploadLimits limits;
  limits.keep_free_gb = 0;
  begin(limits);
  write_atomically(there("other"), std::string(1'000'000, 'x'));
  content_.resize(1'000'000);
  digest_ = sha256_of(content_);
  EXPECT_EQ(put("model.pt", 0, 500'000).status, 200u);
  write_atomically(there("another"), std::string(400'000, 'x'));
  const Reply full = put("model.pt", 500'000, 500'000);
  EXPECT_EQ(full.status, 507u) << full.text;
  fs::remove(there("another"));
  EXPECT_EQ(put("model.pt", 500'000, 500'000).body["done"], true);
  EXPECT_EQ(read_text(there("model.pt")), content_);
  end();
}

TEST_F(RetrainingFilesTest, AConnectionThatBreaksAmidAPieceLeavesWhatCameBefore) {
  put("model.pt", 0, 1'000'000);
  asio::io_context io;
  tcp::socket socket(io);
  socket.connect(tcp::endpoint(asio::ip::make_address("127.0.0.1"), h_->port()));
  const std::string query = "&sha256=" + digest_ + "&bytes=" + std::to_string(content_.size()) + "&begin=1000000";
  asio::write(socket, asio::buffer("PUT " + target("model.pt", 1, query) + " HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + worker_token_ +
                                   "\r\nContent-Length: 1000000\r\n\r\n" + std::string(400'000, 'y')));
  socket.close();
  EXPECT_EQ(put("model.pt", 0, 0).body["have"], 1'000'000);
  put("model.pt", 1'000'000, 1'000'000);
  EXPECT_EQ(put("model.pt", 2'000'000, 1'000'000).body["done"], true);
}

TEST_F(RetrainingFilesTest, AnAttemptThatIsOverIsRefusedAndItsPartRemoved) {
  EXPECT_EQ(put("model.pt", 0, 1'000'000).status, 200u);
  worker_->say(protocol::GiveBack{{}, "enough", {{retraining_, 1}}});
  const RetrainingLease second = worker_->expect<RetrainingLease>();
  EXPECT_EQ(second.job.attempt, 2);
  const Reply late = put("model.pt", 1'000'000, 1'000'000);
  EXPECT_EQ(late.status, 409u);
  EXPECT_THAT(late.text, HasSubstr("attempt 1 of retraining"));
  wait([this] { return names().empty(); });
  EXPECT_EQ(put("model.pt", 0, 1'000'000, "", 2).status, 200u);
}

TEST_F(RetrainingFilesTest, AWorkerThatIsAwayIsWaitedFor) {
  worker_->vanish();
  h_->wait_until([this] { return h_->dispatcher->connected_workers() == 0; });
  EXPECT_EQ(put("model.pt", 0, 1'000).status, 503u);
  ScriptedWorker back(h_->port(), worker_token_);
  protocol::Hello hello;
  hello.name = "far";
  hello.host = "here";
  hello.device = "cpu";
  hello.pack = hello.slots = 1;
  hello.code_version = hello.torch_version = "1";
  hello.retrainings = {{retraining_, 1}};
  back.say(hello);
  back.expect<protocol::Welcome>();
  EXPECT_EQ(put("model.pt", 0, 1'000).status, 200u);
}

TEST_F(RetrainingFilesTest, FilesAreListedFetchedInPartsAndRemoved) {
  const Reply before = ask("GET", target(), worker_token_);
  EXPECT_EQ(before.status, 200u) << before.text;
  EXPECT_EQ(before.body["files"], json::array());
  EXPECT_EQ(before.body["mark"], read_text(there(".mark")));
  EXPECT_EQ(ask("GET", target(), worker_token_).body["mark"], before.body["mark"]);
  send("checkpoint-1");
  EXPECT_EQ(ask("GET", target("", 1, "&digests=1"), worker_token_).body["files"],
            (json::array({{{"name", "checkpoint-1"}, {"bytes", content_.size()}, {"sha256", digest_}}})));
  const Reply part = ask("GET", target("checkpoint-1"), worker_token_, "", "Range: bytes=2999990-\r\n");
  EXPECT_EQ(part.status, 206u);
  EXPECT_EQ(part.text, content_.substr(2'999'990));
  EXPECT_EQ(ask("GET", target("checkpoint-1"), other_token_).status, 403u);
  EXPECT_EQ(ask("GET", target("checkpoint-2"), worker_token_).status, 404u);
  fs::create_symlink("/etc/passwd", there("link"));
  EXPECT_EQ(ask("GET", target("link"), worker_token_).status, 404u);
  EXPECT_EQ(ask("DELETE", target("checkpoint-1"), other_token_).status, 403u);
  EXPECT_EQ(ask("DELETE", target("checkpoint-1"), worker_token_).body["removed"], true);
  EXPECT_EQ(ask("DELETE", target("checkpoint-1"), worker_token_).body["removed"], false);
  EXPECT_FALSE(fs::exists(there("checkpoint-1")));
  EXPECT_EQ(ask("POST", target("checkpoint-1"), worker_token_).status, 404u);
}

}  // namespace
}  // namespace fusion
