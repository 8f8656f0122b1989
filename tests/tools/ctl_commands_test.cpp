// Every command of the real program against a real server with canned answers.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "base/files.h"
#include "base/json_reader.h"
#include "tests/tools/canned_answers.h"
#include "tests/tools/canned_server.h"
#include "tests/tools/child.h"
#include "tools/ctl/daemon_views.h"

namespace fusion::testing {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

const std::map<std::string, CannedReply>& table() {
  static const json worker = json::parse(R"({"id": 3, "name": "gpu01-0", "host": "gpu01", "pid": 4242, "device": "cuda:0", "slots": 8,
    "code_version": "0.1.0", "torch_version": "2.4.0", "held": [41, 42], "connected_s": 185, "silent_s": 0.5, "new": 1})");
  static const json event = json::parse(
      R"({"id": 9, "at_ms": 1700000000000, "kind": "lease_expired", "study": 7, "trial": 41, "worker": null, "text": "worker 3 fell silent"})");
  static const json fit = canned_study()["last_fit"];
  static const std::map<std::string, CannedReply> replies{
      {"GET /api/v1/health",
       {200, R"({"status": "ok", "code_version": "0.1.0", "database": "/db/fusion.db", "uptime_s": 185.2, "new": 1})"}},
      {"POST /api/v1/studies", {201, json{{"study", canned_study()}}.dump()}},
      {"POST /api/v1/studies?validate=1", {200, R"({"valid": true, "space": {}, "count": "837930", "trials": 195})"}},
      {"GET /api/v1/studies", {200, json{{"studies", {canned_study()}}}.dump()}},
      {"GET /api/v1/studies/7", {200, json{{"study", canned_study()}}.dump()}},
      {"GET /api/v1/studies/7/best?top=3", {200, json{{"trials", {canned_trial()}}}.dump()}},
      {"GET /api/v1/studies/7/trials?order=ended&limit=1&offset=4&state=completed", {200, json{{"trials", {canned_trial()}}}.dump()}},
      {"GET /api/v1/studies/7/fits", {200, json{{"fits", {fit}}}.dump()}},
      {"GET /api/v1/studies/7/export?top=2", {200, R"({"study": {"z": 1, "a": 0.1}, "architectures": [1, 2]})"}},
      {"POST /api/v1/studies/7/pause", {200, json{{"study", canned_study("paused")}}.dump()}},
      {"POST /api/v1/studies/7/resume", {200, json{{"study", canned_study("running")}}.dump()}},
      {"POST /api/v1/studies/7/cancel", {200, json{{"study", canned_study("cancelled")}}.dump()}},
      {"GET /api/v1/trials/17", {200, json{{"trial", canned_full_trial()}}.dump()}},
      {"GET /api/v1/workers", {200, json{{"workers", {worker}}, {"waiting", {{{"retraining", 5}, {"waits", "waits for a worker with 4 GPUs"}}}}}.dump()}},
      {"GET /api/v1/events?after=0&limit=100", {200, json{{"events", {event}}}.dump()}},
      {"GET /api/v1/events?after=8&limit=1&study=7", {200, json{{"events", {event}}}.dump()}},
      {"GET /api/v1/events?after=0&limit=1000", {200, json{{"events", {event, event}}}.dump()}},
      {"GET /api/v1/events?after=9&limit=1000", {200, R"({"events": []})"}},
      {"POST /api/v1/query",
       {200, R"({"columns": ["id", "name", "dev_score", "x"], "rows": [[1, "a", 0.5, null], [20, null, 0.25, 1.5]], "truncated": true})"}},
      {"POST /api/v1/shutdown", {202, R"({"stopping": true})"}},
  };
  return replies;
}

CannedReply canned(const CannedRequest& request) {
  const auto found = table().find(request.method + " " + request.target);
  if (found != table().end()) return found->second;
  return {404, R"({"error": {"problems": ["nothing is known of )" + request.method + " " + request.target + "\"]}}"};
}

