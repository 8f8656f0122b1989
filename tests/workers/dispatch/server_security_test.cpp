// The server behind TLS, tokens and limits; security/ has the tests of the parts.
#include <gmock/gmock.h>

#include <sys/wait.h>
#include <unistd.h>

#include "security/certificates.h"
#include "security/tls.h"
#include "tests/workers/dispatch/harness.h"

namespace fusion {
namespace {

using ::testing::HasSubstr;
using testing::Harness;
using testing::ScriptedWorker;
using std::chrono::milliseconds;

using Response = http::response<http::string_body>;

/// A client that blocks, plain or over TLS.
class Client {
 public:
  explicit Client(std::uint16_t port, const std::string& ca = "") {
    if (!ca.empty()) context_ = client_tls(ca);
    socket_.connect(tcp::endpoint(asio::ip::make_address("127.0.0.1"), port));
    if (!context_) return;
    tls_.emplace(socket_, *context_);
    tls_->handshake(ssl::stream_base::client);
  }
  void send(const std::string& bytes) {
    if (tls_) asio::write(*tls_, asio::buffer(bytes));
    else asio::write(socket_, asio::buffer(bytes));
  }
  Response response() {
    http::response_parser<http::string_body> parser;
    if (tls_) http::read(*tls_, buffer_, parser);
    else http::read(socket_, buffer_, parser);
    return parser.release();
  }
  Response ask(const std::string& method, const std::string& target, const std::string& token = "", const std::string& more = "") {
    send(method + " " + target + " HTTP/1.1\r\nHost: 127.0.0.1\r\n" + (token.empty() ? "" : "Authorization: Bearer " + token + "\r\n") + more + "\r\n");
    return response();
  }
  bool ended() {
    boost::system::error_code error;
    std::array<char, 1024> bytes;
    while (!error) socket_.read_some(asio::buffer(bytes), error);
    return true;
  }

