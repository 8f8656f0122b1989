// `watch` of the real program against servers whose study advances with every look.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>

#include "tests/tools/canned_answers.h"
#include "tests/tools/canned_server.h"
#include "tests/tools/child.h"

namespace fusion::testing {
namespace {

using nlohmann::json;
using ::testing::Contains;
using ::testing::ContainsRegex;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using ::testing::Not;

CannedReply study_reply(const std::string& state, int completed) {
  return {200, json{{"study", canned_study(state, completed)}}.dump()};
}

/// Two more trials with every look; over when 194 are there.
CannedServer::Answer advancing(int from, const std::string& end = "completed") {
  auto completed = std::make_shared<int>(from);
  return [completed, end](const CannedRequest& request) {
    if (request.target.find("/trials?") != std::string::npos) {
      json later = canned_trial();
      later["id"] = 18;
      later["told_index"] = 16;
      return CannedReply{200, json{{"trials", {canned_trial(), later}}}.dump()};  // in the order of their ends
    }
    *completed = std::min(194, *completed + 2);
    return study_reply(*completed == 194 ? end : "running", *completed);
  };
}

TEST(WatchTest, PlainLinesFollowTheStudyToItsEnd) {
  CannedServer server(advancing(184));
  const ChildResult result = run_fusionctl({"watch", "7", "--interval", "0.05", "--url", server.url()});
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_EQ(result.err, "");
  EXPECT_EQ(result.out.find('\033'), std::string::npos);
  EXPECT_THAT(result.out,
              HasSubstr("study 7 \"toy-mfas\": running, 187 of 195 trials, 12.34 trials/min, ETA 13 min 10 s, queued 5, leased 2, "
                        "failed 1, best 0.9100 by trial 17 [[3,2,0],[0,1,1,\"glu\"]] a3+i2 relu > a0+i1 sigmoid glu\n"));
  EXPECT_THAT(result.out, HasSubstr("running, 189 of 195"));
  EXPECT_THAT(result.out, EndsWith("study 7 \"toy-mfas\": completed, 195 of 195 trials, 1 failed, best 0.9100 by trial 17 "
                                   "[[3,2,0],[0,1,1,\"glu\"]] a3+i2 relu > a0+i1 sigmoid glu\n"));
}

TEST(WatchTest, AStudyThatDidNotCompleteIsAFailure) {
  for (const char* end : {"failed", "cancelled"}) {
    CannedServer server(advancing(192, end));
    const ChildResult result = run_fusionctl({"watch", "7", "--interval", "0.05", "--url", server.url()});
    EXPECT_EQ(result.status, 1);
    EXPECT_THAT(result.out, HasSubstr(std::string("\": ") + end + ", 195 of 195 trials"));
  }
}

TEST(WatchTest, JsonIsTheLastAnswerAlone) {
  CannedServer server(advancing(188));
  const ChildResult result = run_fusionctl({"watch", "7", "--json", "--interval", "0.05", "--url", server.url()});
  EXPECT_EQ(result.status, 0);
  EXPECT_EQ(result.err, "");
  EXPECT_EQ(json::parse(result.out)["study"]["state"], "completed");
}

TEST(WatchTest, SubmitCanWatch) {
  TemporaryFolder folder;
  const auto follow = advancing(192);
  CannedServer server([follow](const CannedRequest& request) {
    if (request.method == "POST") return CannedReply{201, json{{"study", canned_study()}}.dump()};
    return follow(request);
  });
  ChildSetting setting;
  setting.input = "{}";
  const ChildResult result = run_fusionctl({"submit", "-", "--watch", "--url", server.url()}, setting);
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_THAT(result.out, MatchesRegex("7\nstudy 7(.|\n)*completed, 195 of 195 trials(.|\n)*"));
}

TEST(WatchTest, OutlivesARestartOfTheDaemon) {
  auto server = std::make_unique<CannedServer>([](const CannedRequest&) { return study_reply("running", 40); });
  const std::uint16_t port = server->port();
  const std::string url = server->url();
  Child child({"watch", "7", "--interval", "0.05", "--url", url});
  ASSERT_TRUE(child.wait_for_out("running, 41 of 195")) << child.err();
  server.reset();
  ASSERT_TRUE(child.wait_for_err("Trying again for 10 min 00 s.\n")) << child.err();
  EXPECT_THAT(child.err(), HasSubstr("fusionctl: No answer (" + url));
  server = std::make_unique<CannedServer>(advancing(180), port);
  const ChildResult result = child.wait();
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_THAT(result.err, HasSubstr("fusionctl: " + url + " answers again after "));
  EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 2) << result.err;  // one sentence each, not one a try
  EXPECT_THAT(result.out, HasSubstr("completed, 195 of 195"));
}

TEST(WatchTest, PatienceEnds) {
  auto server = std::make_unique<CannedServer>([](const CannedRequest&) { return study_reply("running", 40); });
  Child child({"watch", "7", "--interval", "0.05", "--patience", "0.3", "--url", server->url()});
  ASSERT_TRUE(child.wait_for_out("running, 41 of 195")) << child.err();
  server.reset();
  const ChildResult result = child.wait();
  EXPECT_EQ(result.status, 1);
  EXPECT_THAT(result.err, HasSubstr("cannot be reached"));
}

TEST(WatchTest, AStudyThatIsGoneAfterTheRestartIsBadInput) {
  auto looks = std::make_shared<int>(0);
  CannedServer server([looks](const CannedRequest&) {
    if (++*looks < 3) return study_reply("running", 40);
    return CannedReply{404, R"({"error": {"problems": ["there is no study 7"]}})"};
  });
  const ChildResult result = run_fusionctl({"watch", "7", "--interval", "0.05", "--url", server.url()});
  EXPECT_EQ(result.status, 2);
  EXPECT_EQ(result.err, "fusionctl: there is no study 7\n");
}

TEST(WatchTest, OnATerminalOneBlockIsRedrawn) {
  CannedServer server(advancing(186));
  ChildSetting setting;
  setting.environment = {{"FUSION_URL", server.url()}};
  const ChildResult result = run_on_terminal({"watch", "7", "--interval", "0.05"}, 100, 30, setting);
  EXPECT_EQ(result.status, 0);
  EXPECT_THAT(result.out, HasSubstr("running, 189 of 195 trials"));
  EXPECT_THAT(result.out, HasSubstr("% "));
  EXPECT_THAT(result.out, HasSubstr("[==============================="));
  EXPECT_THAT(result.out, HasSubstr("12.34 trials/min, ETA 13 min 10 s\r\n"));
  EXPECT_THAT(result.out, HasSubstr("queued 5, leased 2, failed 1\r\n"));
  EXPECT_THAT(result.out, HasSubstr("\033[7A\r\033[J"));  // heading, bar, counts, best, three lines of trials
  EXPECT_THAT(result.out, ContainsRegex("   18  .{5}completed.{4}     0.9100[^\n]*\n   17  "));  // the newest first
  EXPECT_THAT(result.out, HasSubstr("100 %  completed\r\n"));
  std::vector<std::string> targets;
  for (const CannedRequest& request : server.requests()) targets.push_back(request.target);
  EXPECT_THAT(targets, Contains("/api/v1/studies/7/trials?order=ended&limit=100&offset=181"));  // 189 have ended
}

TEST(WatchTest, ANarrowTerminalGetsLinesThatFit) {
  CannedServer server(advancing(190));
  ChildSetting setting;
  setting.environment = {{"FUSION_URL", server.url()}};
  const ChildResult result = run_on_terminal({"watch", "7", "--interval", "0.05", "--no-color"}, 40, 5, setting);
  EXPECT_EQ(result.status, 0);
  EXPECT_THAT(result.out, HasSubstr("…\r\n"));
  EXPECT_THAT(result.out, Not(HasSubstr("dev score")));  // no room for trials
  EXPECT_THAT(result.out, HasSubstr("\033[4A"));
}

}  // namespace
}  // namespace fusion::testing