class CommandsTest : public ::testing::Test {
 protected:
  ChildResult run(std::vector<std::string> arguments, ChildSetting setting = {}) {
    setting.environment.emplace("FUSION_URL", server_.url());
    return run_fusionctl(arguments, setting);
  }
  /// Runs it, expects success and nothing on stderr; returns stdout.
  std::string text(const std::vector<std::string>& arguments) {
    const ChildResult result = run(arguments);
    EXPECT_EQ(result.status, 0) << result.err;
    EXPECT_EQ(result.err, "");
    return result.out;
  }
  std::string study_file(const std::string& text = R"({"name": "toy", "dataset": "data/toy.json", "seed": 3})") {
    write_atomically(folder_ / "study.json", text);
    return folder_ / "study.json";
  }

  CannedServer server_{canned};
  TemporaryFolder folder_;
};

TEST_F(CommandsTest, HealthSaysVersionDatabaseAndAge) {
  EXPECT_EQ(text({"health"}), "fusiond at " + server_.url() + ": ok\n  version   0.1.0\n  database  /db/fusion.db\n  up for    3 min 05 s\n");
}

TEST_F(CommandsTest, SubmitPrintsTheIdAlone) {
  const ChildResult result = run({"submit", study_file()});
  EXPECT_EQ(result.status, 0);
  EXPECT_EQ(result.out, "7\n");
  EXPECT_EQ(result.err, "fusionctl: study 7 \"toy-mfas\" was accepted (195 trials); follow it with: fusionctl watch 7\n");
  const auto requests = server_.requests();
  ASSERT_EQ(requests.size(), 1u);
  EXPECT_EQ(json::parse(requests[0].body), json::parse(R"({"name": "toy", "dataset": "data/toy.json", "seed": 3})"));
}

TEST_F(CommandsTest, SubmitPutsTheCommandLineOverTheDocument) {
  ASSERT_EQ(run({"submit", study_file(), "--name", "other", "--seed", "18446744073709551615", "--priority", "-4"}).status, 0);
  const json sent = json::parse(server_.requests().at(0).body);
  EXPECT_EQ(sent["name"], "other");
  EXPECT_EQ(sent["seed"], 18446744073709551615ull);
  EXPECT_EQ(sent["priority"], -4);
}

TEST_F(CommandsTest, SubmitMakesADatasetThatIsHereAbsolute) {
  write_atomically(folder_ / "data/toy.json", "{}");
  ChildSetting setting;
  setting.folder = folder_.path();
  ASSERT_EQ(run({"submit", study_file()}, setting).status, 0);
  EXPECT_EQ(json::parse(server_.requests().at(0).body)["dataset"],
            (std::filesystem::canonical(folder_.path()) / "data/toy.json").string());
}

TEST_F(CommandsTest, SubmitReadsStdin) {
  ChildSetting setting;
  setting.input = R"({"name": "from stdin"})";
  ASSERT_EQ(run({"submit", "-"}, setting).status, 0);
  EXPECT_EQ(json::parse(server_.requests().at(0).body)["name"], "from stdin");
}

TEST_F(CommandsTest, ValidateSaysSizeOfTheSpaceAndNumberOfTrials) {
  const std::string file = study_file();
  EXPECT_EQ(text({"validate", file}), file + " is a valid study\n  space   837,930 architectures\n  trials  195\n");
}

TEST_F(CommandsTest, ListAndStatusWithoutIdShowEveryStudy) {
  const std::string expected =
      "study  name      state    strategy  ended  total  failed    best  trial  priority  created\n"
      "    7  toy-mfas  running  mfas         34    195       1  0.9100     17         2  2023-11-14 22:13:20Z\n";
  EXPECT_EQ(text({"list"}), expected);
  EXPECT_EQ(text({"status"}), expected);
}

