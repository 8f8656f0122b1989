// The commands of retrainings, the real program against a real server with canned answers.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/digest.h"
#include "base/files.h"
#include "tests/tools/canned_server.h"
#include "tests/tools/child.h"

namespace fusion::testing {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

const std::string kModel = "a model";

json retraining(const std::string& state = "completed") {
  json r = json::parse(R"({
    "id": 5, "study": 7, "study_name": "toy-mfas", "trial": 17, "architecture": [[3, 2, 0]], "head": "mmtm", "seed": 4711, "priority": 0,
    "retries": 2, "attempts": 2, "failures": 0, "dev_score": 0.9375, "test_score": 0.925, "best_epoch": 2, "train_loss": 0.25,
    "train_s": 24.5, "parameters": 1234567, "trained_parameters": 234567, "batch": 32, "error": "", "last_epoch": 2, "total_epochs": 2,
    "dataset": "toy", "folder": "/data/artifacts/retraining-5", "options": {"head": "mmtm", "width": 128}, "created_ms": 1700000000000,
    "ended_ms": 1700000060000, "lineage": {"study": {"id": 7, "name": "toy-mfas"}, "trial": {"id": 17, "dev_score": 0.91}},
    "attempt_log": [{"attempt": 1, "worker_name": "gpu01", "outcome": "lost", "error": "it was silent", "started_ms": 1700000000000}],
    "epochs": [{"attempt": 1, "epoch": 1, "phase": 1, "train_loss": 1.5, "dev_loss": 1.25, "dev_score": 0.5, "learning_rate": 0.001,
                "seconds": 12, "rows_per_s": 4400},
               {"attempt": 2, "epoch": 2, "phase": 2, "train_loss": 0.25, "dev_loss": 0.5, "dev_score": 0.9375, "learning_rate": 0.0005,
                "seconds": 12, "rows_per_s": 4400}],
    "progress": null, "new_member": 1,
    "evaluation": {"device": "cuda:0", "latency_ms": 1.25, "multiply_adds": 7654321,
      "dev": {"accuracy": 0.9375, "top5": 1, "macro_f1": 0.93, "weighted_f1": 0.94, "loss": 0.5, "confusion": [[7, 1], [0, 8]],
              "classes": [{"name": "<b>dog</b>", "rows": 8, "precision": 1, "recall": 0.875, "f1": 0.9333},
                          {"name": "cat", "rows": 8, "precision": 0.8889, "recall": 1, "f1": 0.9412}]}}})");
  r["state"] = state;
  r["artifacts"] = json::array({{{"name", "model.pt"}, {"path", "/x/model.pt"}, {"bytes", kModel.size()}, {"sha256", sha256_of(kModel)}},
                                {{"name", "model.safetensors"}, {"path", "/x/m"}, {"bytes", 3}, {"sha256", std::string(64, '0')}}});
  return r;
}

CannedReply canned(const CannedRequest& request) {
  const std::string asked = request.method + " " + request.target;
  const std::string one = json{{"retraining", retraining()}}.dump();
  if (asked == "POST /api/v1/retrainings") return {201, one};
  if (asked == "GET /api/v1/retrainings/5") return {200, one};
  if (asked == "GET /api/v1/retrainings/8") {
    json waiting = retraining("queued");
    waiting["waits"] = "waits for a worker with 4 GPUs; the largest connected has 2";
    return {200, json{{"retraining", waiting}}.dump()};
  }
  if (asked == "GET /api/v1/retrainings/6") return {200, json{{"retraining", retraining("leased")}}.dump()};
  if (asked == "POST /api/v1/retrainings/5/pause") return {200, json{{"retraining", retraining("paused")}}.dump()};
  if (asked == "GET /api/v1/retrainings?order=best&limit=50&head=mmtm") return {200, json{{"retrainings", {retraining()}}}.dump()};
  if (asked == "GET /api/v1/retrainings/5/artifacts/model.pt") return {200, kModel};
  if (asked == "GET /api/v1/retrainings/5/artifacts/model.safetensors") return {200, "bad"};
  return {404, R"({"error": {"problems": ["nothing is known of )" + asked + "\"]}}"};
}

class RetrainingCommandsTest : public ::testing::Test {
 protected:
  ChildResult run(std::vector<std::string> arguments) {
    ChildSetting setting;
    setting.environment["FUSION_URL"] = server.url();
    setting.folder = folder.path();
    return run_fusionctl(arguments, setting);
  }
  TemporaryFolder folder;
  CannedServer server{canned};
};

TEST_F(RetrainingCommandsTest, RetrainSendsFlagsOverTheFileOfOptionsAndPrintsTheId) {
  write_atomically(folder / "options.json", R"({"width": 64, "epochs": 3})");
  const ChildResult result = run({"retrain", "--trial", "17", "--options", "options.json", "--head", "mmtm", "--width", "128", "--multitask", "false",
                                  "--eta-max", "0.01", "--seed", "3", "--priority", "-1"});
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_EQ(result.out, "5\n");
  EXPECT_THAT(result.err, HasSubstr("fusionctl watch --retraining 5"));
  EXPECT_EQ(json::parse(server.requests().at(0).body),
            json::parse(R"({"trial": 17, "seed": 3, "priority": -1,
                            "options": {"width": 128, "epochs": 3, "head": "mmtm", "multitask": false, "eta_max": 0.01}})"));
}

