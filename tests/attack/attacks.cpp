#include "tests/attack/attacks.h"

#include <openssl/ssl.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/digest.h"
#include "base/error.h"

namespace fusion::attack {

using nlohmann::json;

namespace {

constexpr std::size_t kTenMegabytes = 10'000'000;
constexpr int kStatusTries = 20;

Row row(const std::string& name, const std::string& expected) {
  Row made;
  made.name = name;
  made.expected = expected;
  return made;
}

/// Asks on a new connection each time; the expectation is one status, or two ("400 or 404").
Row asked(const Target& target, const std::string& name, const std::string& expected, const std::string& method, const std::string& path,
          const std::string& token, const std::string& body = "", int tries = kStatusTries) {
  Row made = row(name, expected);
  for (int i = 0; i < tries; ++i) {
    HttpsClient client(target);
    const std::string status = std::to_string(client.ask(method, path, token, body).status);
    made.add(status, expected.find(status) != std::string::npos);
  }
  return made;
}

json study(const std::string& dataset) {
  return {{"name", "attacked"},
          {"dataset", dataset},
          {"strategy", {{"name", "random"}, {"trials", 60}}},
          {"training", {{"epochs", 3}}},
          {"seed", 7}};
}

protocol::Result scored(const protocol::Held& what, double score) {
  TrialOutcome outcome;
  outcome.trial = what.trial;
  outcome.attempt = what.attempt;
  outcome.outcome = Outcome::completed;
  outcome.score.emplace();
  outcome.score->dev_score = score;
  return {outcome};
}

Row raw_request(const Target& target, const std::string& name, const std::string& expected, const std::string& text) {
  Row made = row(name, expected);
  for (int i = 0; i < 5; ++i) {
    HttpsClient client(target);
    client.try_send(text);
    const std::string status = std::to_string(client.answer().status);
    made.add(status, status == expected);
  }
  return made;
}

/// Upgrades with a token and says what came of it.
std::string opened(const Target& target, const std::string& token) {
  HttpsClient client(target);
  const std::string shown = token.empty() ? "" : "Authorization: Bearer " + token + "\r\n";
  client.try_send("GET /api/v1/worker HTTP/1.1\r\nHost: x\r\n" + shown + "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                  "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n");
  return std::to_string(client.answer().status);
}

}  // namespace

void Row::add(const std::string& came, bool as_expected) {
  ++got[came];
  ok = ok && as_expected;
}

int Row::tries() const {
  int sum = 0;
  for (const auto& [came, times] : got) sum += times;
  return sum;
}

void prepare(const Target& target) {
  HttpsClient client(target);
  const Answer submitted = client.ask("POST", "/api/v1/studies", target.submit, study("features/features.json").dump());
  if (submitted.status != 201) throw DataError("the study was not taken: " + submitted.body);
  Worker worker(target, target.worker);
  if (!worker.join("first")) throw DataError("the first worker was refused: " + worker.end());
  const auto pack = worker.await<protocol::Pack>();
  if (!pack) throw DataError("the first worker was given nothing: " + worker.end());
  worker.say(scored({pack->trials.at(0).trial, pack->trials.at(0).attempt}, 0.75));
  const auto ack = worker.await<protocol::Ack>();
  if (!ack || !ack->accepted) throw DataError("the first result was not taken");
  worker.say(protocol::Leaving{"done"});
}

// ---- who is let in

std::vector<Row> attack_tokens(Target& target) {
  const std::string body = study("features/features.json").dump();
  std::vector<Row> rows;
  rows.push_back(asked(target, "no token", "401", "GET", "/api/v1/studies", ""));
  rows.push_back(raw_request(target, "no token, 10 MB of body announced", "413", "POST /api/v1/studies HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\n"));
  std::string wrong = target.submit;
  wrong.back() = wrong.back() == '0' ? '1' : '0';
  rows.push_back(asked(target, "wrong token", "401", "POST", "/api/v1/studies", wrong, body));
  rows.push_back(asked(target, "token of role read submits", "403", "POST", "/api/v1/studies", target.read, body));
  rows.push_back(asked(target, "token of role read stops the daemon", "403", "POST", "/api/v1/shutdown", target.read, "{}"));
  rows.push_back(asked(target, "token of role worker reads", "403", "GET", "/api/v1/studies", target.worker));
  rows.push_back(asked(target, "token of role worker submits", "403", "POST", "/api/v1/studies", target.worker, body));
  Row upgrades = row("/api/v1/worker without the role", "401 or 403");
  const std::string stranger = opened(target, "");
  upgrades.add(stranger, stranger == "401");
  for (const std::string& token : {target.read, target.submit}) {
    const std::string status = opened(target, token);
    upgrades.add(status, status == "403");
  }
  rows.push_back(upgrades);
  Row revoked = row("revoked token: open session", "refused, closed");
  Worker worker(target, target.revoked);
  if (!worker.join("to be revoked")) throw DataError("the worker that is to be revoked was refused before");
  target.revoke(target.revoked);
  const std::string end = worker.end();
  revoked.add(end.find("revoked") != std::string::npos ? "refused, closed" : end, end.find("revoked") != std::string::npos);
  rows.push_back(revoked);
  rows.push_back(asked(target, "revoked token: new request", "401", "GET", "/api/v1/worker", target.revoked));
  return rows;
}

// ---- requests that are not as they should be

namespace {

Row plain_http(const Target& target) {
  Row made = row("plain HTTP on the TLS port", "400");
  for (int i = 0; i < kStatusTries; ++i) {
    const std::string status = std::to_string(ask_plainly(target, "GET /api/v1/studies HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + target.read + "\r\n\r\n").status);
    made.add(status, status == "400");
  }
  return made;
}

Row old_tls(const Target& target) {
  Row made = row("TLS 1.1", "no handshake");
  asio::io_context io;
  ssl::context context(ssl::context::tls_client);
  SSL_CTX_set_max_proto_version(context.native_handle(), TLS1_1_VERSION);
  SSL_CTX_set_cipher_list(context.native_handle(), "ALL:@SECLEVEL=0");
  ssl::stream<tcp::socket> stream(io, context);
  stream.next_layer().connect({asio::ip::make_address(kLoopback), target.port()});
  boost::system::error_code error;
  stream.handshake(ssl::stream_base::client, error);
  made.add(error ? "no handshake" : "a handshake", static_cast<bool>(error));
  return made;
}

}  // namespace

std::vector<Row> attack_requests(const Target& target) {
  const std::string head = "GET /api/v1/studies HTTP/1.1\r\nAuthorization: Bearer " + target.read + "\r\n";
  std::vector<Row> rows;
  rows.push_back(plain_http(target));
  rows.push_back(old_tls(target));
  rows.push_back(asked(target, "10 MB of body", "413", "POST", "/api/v1/studies", target.submit, std::string(kTenMegabytes, 'x'), 3));
  rows.push_back(raw_request(target, "20 kB of header", "431", head + "Host: x\r\nX-Long: " + std::string(20'000, 'x') + "\r\n\r\n"));
  rows.push_back(raw_request(target, "two Host headers", "400", head + "Host: a\r\nHost: b\r\n\r\n"));
  rows.push_back(raw_request(target, "bytes that are no HTTP", "400", std::string("\x01\x02\x03\xff nonsense\r\n\r\n")));
  rows.push_back(asked(target, "JSON nested 100,000 deep", "400 or 422", "POST", "/api/v1/studies", target.submit,
                       std::string(100'000, '[') + std::string(100'000, ']'), 3));
  rows.push_back(asked(target, "SQL that writes", "400 or 422", "POST", "/api/v1/query", target.read, R"({"sql": "delete from trials"})", 3));
  rows.push_back(asked(target, "SQL that opens another file", "400 or 422", "POST", "/api/v1/query", target.read,
                       json{{"sql", "attach '" + (target.outside() / "new.db").string() + "' as x"}}.dump(), 3));
  rows.push_back(asked(target, "SQL that writes a file", "400 or 422", "POST", "/api/v1/query", target.read,
                       json{{"sql", "vacuum into '" + (target.outside() / "copy.db").string() + "'"}}.dump(), 3));
  return rows;
}

// ---- paths

namespace {

std::vector<std::string> ways_out(const Target& target) {
  const std::string outside = target.outside().string();
  return {"../outside/features.json",
          "features/../../outside/features.json",
          "./././../outside/features.json",
          outside + "/features.json",
          target.root().string() + "/../outside/features.json",
          "link/features.json",
          "link",
          "..",
          "/etc/passwd",
          std::string("features/features.json\0/../../../outside/features.json", 55),
          std::string("../outside/features.json\0features.json", 38),
          "features/%2e%2e/%2e%2e/outside/features.json",
          "~/features.json"};
}

/// Posts a document for each way out; each must be refused without telling what is there.
template <typename Document>
Row paths_in(const Target& target, const std::string& name, const std::string& expected, const std::string& path, Document document) {
  Row made = row(name, expected);
  for (const std::string& out : ways_out(target)) {
    HttpsClient client(target);
    const Answer answer = client.ask("POST", path, target.submit, document(out).dump());
    const std::string status = std::to_string(answer.status);
    made.add(status, expected.find(status) != std::string::npos && answer.body.find(Target::kSecret) == std::string::npos);
  }
  return made;
}

json exported(const Target& target) {
  HttpsClient client(target);
  return json::parse(client.ask("GET", "/api/v1/studies/1/export?top=1", target.read).body);
}

json retraining(const Target& target, const std::string& dataset) {
  return {{"export", exported(target)}, {"rank", 1}, {"dataset", dataset}};
}

json with_dataset_file(json document, const std::string& file) {
  document["study"]["dataset_file"] = file;
  return document;
}

Row paths_in_targets(const Target& target) {
  Row made = row("path: target of a request", "400 or 404");
  for (const std::string path :
       {"/../../../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd", "/api/v1/../../outside/secret.txt", "/link/secret.txt",
        "/api/v1/retrainings/1/artifacts/..%2f..%2f..%2foutside%2fsecret.txt", "/api/v1/retrainings/1/artifacts/%2e%2e",
        "/api/v1/blobs/..%2f..%2foutside%2fsecret.txt", "/x%00.html", "/static/../../outside/secret.txt", "/..\\..\\outside\\secret.txt"}) {
    HttpsClient client(target);
    const Answer answer = client.ask("GET", path, target.read);
    const bool refused = (answer.status == 400 || answer.status == 404) && answer.body.find(Target::kSecret) == std::string::npos;
    made.add(std::to_string(answer.status), refused);
  }
  return made;
}

/// A worker that has the retraining says that its model lies elsewhere.
Row paths_in_artifacts(const Target& target) {
  Row made = row("path: artifacts of a worker", "refused");
  const std::vector<std::pair<std::string, std::string>> lies{
      {"model.pt", (target.outside() / "secret.txt").string()}, {"model.pt", "FOLDER/../../../outside/secret.txt"}, {"model.pt", "model.pt"},
      {"../model.pt", "FOLDER/model.pt"},                        {"model.pt", "FOLDERX/model.pt"},                   {"model.pt", "/etc/passwd"}};
  for (const auto& [name, path] : lies) {
    Worker worker(target, target.other_worker);
    if (!worker.join("artist")) throw DataError("the artist was refused: " + worker.end());
    const auto lease = worker.await<protocol::RetrainingLease>();
    if (!lease) throw DataError("the artist was given no retraining: " + worker.end());
    protocol::RetrainingResult result;
    result.outcome.retraining = lease->job.retraining;
    result.outcome.attempt = lease->job.attempt;
    result.outcome.outcome = Outcome::completed;
    result.outcome.score.emplace();
    result.outcome.score->dev_score = 0.5;
    result.outcome.score->batch = 1;
    std::string shown = path;
    if (shown.starts_with("FOLDER")) shown.replace(0, 6, lease->job.folder);
    result.outcome.score->artifacts.push_back({name, shown, 16, std::string(64, '0')});
    worker.say(result);
    const std::string end = worker.end();
    const bool refused = end.find("refused") != std::string::npos && (end.find("/path: ") != std::string::npos || end.find("/name: ") != std::string::npos);
    made.add(refused ? "refused" : end, refused);
  }
  return made;
}

}  // namespace

std::vector<Row> attack_paths(const Target& target) {
  const json document = exported(target);
  std::vector<Row> rows;
  rows.push_back(paths_in(target, "path: dataset of a study", "422", "/api/v1/studies", study));
  rows.push_back(paths_in(target, "path: dataset of a study to check", "422", "/api/v1/studies?validate=1", study));
  rows.push_back(paths_in(target, "path: dataset of a retraining", "400 or 422", "/api/v1/retrainings",
                          [&](const std::string& out) { return json{{"export", document}, {"dataset", out}}; }));
  rows.push_back(paths_in(target, "path: dataset of a trial's retraining", "400 or 422", "/api/v1/retrainings",
                          [](const std::string& out) { return json{{"trial", 1}, {"dataset", out}}; }));
  rows.push_back(paths_in(target, "path: study.dataset_file of an export", "400 or 422", "/api/v1/retrainings",
                          [&](const std::string& out) { return json{{"export", with_dataset_file(document, out)}}; }));
  rows.push_back(paths_in_targets(target));
  HttpsClient client(target);
  const Answer good = client.ask("POST", "/api/v1/retrainings", target.submit, retraining(target, "features/features.json").dump());
  Row control = row("the same with a good path, for comparison", "201");
  control.add(std::to_string(good.status), good.status == 201);
  rows.push_back(control);
  if (good.status == 201) rows.push_back(paths_in_artifacts(target));
  client.ask("POST", "/api/v1/retrainings/1/cancel", target.submit, "{}");
  return rows;
}

// ---- files of a retraining

namespace {

/// A file that a worker sends of the attempt that it was leased.
struct Upload {
  RetrainingId retraining;
  int attempt = 0;
  std::string sha256;
  std::uint64_t bytes = 0;
  std::string path(const std::string& name, int of_attempt, std::uint64_t of_bytes) const {
    return "/api/v1/retrainings/" + to_string(retraining) + "/files/" + name + "?attempt=" + std::to_string(of_attempt) + "&sha256=" + sha256 +
           "&bytes=" + std::to_string(of_bytes);
  }
  std::string path(const std::string& name) const { return path(name, attempt, bytes); }
};

/// Files in a retraining's folder, but for the mark that tells who shares it.
std::string left_in(const std::string& folder) {
  std::string names;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    if (entry.path().filename() != ".mark") names += (names.empty() ? "" : " ") + entry.path().filename().string();
  }
  return names.empty() ? "nothing" : names;
}

Row broken_off(const Target& target, const Upload& upload) {
  Row made = row("upload: body shorter than its head says", "nothing kept");
  {
    HttpsClient client(target);
    client.try_send("PUT " + upload.path("short.bin") + " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + target.other_worker +
                    "\r\nContent-Length: 1000\r\n\r\n" + std::string(500, 'x'));
  }
  HttpsClient client(target);
  const Answer answer = client.ask("PUT", upload.path("short.bin"), target.other_worker, "");
  const json body = json::parse(answer.body, nullptr, false);
  const bool nothing = answer.status == 200 && body.is_object() && body.value("have", 1) == 0;
  made.add(nothing ? "nothing kept" : answer.body, nothing);
  return made;
}

Row names_of_uploads(const Target& target, const Upload& upload, const std::string& body) {
  Row made = row("upload: names that lead out", "400, 404 or 422");
  for (const std::string name : {"..%2fmodel.pt", "..%2f..%2foutside%2fsecret.txt", "%2e%2e", "%2fetc%2fcron.d%2fx", ".hidden", "a%00b", "a%0ab", "..%5cx",
                                 "link%2fx", "%7e"}) {
    HttpsClient client(target);
    const unsigned status = client.ask("PUT", upload.path(name), target.other_worker, body).status;
    made.add(std::to_string(status), status == 404 || status == 422 || status == 400);
  }
  return made;
}

}  // namespace

std::vector<Row> attack_files(const Target& target) {
  HttpsClient submitter(target);
  const Answer submitted = submitter.ask("POST", "/api/v1/retrainings", target.submit, retraining(target, "features/features.json").dump());
  if (submitted.status != 201) throw DataError("the retraining was not taken: " + submitted.body);
  Worker worker(target, target.other_worker);
  if (!worker.join("sender")) throw DataError("the sender was refused: " + worker.end());
  const auto lease = worker.await<protocol::RetrainingLease>();
  if (!lease) throw DataError("the sender was given no retraining: " + worker.end());
  const std::string body(1'000, 'x');
  const Upload upload{lease->job.retraining, lease->job.attempt, sha256_of(body), body.size()};
  Upload lie = upload;
  lie.sha256 = std::string(64, '0');
  const auto put = [&](const std::string& name, const std::string& expected, const std::string& path, const std::string& token, const std::string& sent) {
    return asked(target, "upload: " + name, expected, "PUT", path, token, sent, 3);
  };
  std::vector<Row> rows;
  rows.push_back(put("no token", "401", upload.path("model.pt"), "", body));
  rows.push_back(put("token of role read", "403", upload.path("model.pt"), target.read, body));
  rows.push_back(put("token of role submit", "403", upload.path("model.pt"), target.submit, body));
  rows.push_back(put("another worker's attempt", "403", upload.path("model.pt"), target.worker, body));
  rows.push_back(put("an attempt that never began", "409", upload.path("model.pt", upload.attempt + 1, body.size()), target.other_worker, body));
  rows.push_back(names_of_uploads(target, upload, body));
  rows.push_back(put("10 MB at once", "413", upload.path("model.pt"), target.other_worker, std::string(kTenMegabytes, 'x')));
  rows.push_back(put("a file of a petabyte", "413", upload.path("model.pt", upload.attempt, 1'000'000'000'000'000), target.other_worker, body));
  rows.push_back(put("body longer than was told", "400", upload.path("model.pt", upload.attempt, 999), target.other_worker, body));
  rows.push_back(put("body of another digest", "422", lie.path("model.pt"), target.other_worker, body));
  const std::string files = "/api/v1/retrainings/" + to_string(upload.retraining) + "/files?attempt=" + std::to_string(upload.attempt);
  rows.push_back(asked(target, "upload: list of another worker's files", "403", "GET", files, target.worker, "", 3));
  rows.push_back(broken_off(target, upload));
  rows.push_back(put("as it should be, for comparison", "200", upload.path("model.pt"), target.other_worker, body));
  Row left = row("upload: what all that left there", "model.pt");
  const std::string names = left_in(lease->job.folder);
  left.add(names, names == "model.pt");
  rows.push_back(left);
  submitter.ask("POST", "/api/v1/retrainings/" + to_string(upload.retraining) + "/cancel", target.submit, "{}");
  return rows;
}

// ---- frames

namespace {

Row frame(const Target& target, const std::string& name, const std::string& expected, bool joined, const std::string& bytes, bool text = true) {
  Row made = row(name, expected);
  for (int i = 0; i < 3; ++i) {
    Worker worker(target, target.other_worker);
    if (joined && !worker.join("framer", 1)) throw DataError("the framer was refused: " + worker.end());
    worker.say_raw(bytes, text);
    const std::string end = worker.end();
    // Whoever is cut off while it still sends may lose the last word.
    made.add(end.substr(0, end.find(' ')), end.starts_with(expected) || (bytes.size() >= kTenMegabytes && end == "closed"));
  }
  return made;
}

}  // namespace

std::vector<Row> attack_frames(const Target& target) {
  std::vector<Row> rows;
  rows.push_back(frame(target, "10 MB frame as the first one", "1009", false, std::string(kTenMegabytes, 'x')));
  rows.push_back(frame(target, "10 MB frame of a worker", "1009", true, std::string(kTenMegabytes, 'x')));
  rows.push_back(frame(target, "binary frame", "1008", true, "{}", false));
  rows.push_back(frame(target, "frame that is no JSON", "1008", true, "nonsense"));
  rows.push_back(frame(target, "frame nested 100,000 deep", "1008", true, std::string(100'000, '[')));
  rows.push_back(frame(target, "no hello first", "1008", false, R"({"type": "heartbeat", "held": [], "retrainings": []})"));
  return rows;
}

// ---- leases

namespace {

constexpr const char* kNotAccepted = "not accepted";

/// The answer to a result.
std::string ack_of(Worker& worker, const protocol::Result& result) {
  worker.say(result);
  const auto ack = worker.await<protocol::Ack>();
  if (!ack) return worker.end();
  return ack->accepted ? "accepted" : kNotAccepted;
}

Row lie(const std::string& name, const std::string& came, const std::string& expected = kNotAccepted) {
  Row made = row(name, expected);
  made.add(came, came.find(expected) != std::string::npos);
  return made;
}

std::string epoch_of(Worker& worker, const protocol::Held& what) {
  protocol::Epoch message;
  message.trial = what.trial;
  message.attempt = what.attempt;
  message.report.epoch = 1'000'000;
  message.report.dev_score = 1;
  worker.say(message);
  const auto ack = worker.await<protocol::Ack>();
  if (!ack) return worker.end();
  return ack->accepted ? "accepted" : kNotAccepted;
}

std::string claim(Worker& worker, const protocol::Held& what) {
  protocol::Heartbeat message;
  message.held.push_back(what);
  worker.say(message);
  return worker.await<protocol::Cancel>() ? "cancelled" : worker.end();
}

/// An attempt that was begun by a worker that then went away.
protocol::Held lost_by_another(const Target& target) {
  Worker loser(target, target.worker);
  if (!loser.join("loser")) throw DataError("the worker that is to leave was refused: " + loser.end());
  const auto pack = loser.await<protocol::Pack>();
  if (!pack) throw DataError("the worker that is to leave was given nothing: " + loser.end());
  loser.say(protocol::Leaving{"done"});
  return {pack->trials.at(0).trial, pack->trials.at(0).attempt};
}

}  // namespace

std::vector<Row> attack_leases(const Target& target, const protocol::Held& honest) {
  Worker liar(target, target.other_worker);
  if (!liar.join("liar")) throw DataError("the liar was refused: " + liar.end());
  std::vector<Row> rows;
  rows.push_back(lie("lie: result of another's lease", ack_of(liar, scored(honest, 1))));
  rows.push_back(lie("lie: result of an attempt that never began", ack_of(liar, scored({honest.trial, honest.attempt + 1}, 1))));
  rows.push_back(lie("lie: result of a trial that is none", ack_of(liar, scored({TrialId{999'999}, 1}, 1))));
  rows.push_back(lie("lie: result of a trial that has ended", ack_of(liar, scored({TrialId{1}, 1}, 1))));
  const protocol::Held lost = lost_by_another(target);
  rows.push_back(lie("lie: result of an attempt that another lost", ack_of(liar, scored(lost, 1))));
  rows.push_back(lie("lie: epoch of an attempt that another lost", epoch_of(liar, lost)));
  rows.push_back(lie("lie: epoch of another's lease", epoch_of(liar, honest)));
  rows.push_back(lie("lie: heartbeat that claims another's lease", claim(liar, honest), "cancelled"));
  Worker impostor(target, target.other_worker);
  impostor.join("honest");
  rows.push_back(lie("lie: the name of a worker of another token", impostor.end(), "refused"));
  protocol::Result impossible = scored(honest, 1);
  impossible.outcome.score->dev_score = 7;
  liar.say(impossible);
  rows.push_back(lie("lie: a score of 7", liar.end(), "refused"));
  return rows;
}

}  // namespace fusion::attack