TEST_F(CommandsTest, StatusShowsOneStudyInFull) {
  EXPECT_EQ(text({"status", "7"}),
            "study 7 \"toy-mfas\": running\n"
            "  trials    34 of 195 trials ended (17 %): 33 completed, 1 failed, 0 cancelled; 5 queued, 2 leased\n"
            "  rate      12.34 trials/min, 13 min 10 s to go\n"
            "  best      0.9100 by trial 17, [[3,2,0],[0,1,1,\"glu\"]]\n"
            "            audio.a3 + image.i2 -> concat_fc, relu\n"
            "            audio.a0 + image.i1 + step 1 -> glu, sigmoid\n"
            "  last fit  lstm, fit 3 on 33 observations: loss 0.00123, rank correlation 0.81, in 0.40 s\n"
            "  strategy  mfas\n"
            "  dataset   /data/toy/features/features.json (digest 0123456789ab...)\n"
            "  seed      18446744073709551615, priority 2\n"
            "  created   2023-11-14 22:13:20Z\n"
            "  updated   2023-11-14 22:14:20Z\n");
}

TEST_F(CommandsTest, BestRanksTrialsAndNamesTheirTaps) {
  EXPECT_EQ(text({"best", "7", "--top", "3"}),
            "place  trial  dev score  test score  epoch  parameters   took  architecture             network\n"
            "    1     17     0.9100           -      2      12,345  1.2 s  [[3,2,0],[0,1,1,\"glu\"]]  a3+i2 relu > a0+i1 sigmoid glu\n");
}

TEST_F(CommandsTest, TrialsHandsItsOptionsOnAndSaysThatThereIsMore) {
  const ChildResult result = run({"trials", "7", "--state", "completed", "--order", "ended", "--limit", "1", "--offset", "4"});
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_THAT(result.out, StartsWith("trial  ask  state      dev score"));
  EXPECT_THAT(result.out, HasSubstr("   17   16  completed     0.9100           -      0.2346  1.2 s         2"));
  EXPECT_THAT(result.out, Not(HasSubstr("error")));
  EXPECT_EQ(result.err, "fusionctl: there may be more: --offset 5\n");
}

TEST_F(CommandsTest, ShowTellsAttemptsAndEpochs) {
  const std::string shown = text({"show", "17"});
  EXPECT_THAT(shown, StartsWith("trial 17 of study 7: completed\n"));
  EXPECT_THAT(shown, HasSubstr("  step 1        audio.a3 + image.i2 -> concat_fc, relu\n"));
  EXPECT_THAT(shown, HasSubstr("  step 2        audio.a0 + image.i1 + step 1 -> glu, sigmoid\n"));
  EXPECT_THAT(shown, HasSubstr("  dev score     0.9100 in epoch 2 (accuracy 0.9100, weighted F1 0.9000, macro F1 0.8900)\n"));
  EXPECT_THAT(shown, HasSubstr("  facts         {\"level\":1}\n"));
  EXPECT_THAT(shown, HasSubstr("      1  gpu01-0 (3)  oom        0.50 s  cuda:0"));
  EXPECT_THAT(shown, HasSubstr("CUDA out of memory. Tried 2 GiB.\n"));
  EXPECT_THAT(shown, HasSubstr("epochs of attempt 2\n  dev score   ▁█▅  0.5000 to 0.7500\n  train loss  █▄▁  1.5 to 0.2346\n"));
  EXPECT_THAT(shown, HasSubstr("    3     0.7500      0.2346          1e-06  0.40 s\n"));
}

TEST_F(CommandsTest, FitsShowsHowWellTheSurrogatePredicted) {
  EXPECT_EQ(text({"fits", "7"}),
            "fit  surrogate  observations     loss  rank correlation  mean error    took  at\n"
            "  3  lstm                 33  0.00123              0.81        0.02  0.40 s  2023-11-14 22:14:10Z\n");
}