TEST_F(RetrainingCommandsTest, RetrainFromAFileSendsOneRequestForEachArchitecture) {
  write_atomically(folder / "best.json", R"({"format": "fusiond-export-1", "architectures": [1, 2]})");
  EXPECT_EQ(run({"retrain", "--from", "best.json", "--all"}).out, "5\n5\n");
  const auto requests = server.requests();
  ASSERT_EQ(requests.size(), 2u);
  EXPECT_EQ(json::parse(requests[1].body)["rank"], 2);
  EXPECT_EQ(json::parse(requests[1].body)["source"], "best.json");
  EXPECT_EQ(run({"retrain", "--from", "best.json", "--trial", "3"}).status, 2);
  EXPECT_EQ(run({"retrain", "--from", "best.json", "--no-such-option", "3"}).status, 2);
}

TEST_F(RetrainingCommandsTest, TablesAndRecords) {
  EXPECT_THAT(run({"retrainings", "--order", "best", "--head", "mmtm"}).out, AllOf(HasSubstr("0.9375"), HasSubstr("1,234,567"), HasSubstr("2/2")));
  const std::string shown = run({"show", "--retraining", "5"}).out;
  EXPECT_THAT(shown, AllOf(HasSubstr("retraining 5 (mmtm head): completed"), HasSubstr("trial 17 of study \"toy-mfas\""), HasSubstr("width 128"),
                           HasSubstr("it was silent"), HasSubstr("model.pt")));
  EXPECT_EQ(run({"pause", "--retraining", "5"}).out, "retraining 5 is paused\n");
  EXPECT_EQ(run({"show", "17", "--retraining", "5"}).status, 2);
  EXPECT_EQ(json::parse(run({"show", "--retraining", "5", "--json"}).out)["retraining"]["id"], 5);
}

TEST_F(RetrainingCommandsTest, OneThatNoWorkerCanDoSaysSo) {
  EXPECT_THAT(run({"show", "--retraining", "8"}).out, HasSubstr("waits for a worker with 4 GPUs; the largest connected has 2"));
  EXPECT_THAT(run({"show", "--retraining", "5"}).out, Not(HasSubstr("waits for")));
}

TEST_F(RetrainingCommandsTest, WatchPrintsALinePerEpochAndEndsWithTheState) {
  const ChildResult result = run({"watch", "--retraining", "5"});
  EXPECT_EQ(result.status, 0);
  EXPECT_THAT(result.out, AllOf(HasSubstr("epoch 1 of 2: loss 1.5, dev 0.5000, learning rate 0.001"), HasSubstr("epoch 2 of 2"),
                                HasSubstr("completed, dev 0.9375 in epoch 2, test 0.9250")));
}

TEST_F(RetrainingCommandsTest, EvaluatePrintsFiguresAndWritesASafePage) {
  const ChildResult result = run({"evaluate", "5", "--html", "page.html"});
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_THAT(result.out, AllOf(HasSubstr("accuracy"), HasSubstr("0.9375"), HasSubstr("0.8889"), HasSubstr("7,654,321"), HasSubstr("1.25 ms")));
  const std::string page = read_text(folder / "page.html");
  EXPECT_THAT(page, AllOf(HasSubstr("&lt;b&gt;dog"), Not(HasSubstr("<b>dog")), HasSubstr("rgba(31,95,170,0.875)"), Not(HasSubstr("http"))));
  EXPECT_THAT(run({"evaluate", "5", "--split", "test"}).err, HasSubstr("no evaluation on test; there is one on dev"));
  EXPECT_EQ(json::parse(run({"evaluate", "5", "--json"}).out)["evaluation"]["dev"]["top5"], 1);
  EXPECT_EQ(run({"evaluate", "6"}).status, 2) << "it is not completed";
}

TEST_F(RetrainingCommandsTest, ExportChecksTheDigestAndNeverLeavesAHalf) {
  EXPECT_EQ(run({"export", "--retraining", "5"}).status, 0);
  EXPECT_EQ(read_text(folder / "retraining-5.pt"), kModel);
  const ChildResult damaged = run({"export", "--retraining", "5", "--format", "safetensors", "-o", "m.safetensors"});
  EXPECT_EQ(damaged.status, 1);
  EXPECT_THAT(damaged.err, HasSubstr("SHA-256"));
  for (const auto& entry : std::filesystem::directory_iterator(folder.path())) {
    EXPECT_EQ(entry.path().filename(), "retraining-5.pt") << "nothing else was left";
  }
  const ChildResult early = run({"export", "--retraining", "6"});
  EXPECT_EQ(early.status, 2);
  EXPECT_THAT(early.err, HasSubstr("retraining 6 is leased; only a completed one"));
  EXPECT_EQ(run({"export", "7", "--format", "torchscript"}).status, 2);
}

}  // namespace
}  // namespace fusion::testing