 private:
  asio::io_context io_;
  std::shared_ptr<ssl::context> context_;
  tcp::socket socket_{io_};
  std::optional<ssl::stream<tcp::socket&>> tls_;
  beast::flat_buffer buffer_;
};

struct Tokens {
  testing::TemporaryFolder folder;
  TokenTable table;
  std::string make(Role role) {
    const IssuedToken token = issue_token(role, std::string(name_of(role)), 1);
    table.add(token.record);
    table.save(folder / "tokens.json");
    return token.text;
  }
};

constexpr const char* kUpgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

TEST(ServerSecurityTest, TokensAndRolesHoldForHttpAndForWorkers) {
  Tokens tokens;
  const std::string read = tokens.make(Role::read), submit = tokens.make(Role::submit), worker = tokens.make(Role::worker);
  const Access access(tokens.folder / "tokens.json", LoopbackRule::token);
  Harness h([&](DispatchOptions&, ServerOptions& options) { options.access = &access; });
  const auto status = [&](const std::string& method, const std::string& target, const std::string& token, const std::string& more = "") {
    Client client(h.port());
    return client.ask(method, target, token, more).result_int();
  };
  EXPECT_EQ(status("GET", "/api/v1/studies", ""), 401u);
  EXPECT_EQ(status("GET", "/api/v1/studies", "wrong"), 401u);
  EXPECT_EQ(status("GET", "/api/v1/studies", read), 200u);
  EXPECT_EQ(status("POST", "/api/v1/studies", read), 403u);
  EXPECT_EQ(status("POST", "/api/v1/studies", submit), 200u);
  EXPECT_EQ(status("GET", "/api/v1/studies", worker), 403u);
  EXPECT_EQ(status("GET", "/api/v1/health", ""), 200u);
  EXPECT_EQ(status("GET", "/api/v1/worker", submit, kUpgrade), 403u);
  EXPECT_EQ(status("GET", "/api/v1/worker", "", kUpgrade), 401u);
  EXPECT_EQ(status("GET", "/api/v1/work%65r", read, kUpgrade), 403u) << "the path counts as it is decoded";
  EXPECT_EQ(status("GET", "/api/v1/worker", worker, kUpgrade), 101u);
  Client client(h.port());
  EXPECT_EQ(client.ask("GET", "/", "wrong")[http::field::www_authenticate], "Bearer realm=\"fusiond\"");
  EXPECT_TRUE(client.ended());
  const ServerCounts counts = h.on_io([&] { return h.listener->counts(); });
  EXPECT_EQ(counts.unauthorized, 4u);
  EXPECT_EQ(counts.forbidden, 4u);
}

TEST(ServerSecurityTest, ABodyOfAStrangerIsNotRead) {
  Tokens tokens;
  tokens.make(Role::read);
  const Access access(tokens.folder / "tokens.json", LoopbackRule::token);
  Harness h([&](DispatchOptions&, ServerOptions& options) { options.access = &access; });
  Client client(h.port());
  EXPECT_EQ(client.ask("POST", "/api/v1/studies", "", "Content-Length: 8000000\r\n").result_int(), 401u) << "answered before there is a body";
}

TEST(ServerSecurityTest, SessionsOfRevokedTokensAreClosed) {
  Tokens tokens;
  const std::string first = tokens.make(Role::worker), second = tokens.make(Role::worker);
  Access access(tokens.folder / "tokens.json", LoopbackRule::token);
  Harness h([&](DispatchOptions&, ServerOptions& options) { options.access = &access; });
  ScriptedWorker a(h.port(), first), b(h.port(), second);
  a.join("a");
  b.join("b");
  const std::string id = h.on_io([&] { return access.admit("Bearer " + first, "GET", "/api/v1/worker", {}).token_id; });
  tokens.table.remove(id);
  tokens.table.save(tokens.folder / "tokens.json");
  const std::size_t closed = h.on_io([&] {
    access.reload();
    return h.listener->close_revoked();
  });
  EXPECT_EQ(closed, 1u);
  EXPECT_THAT(a.expect<protocol::Refused>().error, HasSubstr("revoked"));
  EXPECT_FALSE(a.hear());
  h.wait_until([&] { return h.dispatcher->connected_workers() == 1; });  // its end is known here a little later than there
  b.say(protocol::Heartbeat{});
  EXPECT_EQ(h.on_io([&] { return h.dispatcher->workers_json()[0].at("name"); }), "b");
}

TEST(ServerSecurityTest, TlsServesTheSameAndPlainHttpGetsASentence) {
  testing::TemporaryFolder folder;
  CertificateOrder order;
  order.folder = folder.path();
  order.hosts = {"here"};
  const CertificateFiles files = make_certificates(order);
  Harness h([&](DispatchOptions&, ServerOptions& options) { options.tls = server_tls(files.certificate.string(), files.key.string()); });
  Client secure(h.port(), files.authority.string());
  for (int i = 0; i < 3; ++i) EXPECT_THAT(secure.ask("GET", "/a").body(), HasSubstr("\"path\":\"/a\""));
  EXPECT_EQ(secure.ask("GET", "/", "", "Origin: http://127.0.0.1\r\n").result_int(), 403u) << "another scheme is another origin";
  {
    Client same(h.port(), files.authority.string());
    EXPECT_EQ(same.ask("GET", "/", "", "Origin: https://127.0.0.1\r\n").result_int(), 200u);
    const auto large = same.ask("POST", "/x", "", "Content-Length: 300000\r\nExpect: 100-continue\r\n");
    EXPECT_EQ(large.result_int(), 100u);
    same.send(std::string(300'000, 'x'));
    EXPECT_THAT(same.response().body(), HasSubstr("\"bytes\":300000"));
  }
  Client plain(h.port());
  const Response refused = plain.ask("GET", "/");
  EXPECT_EQ(refused.result_int(), 400u);
  EXPECT_THAT(refused.body(), HasSubstr("https://"));
  EXPECT_TRUE(plain.ended());
  Client garbage(h.port());
  garbage.send("\x16\x03\x01" + std::string(500, 'x'));
  EXPECT_TRUE(garbage.ended());
  Client again(h.port(), files.authority.string());
  EXPECT_EQ(again.ask("GET", "/a").result_int(), 200u);
}

TEST(ServerSecurityTest, AHandshakeHasItsTimeLimit) {
  testing::TemporaryFolder folder;
  CertificateOrder order;
  order.folder = folder.path();
  order.hosts = {"here"};
  const CertificateFiles files = make_certificates(order);
  Harness h([&](DispatchOptions&, ServerOptions& options) {
    options.tls = server_tls(files.certificate.string(), files.key.string());
    options.handshake = milliseconds(100);
  });
  Client silent(h.port()), half(h.port());
  half.send("\x16\x03");
  EXPECT_TRUE(silent.ended());
  EXPECT_TRUE(half.ended());
}

TEST(ServerSecurityTest, SilentConnectionsMakeRoomAndThoseThatSpokeStay) {
  Harness h([&](DispatchOptions&, ServerOptions& options) { options.unproven = 8; });
  Client spoke(h.port());
  EXPECT_EQ(spoke.ask("GET", "/a").result_int(), 200u);
  ScriptedWorker worker(h.port());
  worker.join("w");
  std::vector<std::unique_ptr<Client>> silent;
  for (int i = 0; i < 100; ++i) silent.push_back(std::make_unique<Client>(h.port()));
  Client honest(h.port());
  EXPECT_EQ(honest.ask("GET", "/b").result_int(), 200u);
  EXPECT_TRUE(silent.front()->ended());
  EXPECT_EQ(spoke.ask("GET", "/c").result_int(), 200u);
  EXPECT_EQ(h.on_io([&] { return h.dispatcher->connected_workers(); }), 1u);
  const ServerCounts counts = h.on_io([&] { return h.listener->counts(); });
  EXPECT_LE(counts.unproven, 8u);
  EXPECT_GE(counts.evicted, 90u);
}

TEST(ServerSecurityTest, ATooLargeFrameEndsTheConnectionWith1009) {
  Harness h([&](DispatchOptions&, ServerOptions& options) {
    options.hello_limit = 10'000;
    options.frame_limit = 100'000;
  });
  ScriptedWorker hello(h.port()), later(h.port());
  hello.say_raw(std::string(10'001, ' '));
  EXPECT_FALSE(hello.hear());
  EXPECT_EQ(hello.close_code(), 1009);
  later.join("w");
  later.say_raw(std::string(100'001, ' '));
  EXPECT_FALSE(later.hear());
  EXPECT_EQ(later.close_code(), 1009);
}

TEST(ServerSecurityTest, AFloodIsNotReadFasterThanItIsCommitted) {
  Harness h([&](DispatchOptions&, ServerOptions& options) { options.uncommitted = 8; });
  h.add_study(1);
  ScriptedWorker worker(h.port());
  worker.join("w");
  const auto pack = worker.expect<protocol::Pack>();
  const TrialId trial = pack.trials.at(0).trial;
  std::promise<void> release;
  h.on_io([&] {  // the store stands still
    h.store->async(h.io->get_executor(), [gate = release.get_future().share()](Store&) { return gate.wait(), std::monostate{}; },
                   [](StoreResult<std::monostate>) {});
  });
  constexpr int kFrames = 2'000;  // the sockets hold them all
  for (int epoch = 1; epoch <= kFrames; ++epoch) {
    protocol::Epoch message;
    message.trial = trial;
    message.attempt = 1;
    message.report.epoch = epoch;
    message.report.dev_score = 0.5;
    worker.say(message);
  }
  const auto read = [&] { return h.listener->counts().frames; };
  h.wait_until([&] { return read() >= 8; });
  for (int turn = 0; turn < 200; ++turn) h.on_io(read);  // in which each time a frame could be read
  EXPECT_LE(h.on_io(read), 10u);
  release.set_value();
  for (int i = 0; i < kFrames; ++i) ASSERT_TRUE(worker.hear()) << "the answer to frame " << i;
  EXPECT_EQ(h.on_io(read), kFrames + 1u);
}

}  // namespace
}  // namespace fusion