TEST_F(CommandsTest, QueryShowsRowsAndSaysThatTheyWereCut) {
  const ChildResult result = run({"query", "select 1", "--limit", "2", "--deadline", "1.5"});
  EXPECT_EQ(result.status, 0);
  EXPECT_EQ(result.out, "id  name  dev_score     x\n 1  a        0.5000  NULL\n20  NULL     0.2500   1.5\n");
  EXPECT_EQ(result.err, "fusionctl: there are more than 2 rows; --limit raises the number\n");
  EXPECT_EQ(json::parse(server_.requests().at(0).body), json::parse(R"({"sql": "select 1", "limit": 2, "deadline_s": 1.5})"));
}

TEST_F(CommandsTest, ExportWritesTheDocumentInItsOwnOrder) {
  const std::string expected = "{\n  \"study\": {\n    \"z\": 1,\n    \"a\": 0.1\n  },\n  \"architectures\": [\n    1,\n    2\n  ]\n}\n";
  EXPECT_EQ(text({"export", "7", "--top", "2"}), expected);
  EXPECT_EQ(text({"export", "7", "--top", "2", "-o", "-"}), expected);
  const std::string file = folder_ / "deep/best.json";
  EXPECT_EQ(text({"export", "7", "--top", "2", "-o", file}),
            file + " was written: 2 architectures of study 7\n");
  EXPECT_EQ(read_text(file), expected);
  write_atomically(file, "old");
  text({"export", "7", "--top", "2", "-o", file});
  EXPECT_EQ(read_text(file), expected);
}

TEST_F(CommandsTest, ExportFollowsALinkAndReplacesNothingButFiles) {
  write_atomically(folder_ / "target.json", "old");
  std::filesystem::create_symlink("target.json", folder_ / "link.json");
  text({"export", "7", "--top", "2", "-o", folder_ / "link.json"});
  EXPECT_TRUE(std::filesystem::is_symlink(folder_ / "link.json"));
  EXPECT_THAT(read_text(folder_ / "target.json"), StartsWith("{\n"));
  const ChildResult result = run({"export", "7", "--top", "2", "-o", folder_.path()});
  EXPECT_EQ(result.status, 2);
  EXPECT_EQ(result.err, "fusionctl: --output: " + folder_.path().string() + " is not a regular file; use - for stdout\n");
}

TEST_F(CommandsTest, AFailedExportLeavesTheOldFile) {
  write_atomically(folder_ / "best.json", "old");
  EXPECT_EQ(run({"export", "8", "-o", folder_ / "best.json"}).status, 2);
  EXPECT_EQ(read_text(folder_ / "best.json"), "old");
}

TEST_F(CommandsTest, PauseResumeCancelSayTheNewState) {
  EXPECT_EQ(text({"pause", "7"}), "study 7 is paused\n");
  EXPECT_EQ(text({"resume", "7"}), "study 7 is running\n");
  EXPECT_EQ(text({"cancel", "7"}), "study 7 is cancelled\n");
}

TEST_F(CommandsTest, PoolsShowWhyNothingRuns) {
  const json waiting{{"name", "4711_0"}, {"state", "waiting"}, {"detail", "PENDING (Resources)"}, {"node", ""}, {"since_s", 65.0}, {"worker", nullptr}};
  json come = waiting;
  come["worker"] = "gpu01-1";
  const json slurm{{"name", "a100"}, {"launcher", "slurm"}, {"min", 0}, {"max", 16}, {"wanted", 2}, {"waiting", 1}, {"running", 1}, {"leaving", 0},
                   {"problem", "sbatch: Invalid partition name specified"}, {"launched", {waiting, come}}};
  json local = slurm;
  local.update({{"name", "local"}, {"launcher", "local"}, {"min", 2}, {"max", 2}, {"problem", ""}});
  ctl::Terminal wide;
  EXPECT_EQ(ctl::pools_view(json::array({slurm, local}), wide),
            "pool  launcher  wanted  of       waiting  running  leaving  why there are not more\n"
            "a100  slurm          2  0 to 16        1        1        0  sbatch: Invalid partition name specified\n"
            "\n"
            "job     pool  state    says                        for\n"
            "4711_0  a100  waiting  PENDING (Resources)  1 min 05 s\n");
  EXPECT_EQ(ctl::pools_view(json::array({local}), wide), "");
}

