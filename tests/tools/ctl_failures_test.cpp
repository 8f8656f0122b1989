// What goes wrong, as the real program tells it: 2 for what the person can mend, 1 for what the daemon did.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/files.h"
#include "tests/tools/canned_answers.h"
#include "tests/tools/canned_server.h"
#include "tests/tools/child.h"

namespace fusion::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

ChildResult run_against(const CannedReply& reply, std::vector<std::string> arguments) {
  CannedServer server([&](const CannedRequest&) { return reply; });
  arguments.insert(arguments.end(), {"--url", server.url()});
  return run_fusionctl(arguments);
}

TEST(FailuresTest, EveryProblemOfA422StandsOnALineOfItsOwn) {
  TemporaryFolder folder;
  write_atomically(folder / "study.json", "{}");
  const CannedReply reply{422, R"({"error": {"problems": ["study: /name: is missing", "study: /seed: expected ü",
                                  "study: /x: \u001b[2J is\nnot known"]}})"};
  for (const char* command : {"submit", "validate"}) {
    const ChildResult result = run_against(reply, {command, folder / "study.json", "--json"});
    EXPECT_EQ(result.status, 2);
    EXPECT_EQ(result.out, "");
    EXPECT_EQ(result.err,
              "fusionctl: study: /name: is missing\nfusionctl: study: /seed: expected ü\n"
              "fusionctl: study: /x: \uFFFD[2J is not known\n");
  }
}

TEST(FailuresTest, RefusalsAreBadInput) {
  const ChildResult missing = run_against({404, R"({"error": {"problems": ["there is no study 9"]}})"}, {"status", "9"});
  EXPECT_EQ(missing.status, 2);
  EXPECT_EQ(missing.err, "fusionctl: there is no study 9\n");
  const ChildResult conflict =
      run_against({409, R"({"error": {"problems": ["study 9 is completed and cannot be paused"]}})"}, {"pause", "9"});
  EXPECT_EQ(conflict.status, 2);
  EXPECT_EQ(conflict.err, "fusionctl: study 9 is completed and cannot be paused\n");
  const ChildResult foreign = run_against({404, "<html>no</html>"}, {"status", "9"});
  EXPECT_EQ(foreign.status, 2);
  EXPECT_THAT(foreign.err, HasSubstr("answered GET /api/v1/studies/9 with 404 Canned and no sentence why.\n"));
}

TEST(FailuresTest, TheDaemonsOwnFailuresAreNotTheUsers) {
  const ChildResult internal = run_against({500, R"({"error": {"problems": ["the disk is full"]}})"}, {"list"});
  EXPECT_EQ(internal.status, 1);
  EXPECT_THAT(internal.err, HasSubstr("with 500 Canned:\nfusionctl: the disk is full\n"));
  EXPECT_EQ(run_against({503, ""}, {"list"}).status, 1);
  EXPECT_EQ(run_against({301, ""}, {"list"}).status, 1);
}

TEST(FailuresTest, UnreachableNamesTheUrlAndHowToStartADaemon) {
  const std::string url = "http://127.0.0.1:" + std::to_string(unused_port());
  for (const std::vector<std::string>& command :
       {std::vector<std::string>{"health"}, {"list", "--json"}, {"watch", "1"}, {"query", "select 1"}, {"shutdown"}}) {
    std::vector<std::string> arguments = command;
    arguments.insert(arguments.end(), {"--url", url});
    const ChildResult result = run_fusionctl(arguments);
    EXPECT_EQ(result.status, 1);
    EXPECT_EQ(result.out, "");
    EXPECT_EQ(result.err, "fusionctl: " + url +
                              " cannot be reached: Connection refused.\n"
                              "fusionctl: If no daemon runs there, start one with: fusiond --db fusion.db --loopback same_user --local-workers 2\n");
  }
}

TEST(FailuresTest, AnswersThatAreNotJsonObjects) {
  const ChildResult broken = run_against({200, "{\"studies\": [\n  1,,\n]}"}, {"list"});
  EXPECT_EQ(broken.status, 1);
  EXPECT_EQ(broken.out, "");
  EXPECT_THAT(broken.err, HasSubstr("the answer: line 2, column "));
  const ChildResult list = run_against({200, "[]"}, {"list", "--json"});
  EXPECT_EQ(list.status, 1);
  EXPECT_EQ(list.out, "");
  EXPECT_THAT(list.err, HasSubstr("the answer is not a JSON object"));
  const ChildResult other = run_against({200, R"({"hello": 1})"}, {"list"});
  EXPECT_EQ(other.status, 1);
  EXPECT_THAT(other.err, HasSubstr("has no list \"studies\": is it fusiond that listens there?"));
  EXPECT_EQ(run_against({200, "{\"studies\": [1, null, \"x\", {}]}"}, {"list"}).status, 0);  // strange, but readable
}