TEST_F(CommandsTest, CancelOnATerminalAsksForYes) {
  ChildSetting setting;
  setting.environment = {{"FUSION_URL", server_.url()}};
  const ChildResult refused = run_on_terminal({"cancel", "7"}, 100, 24, setting);
  EXPECT_EQ(refused.status, 2);
  EXPECT_THAT(refused.out, HasSubstr("cannot be undone; if you mean it: fusionctl cancel 7 --yes"));
  EXPECT_TRUE(server_.requests().empty());
  const ChildResult done = run_on_terminal({"cancel", "7", "--yes"}, 100, 24, setting);
  EXPECT_EQ(done.status, 0);
  EXPECT_EQ(done.out, "study 7 is cancelled\r\n");
}

TEST_F(CommandsTest, WorkersAndEvents) {
  EXPECT_EQ(text({"workers"}),
            "worker  name     host    pid  device  slots  code   LibTorch   connected  silent  trials\n"
            "     3  gpu01-0  gpu01  4242  cuda:0      8  0.1.0  2.4.0     3 min 05 s  0.50 s  41 42\n"
            "retraining 5 waits for a worker with 4 GPUs\n");
  EXPECT_EQ(text({"events"}),
            "event  at                    kind           study  trial  worker  text\n"
            "    9  2023-11-14 22:13:20Z  lease_expired      7     41       -  worker 3 fell silent\n");
  const ChildResult page = run({"events", "7", "--after", "8", "--limit", "1"});
  EXPECT_EQ(page.err, "fusionctl: there may be more: --after 9, or the newest: --last 1\n");
}

TEST_F(CommandsTest, WorkersShowJobTimeLeftAndDevicesWhereThereAreAny) {
  json worker{{"id", 3}, {"name", "a"}, {"host", "h"}, {"pid", 1}, {"device", "cuda:0"}, {"slots", 8}, {"code_version", "1"},
              {"torch_version", "2"}, {"held", json::array()}, {"retraining", nullptr}, {"connected_s", 1.0}, {"silent_s", 0.5},
              {"job", "4711_3"}, {"node", "h"}};
  worker["condition"] = {{"time_left_s", 600.0}, {"trial_s", nullptr}, {"fits", 0}, {"problem", "cuda:0 is full"}, {"unreadable", json::array()},
                         {"devices", {{{"name", "cuda:0"}, {"model", "NVIDIA H200"}, {"memory_mb", 143771}, {"free_mb", 80},
                                       {"utilisation_percent", 97}, {"temperature_c", 61}, {"others", 2}}}}};
  ctl::Terminal wide;
  const std::string table = ctl::workers_view(json::array({worker}), wide);
  EXPECT_THAT(table, HasSubstr("4711_3"));
  EXPECT_THAT(table, HasSubstr("10 min 00 s"));
  EXPECT_THAT(table, HasSubstr("NVIDIA H200 97 %, 80 of 143771 MB free, 61 C, 2 others; cuda:0 is full"));
}

TEST_F(CommandsTest, EventsCanShowTheNewestOnly) {
  EXPECT_EQ(text({"events", "--last", "1"}),
            "event  at                    kind           study  trial  worker  text\n"
            "    9  2023-11-14 22:13:20Z  lease_expired      7     41       -  worker 3 fell silent\n");
  EXPECT_EQ(json::parse(text({"events", "--last", "1", "--json"}))["events"].size(), 1u);
}

TEST_F(CommandsTest, ShutdownSaysWhatBecomesOfTheWorkers) {
  EXPECT_EQ(text({"shutdown"}), "fusiond at " + server_.url() + " stops\n");
  EXPECT_EQ(text({"shutdown", "--workers"}), "fusiond at " + server_.url() + " stops; its workers end what they can in time, give back the rest, and leave\n");
  EXPECT_EQ(json::parse(server_.requests().at(0).body)["workers"], false);
  EXPECT_EQ(json::parse(server_.requests().at(1).body)["workers"], true);
}