TEST(FailuresTest, AnswersCutShort) {
  const ChildResult truncated = run_against({200, R"({"studies": []})", Delivery::truncated}, {"list"});
  EXPECT_EQ(truncated.status, 1);
  EXPECT_THAT(truncated.err, HasSubstr("closed the connection amid the answer to GET /api/v1/studies.\n"));
  const ChildResult head = run_against({200, "{}", Delivery::closed_in_head}, {"list"});
  EXPECT_EQ(head.status, 1);
  EXPECT_THAT(head.err, HasSubstr("closed the connection amid the answer"));
  const ChildResult closed = run_against({200, "{}", Delivery::closed}, {"list"});
  EXPECT_EQ(closed.status, 1);
  EXPECT_THAT(closed.err, HasSubstr("closed the connection without an answer to GET /api/v1/studies.\n"));
  EXPECT_THAT(closed.err, Not(HasSubstr("took effect")));
  const ChildResult garbage = run_against({200, "{}", Delivery::garbage}, {"list"});
  EXPECT_EQ(garbage.status, 1);
  EXPECT_THAT(garbage.err, HasSubstr("something that is not HTTP"));
}

TEST(FailuresTest, AfterALostAnswerToAChangeThePersonIsToldToLook) {
  const ChildResult result = run_against({200, "{}", Delivery::closed}, {"pause", "3"});
  EXPECT_EQ(result.status, 1);
  EXPECT_THAT(result.err, HasSubstr("fusionctl: It is not known whether the request took effect: look (fusionctl list)"));
}

TEST(FailuresTest, NoAnswerInTime) {
  const ChildResult result = run_against({200, "{}", Delivery::never}, {"list", "--timeout", "0.2"});
  EXPECT_EQ(result.status, 1);
  EXPECT_THAT(result.err, HasSubstr("gave no whole answer to GET /api/v1/studies within 0.20 s.\n"));
}

TEST(FailuresTest, FilesAreCheckedBeforeAnythingIsSent) {
  TemporaryFolder folder;
  CannedServer server([](const CannedRequest&) { return CannedReply{}; });
  write_atomically(folder / "bad.json", "{\n  \"name\": toy\n}");
  write_atomically(folder / "twice.json", R"({"seed": 1, "seed": 2})");
  write_atomically(folder / "list.json", "[]");
  const auto said = [&](const std::string& file) {
    const ChildResult result = run_fusionctl({"submit", folder / file, "--url", server.url()});
    EXPECT_EQ(result.status, 2);
    EXPECT_THAT(result.err, StartsWith("fusionctl: " + (folder / file).string() + ": "));
    return result.err;
  };
  EXPECT_THAT(said("absent.json"), HasSubstr("No such file"));
  EXPECT_THAT(said("bad.json"), HasSubstr("line 2, column "));
  EXPECT_THAT(said("twice.json"), HasSubstr("\"seed\" stands twice"));
  EXPECT_THAT(said("list.json"), HasSubstr("expected a study, a JSON object, got a JSON array"));
  EXPECT_TRUE(server.requests().empty());
}

TEST(FailuresTest, WrongCommandLines) {
  const auto said = [](const std::vector<std::string>& arguments) {
    const ChildResult result = run_fusionctl(arguments);
    EXPECT_EQ(result.status, 2);
    EXPECT_EQ(result.out, "");
    return result.err;
  };
  EXPECT_EQ(said({"healht"}), "fusionctl: \"healht\" is not a command; did you mean health?\nfusionctl: --help lists what is known.\n");
  EXPECT_THAT(said({}), StartsWith("fusionctl: "));
  EXPECT_THAT(said({"status", "0"}), HasSubstr("ID: expected a number of at least 1, got \"0\""));
  EXPECT_THAT(said({"status", "-1"}), HasSubstr("got \"-1\""));
  EXPECT_THAT(said({"show", "99999999999999999999"}), HasSubstr("TRIAL: expected a number"));
  EXPECT_THAT(said({"trials", "1", "--order", "worst"}), HasSubstr("--order"));
  EXPECT_THAT(said({"best", "1", "--top", "0"}), HasSubstr("--top"));
  EXPECT_THAT(said({"watch"}), HasSubstr("ID is required"));
  EXPECT_THAT(said({"list", "--frob"}), HasSubstr("--frob"));
  EXPECT_THAT(said({"list", "--url", "ftp://x"}), HasSubstr("--url: expected http://HOST[:PORT][/PREFIX] or https://HOST[:PORT][/PREFIX], got \"ftp://x\""));
}

TEST(FailuresTest, AFullDiskIsNoticed) {
  if (!std::filesystem::exists("/dev/full")) GTEST_SKIP() << "There is no /dev/full on this system.";
  CannedServer server([](const CannedRequest&) { return CannedReply{200, R"({"status": "ok"})"}; });
  const char* folder = std::getenv("FUSION_BIN_DIR");
  const std::string program = std::string(folder != nullptr ? folder : "build/release/bin") + "/fusionctl";
  const int raw = std::system((program + " health --url " + server.url() + " >/dev/full 2>/dev/null").c_str());
  EXPECT_EQ(WEXITSTATUS(raw), 1);
}

}  // namespace
}  // namespace fusion::testing