TEST_F(CommandsTest, JsonIsTheAnswerAndNothingElse) {
  const std::string file = study_file();
  const std::vector<std::pair<std::vector<std::string>, std::string>> commands{
      {{"health"}, "GET /api/v1/health"},
      {{"submit", file}, "POST /api/v1/studies"},
      {{"validate", file}, "POST /api/v1/studies?validate=1"},
      {{"list"}, "GET /api/v1/studies"},
      {{"status"}, "GET /api/v1/studies"},
      {{"status", "7"}, "GET /api/v1/studies/7"},
      {{"best", "7", "--top", "3"}, "GET /api/v1/studies/7/best?top=3"},
      {{"show", "17"}, "GET /api/v1/trials/17"},
      {{"fits", "7"}, "GET /api/v1/studies/7/fits"},
      {{"export", "7", "--top", "2"}, "GET /api/v1/studies/7/export?top=2"},
      {{"pause", "7"}, "POST /api/v1/studies/7/pause"},
      {{"resume", "7"}, "POST /api/v1/studies/7/resume"},
      {{"cancel", "7"}, "POST /api/v1/studies/7/cancel"},
      {{"workers"}, "GET /api/v1/workers"},
      {{"events"}, "GET /api/v1/events?after=0&limit=100"},
      {{"shutdown"}, "POST /api/v1/shutdown"},
  };
  for (const auto& [arguments, key] : commands) {
    std::vector<std::string> behind = arguments, before = arguments;
    behind.push_back("--json");
    before.insert(before.begin(), "--json");
    EXPECT_EQ(text(behind), table().at(key).body + "\n") << key;
    EXPECT_EQ(text(before), table().at(key).body + "\n") << key;
  }
}

TEST_F(CommandsTest, UrlComesFromTheCommandLineBeforeTheEnvironment) {
  ChildSetting setting;
  setting.environment = {{"FUSION_URL", "http://127.0.0.1:1"}};
  EXPECT_EQ(run_fusionctl({"health", "--url", server_.url()}, setting).status, 0);
  EXPECT_EQ(run_fusionctl({"health"}, setting).status, 1);
}

TEST_F(CommandsTest, BoldOnTerminalsUnlessToldOtherwise) {
  ChildSetting setting;
  setting.environment = {{"FUSION_URL", server_.url()}};
  EXPECT_THAT(run_on_terminal({"list"}, 120, 24, setting).out, HasSubstr("\033[1m"));
  EXPECT_THAT(run_on_terminal({"list", "--no-color"}, 120, 24, setting).out, Not(HasSubstr("\033")));
  setting.environment["NO_COLOR"] = "1";
  EXPECT_THAT(run_on_terminal({"list"}, 120, 24, setting).out, Not(HasSubstr("\033")));
  EXPECT_THAT(text({"list"}), Not(HasSubstr("\033")));
}

TEST_F(CommandsTest, TablesFitTheTerminal) {
  ChildSetting setting;
  setting.environment = {{"FUSION_URL", server_.url()}};
  const std::string shown = run_on_terminal({"best", "7", "--top", "3", "--no-color"}, 90, 24, setting).out;
  EXPECT_THAT(shown, HasSubstr("…"));
  EXPECT_THAT(text({"best", "7", "--top", "3"}), Not(HasSubstr("…")));
}

TEST_F(CommandsTest, VersionAndHelp) {
  EXPECT_THAT(text({"--version"}), StartsWith("fusionctl 0."));
  const std::string help = text({"--help"});
  for (const char* command : {"submit", "validate", "list", "status", "watch", "best", "trials", "show", "fits", "query", "export",
                              "pause", "resume", "cancel", "workers", "events", "shutdown", "health"}) {
    EXPECT_THAT(help, HasSubstr(std::string("\n  ") + command + " ")) << command;
    EXPECT_THAT(text({command, "--help"}), HasSubstr("Usage: ")) << command;
  }
}

}  // namespace
}  // namespace fusion::testing
