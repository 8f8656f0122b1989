#include "workers/protocol/codec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <limits>
#include <nlohmann/json.hpp>
#include <random>
#include <set>

#include "base/error.h"
#include "base/files.h"
#include "base/random.h"

namespace fusion::protocol {
namespace {

using ::testing::HasSubstr;

Score some_score() {
  Score score;
  score.dev_score = 0.1 + 0.2;
  score.best_epoch = 2;
  score.dev_accuracy = 0.5;
  score.dev_weighted_f1 = 1.0 / 3;
  score.dev_macro_f1 = 0;
  score.test_score = 1;
  score.train_loss = -1e-300;
  score.train_s = 1e9;
  score.parameters = 1234567890123;
  return score;
}

RetrainingJob some_job() {
  RetrainingJob job;
  job.retraining = RetrainingId{9};
  job.attempt = 2;
  job.architecture = architecture_from_text("[[3,0,0],[1,3,2,\"glu\"]]");
  job.dataset_path = "/data/features.json";
  job.dataset_digest = std::string(64, 'a');
  job.options.head = HeadKind::bert;
  job.options.finetune = Finetune::none;
  job.seed = (std::uint64_t{1} << 53) - 1;
  job.folder = "/data/artifacts/retraining-9-00000000";
  job.lineage = {{"study", {{"id", 1}, {"name", "first"}}}};
  return job;
}

RetrainingOutcome some_outcome() {
  RetrainingOutcome outcome;
  outcome.retraining = RetrainingId{9};
  outcome.attempt = 2;
  outcome.score.emplace();
  outcome.score->dev_score = 1.0 / 3;
  outcome.score->test_score = 0.25;
  outcome.score->batch = 16;
  outcome.score->evaluation = {{"dev", {{"confusion", {{1, 2}, {3, 4}}}}}};
  outcome.score->artifacts = {{"model.pt", "/data/artifacts/model.pt", 123, std::string(64, 'e')}};
  outcome.device = "cpu";
  return outcome;
}

std::vector<Message> one_of_each() {
  const std::vector<HeldRetraining> retrainings{{RetrainingId{9}, 2}};
  RetrainingOutcome not_retrained;
  not_retrained.retraining = RetrainingId{3};
  not_retrained.attempt = 1;
  not_retrained.outcome = Outcome::failed;
  not_retrained.error = "the loss became NaN in epoch 2; the last finite one was 1.25";
  TrialOutcome completed;
  completed.trial = TrialId{7};
  completed.attempt = 3;
  completed.score = some_score();
  completed.engine = "autograd";
  TrialOutcome failed;
  failed.trial = TrialId{8};
  failed.attempt = 1;
  failed.outcome = Outcome::oom;
  failed.error = "out of \"memory\"\n\ttoo big: \xC3\xA4";
  Pack pack{{StudyId{2}, "/data/features.json", std::string(64, 'a'), {}, 77}, {}};
  pack.training.dropout = 0.1;
  pack.training.restart_rule = RestartRule::reference;
  pack.training.metric = Metric::macro_f1;
  pack.trials.push_back({TrialId{1}, 1, architecture_from_text("[[3,0,0],[1,3,2,\"glu\"]]"), (std::uint64_t{1} << 53) - 1});
  pack.trials.push_back({TrialId{2}, 9, architecture_from_text("[[0,0,3]]"), 0});
  const std::vector<Held> held{{TrialId{1}, 2}, {TrialId{std::numeric_limits<std::int64_t>::max()}, 1}};
  const Condition condition{3'599.5, 2.25, 16, "the GPU is full", {{"cuda:0", "NVIDIA H200", "GPU-1", 143'771, 80, 97, 61, 3, "full"}, {}},
                            {{std::string(64, 'b'), "train.safetensors: its SHA-256 is another"}}, 75.5, 48, 16, 32};
  return {Hello{kVersion, "w", "host", 12, "cuda:0", 32, 64, "0.1.0", "2.4", held, retrainings, "4711_3", "node7", condition, 4},
          Epoch{TrialId{4}, 1, {1, 0.1, 0.9, 1e-6, 0.25}},
          Result{completed},
          Result{failed},
          Heartbeat{held},
          Heartbeat{{}, retrainings},
          Heartbeat{},
          GiveBack{held, "oom"},
          GiveBack{{}, "asked for", retrainings},
          RetrainingEpochReport{retrainings[0], {3, 2, 0.5, 0.25, 0.875, 1e-3, 12.5, 4000}},
          RetrainingProgressReport{retrainings[0], {3, 71, 100, 1000, 250.5, 60}},
          RetrainingResult{some_outcome()},
          RetrainingResult{not_retrained},
          RetrainingLease{some_job()},
          RetrainingAck{"epoch", retrainings[0], 3, false},
          HandBack{retrainings, "paused"},
          Leaving{"bye"},
          Welcome{WorkerId{3}, 0.5, 0.1, "0.1.0"},
          Refused{"no"},
          pack,
          Ack{"epoch", TrialId{1}, 1, 2, false},
          Cancel{held, "cancelled"},
          Cancel{{}, "cancelled", retrainings},
          Prune{held, "behind"},
          Drain{"end"},
          Hello{kVersion, "w", "host", 12, "cuda:0", 32, 64, "0.1.0", "2.4", held, retrainings, "", "", {}},
          Heartbeat{{}, {}, condition}};
}

std::string refusal(const std::string& frame) {
  try {
    decode(frame);
  } catch (const ProtocolError& error) {
    return error.what();
  }
  return "";
}

/// The frame of a message, with one member set to something else.
std::string with(const Message& message, const std::string& pointer, const nlohmann::json& value) {
  nlohmann::json frame = nlohmann::json::parse(encode(message));
  frame[nlohmann::json::json_pointer(pointer)] = value;
  return frame.dump();
}

/// The first message of a type.
template <typename M>
Message first_of() {
  for (const Message& message : one_of_each()) {
    if (std::holds_alternative<M>(message)) return message;
  }
  return Drain{};
}

TEST(CodecTest, EveryMessageRoundTrips) {
  std::set<std::size_t> kinds;
  for (const Message& message : one_of_each()) {
    const std::string frame = encode(message);
    EXPECT_EQ(frame.find('\n'), std::string::npos) << frame;
    EXPECT_TRUE(decode(frame) == message) << frame;
    kinds.insert(message.index());
  }
  EXPECT_EQ(kinds.size(), std::variant_size_v<Message>);
}

TEST(CodecTest, EveryMissingMemberIsNamed) {
  for (const Message& message : one_of_each()) {
    const nlohmann::json frame = nlohmann::json::parse(encode(message));
    for (const auto& [key, value] : frame.items()) {
      nlohmann::json less = frame;
      less.erase(key);
      if (key == "processes") continue;  // it came later
      EXPECT_THAT(refusal(less.dump()), HasSubstr("/" + key)) << frame;
    }
  }
}

/// The hello and the heartbeat of version 4 as they were before anything was added to it.
constexpr const char* kHelloOfBefore =
    R"({"type": "hello", "protocol": 4, "name": "gpu7-3121", "host": "gpu7", "pid": 3121, "device": "cuda:0", "pack": 64, "slots": 128,
        "code_version": "0.1.0", "torch_version": "2.4.0", "held": [{"trial": 41, "attempt": 1}], "retrainings": [], "job": "4711_3", "node": "gpu7",
        "condition": {"time_left_s": 3405.5, "trial_s": 41.25, "fits": 128, "problem": "", "devices": [], "unreadable": []}})";
constexpr const char* kHeartbeatOfBefore =
    R"({"type": "heartbeat", "held": [], "retrainings": [{"retraining": 5, "attempt": 2}],
        "condition": {"time_left_s": null, "trial_s": null, "fits": null, "problem": "", "devices": [], "unreadable": []}})";

TEST(CodecTest, WhatCameLaterIsNoneWhereItIsAbsentOrNull) {
  nlohmann::json frame = nlohmann::json::parse(kHelloOfBefore);
  const auto before = std::get<Hello>(decode(frame.dump()));
  EXPECT_FALSE(before.processes || before.condition.longest_epoch_s || before.condition.first_epoch_s || before.condition.pack || before.condition.slots);
  EXPECT_EQ(before.condition.fits, 128);
  frame["processes"] = nullptr;
  for (const char* later : {"longest_epoch_s", "first_epoch_s", "pack", "slots"}) frame["condition"][later] = nullptr;
  EXPECT_TRUE(std::get<Hello>(decode(frame.dump())) == before);
}

TEST(CodecTest, WhatHasNothingNewToSayIsWrittenAsBefore) {
  for (const char* frame : {kHelloOfBefore, kHeartbeatOfBefore}) {
    EXPECT_EQ(nlohmann::json::parse(encode(decode(frame))), nlohmann::json::parse(frame)) << "a daemon from before refuses what it does not know";
  }
}

TEST(CodecTest, EveryMemberOfAnotherTypeIsNamed) {
  for (const Message& message : one_of_each()) {
    const nlohmann::json frame = nlohmann::json::parse(encode(message));
    for (const auto& [key, value] : frame.items()) {
      nlohmann::json wrong = frame;
      wrong[key] = value.is_object() ? nlohmann::json("text") : nlohmann::json::object();
      EXPECT_THAT(refusal(wrong.dump()), HasSubstr("/" + key)) << frame;
    }
  }
}

TEST(CodecTest, UnknownMembersAreRefusedWhereverTheyStand) {
  for (const Message& message : one_of_each()) {
    EXPECT_THAT(refusal(with(message, "/color", "red")), HasSubstr("/color"));
  }
  const std::vector<Message> all = one_of_each();
  EXPECT_THAT(refusal(with(all[0], "/held/0/x", 1)), HasSubstr("hello frame: /held/0/x: is not a known key"));
  EXPECT_THAT(refusal(with(all[2], "/score/x", 1)), HasSubstr("/score/x"));
  EXPECT_THAT(refusal(with(first_of<Pack>(), "/training/x", 1)), HasSubstr("/training/x"));
  EXPECT_THAT(refusal(with(first_of<Pack>(), "/trials/1/x", 1)), HasSubstr("/trials/1/x"));
}

TEST(CodecTest, WrongValuesAreNamedByPointer) {
  const std::vector<Message> all = one_of_each();
  EXPECT_THAT(refusal(with(all[0], "/held/1/attempt", 0)), HasSubstr("/held/1/attempt: expected an integer"));
  EXPECT_THAT(refusal(with(all[0], "/slots", 31)), HasSubstr("/pack: is larger than slots, which is 31"));
  EXPECT_THAT(refusal(with(all[0], "/slots", 0)), HasSubstr("/slots"));
  EXPECT_THAT(refusal(with(all[0], "/processes", -1)), HasSubstr("/processes"));
  EXPECT_THAT(refusal(with(all[0], "/condition/longest_epoch_s", -1)), HasSubstr("/condition/longest_epoch_s"));
  EXPECT_THAT(refusal(with(all[0], "/condition/slots", 15)), HasSubstr("/condition/pack: is larger than slots, which is 15"));
  EXPECT_THAT(refusal(with(all[0], "/slots", 1 << 20)), HasSubstr("/slots"));
  EXPECT_THAT(refusal(with(all[0], "/name", "")), HasSubstr("/name"));
  EXPECT_THAT(refusal(with(all[0], "/name", "a\nb")), HasSubstr("/name"));
  EXPECT_THAT(refusal(with(all[0], "/name", std::string(201, 'n'))), HasSubstr("/name"));
  EXPECT_THAT(refusal(with(all[1], "/dev_score", 1.5)), HasSubstr("/dev_score"));
  EXPECT_THAT(refusal(with(all[1], "/trial", -1)), HasSubstr("/trial"));
  EXPECT_THAT(refusal(with(all[1], "/trial", 18446744073709551615u)), HasSubstr("/trial"));
  EXPECT_THAT(refusal(with(all[2], "/outcome", "great")), HasSubstr("completed, pruned"));
  EXPECT_THAT(refusal(with(all[2], "/score/dev_score", 2)), HasSubstr("/score/dev_score"));
  EXPECT_THAT(refusal(with(all[2], "/outcome", "failed")), HasSubstr("/score: stands only where outcome is completed or pruned"));
  EXPECT_THAT(refusal(with(all[3], "/outcome", "completed")), HasSubstr("/score: is missing"));
  EXPECT_THAT(refusal(with(all[3], "/outcome", "pruned")), HasSubstr("/score: is missing"));
  EXPECT_EQ(refusal(with(all[2], "/outcome", "pruned")), "");
  EXPECT_THAT(refusal(with(all[3], "/error", std::string(70'000, 'e'))), HasSubstr("/error"));
  EXPECT_THAT(refusal(with(first_of<Pack>(), "/trials/0/seed", std::uint64_t{1} << 53)), HasSubstr("/trials/0/seed"));
  EXPECT_THAT(refusal(with(first_of<Pack>(), "/trials/0/architecture", nlohmann::json::parse("[[1,1,9]]"))), HasSubstr("/trials/0/architecture"));
  EXPECT_THAT(refusal(with(first_of<Pack>(), "/order_seed", std::uint64_t{1} << 53)), HasSubstr("/order_seed"));
  EXPECT_THAT(refusal(with(first_of<Pack>(), "/training/epochs", 0)), HasSubstr("/training/epochs"));
  EXPECT_THAT(refusal(with(first_of<Ack>(), "/what", "thanks")), HasSubstr("/what"));
}

TEST(CodecTest, WhatIsWrongOfARetrainingIsNamed) {
  const Message lease = first_of<RetrainingLease>(), result = first_of<RetrainingResult>();
  EXPECT_THAT(refusal(with(lease, "/options/x", 1)), HasSubstr("/options/x"));
  EXPECT_THAT(refusal(with(lease, "/options/bert_heads", 7)), HasSubstr("/options/bert_heads"));
  EXPECT_THAT(refusal(with(lease, "/seed", std::uint64_t{1} << 53)), HasSubstr("/seed"));
  EXPECT_THAT(refusal(with(lease, "/folder", std::string(70'000, 'f'))), HasSubstr("/folder: expected at most"));
  EXPECT_THAT(refusal(with(lease, "/lineage", {{"x", std::string(70'000, 'l')}})), HasSubstr("/lineage: expected at most"));
  EXPECT_THAT(refusal(with(result, "/outcome", "failed")), HasSubstr("/score"));
  EXPECT_THAT(refusal(with(result, "/outcome", "pruned")), HasSubstr("a retraining is never pruned"));
  EXPECT_THAT(refusal(with(result, "/score/x", 1)), HasSubstr("/score/x"));
  EXPECT_THAT(refusal(with(result, "/score/artifacts/0/name", "../../etc/passwd")), HasSubstr("/score/artifacts/0/name"));
  EXPECT_THAT(refusal(with(result, "/score/artifacts/0/sha256", "abc")), HasSubstr("/score/artifacts/0/sha256"));
  EXPECT_THAT(refusal(with(result, "/score/evaluation", {{"x", std::string(9 << 20, 'e')}})), HasSubstr("/score/evaluation: expected at most"));
  nlohmann::json many = nlohmann::json::array();
  for (int i = 0; i < 101; ++i) many.push_back({{"name", std::to_string(i)}, {"path", "/x"}, {"bytes", 1}, {"sha256", std::string(64, 'a')}});
  EXPECT_THAT(refusal(with(result, "/score/artifacts", many)), HasSubstr("/score/artifacts: expected at most 100 elements"));
  EXPECT_THAT(refusal(with(first_of<RetrainingEpochReport>(), "/phase", 3)), HasSubstr("/phase"));
  EXPECT_THAT(refusal(with(first_of<RetrainingProgressReport>(), "/rows", -1)), HasSubstr("/rows"));
  EXPECT_THAT(refusal(with(first_of<HandBack>(), "/retrainings/0/attempt", 0)), HasSubstr("/retrainings/0/attempt"));
  RetrainingOutcome outcome = some_outcome();
  outcome.score->evaluation["dev"]["loss"] = std::nan("");
  EXPECT_THROW(encode(RetrainingResult{outcome}), ProtocolError);
}

TEST(CodecTest, AllProblemsAreToldButOnlyTen) {
  const std::string two = refusal(with(one_of_each()[1], "/seconds", -1).substr(0, 1) + "\"color\":1," +
                                  with(one_of_each()[1], "/seconds", -1).substr(1));
  EXPECT_THAT(two, HasSubstr("/color"));
  EXPECT_THAT(two, HasSubstr("/seconds"));
  nlohmann::json held = nlohmann::json::array();
  for (int i = 0; i < 1000; ++i) held.push_back(i);
  const std::string many = refusal(nlohmann::json{{"type", "heartbeat"}, {"held", held}}.dump());
  EXPECT_THAT(many, HasSubstr("more problems"));
  EXPECT_LT(many.size(), 4000u);
}

TEST(CodecTest, WhatIsNotAFrameIsRefused) {
  EXPECT_THAT(refusal(""), HasSubstr("not valid JSON"));
  EXPECT_THAT(refusal("{"), HasSubstr("not valid JSON"));
  EXPECT_THAT(refusal("[]"), HasSubstr("expected a JSON object"));
  EXPECT_THAT(refusal("{}"), HasSubstr("/type: is missing"));
  EXPECT_THAT(refusal(R"({"type": 3})"), HasSubstr("/type"));
  EXPECT_THAT(refusal(R"({"type": "bye"})"), HasSubstr("expected one of hello"));
  EXPECT_THAT(refusal(R"({"type": "drain", "type": "drain", "reason": ""})"), HasSubstr("twice"));
  EXPECT_THAT(refusal(R"({"type": "drain", "reason": 1e999})"), HasSubstr("frame"));
  EXPECT_THAT(refusal("{\"type\": \"drain\", \"reason\": \"\xFF\"}"), HasSubstr("frame"));
}

TEST(CodecTest, TooLargeTooDeepAndTooManyAreRefusedBeforeTheyHurt) {
  EXPECT_THAT(refusal(std::string(kMaxFrame + 1, ' ')), HasSubstr("at most 16777216 bytes"));
  EXPECT_THAT(refusal(std::string(kMaxFrame, '[')), HasSubstr("nested at most 32 deep"));
  EXPECT_THAT(refusal("{\"type\":\"drain\",\"reason\":" + std::string(100, '[') + std::string(100, ']') + "}"),
              HasSubstr("nested at most 32 deep"));
  EXPECT_EQ(refusal(R"({"type":"drain","reason":"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\"[["})"), "");
  std::string list = "0";
  for (int i = 0; i < 100'001; ++i) list += ",0";
  EXPECT_THAT(refusal("{\"type\":\"heartbeat\",\"held\":[" + list + "]}"), HasSubstr("/held: expected at most 100000 elements"));
}

TEST(CodecTest, AnotherVersionsHelloIsReadAsFarAsItsVersion) {
  const Message message = decode(R"({"type": "hello", "protocol": 2, "who": "me", "gpus": [1]})");
  EXPECT_EQ(std::get<Hello>(message).protocol, 2);
}

TEST(CodecTest, WhatCannotBeSentIsSaidOrMendedWhereItIsWritten) {
  EXPECT_THROW(encode(Epoch{TrialId{1}, 1, {1, std::nan(""), 0, 0, 0}}), ProtocolError);
  TrialOutcome outcome;
  outcome.trial = TrialId{1};
  outcome.attempt = 1;
  outcome.score = some_score();
  outcome.score->train_loss = std::numeric_limits<double>::infinity();
  EXPECT_THROW(encode(Result{outcome}), ProtocolError);
  outcome.score.reset();
  outcome.outcome = Outcome::failed;
  for (int i = 0; i < 50'000; ++i) outcome.error += "\xC3\xA4";
  outcome.error += "\xFF";
  const auto back = std::get<Result>(decode(encode(Result{outcome})));
  EXPECT_LE(back.outcome.error.size(), 65'536u);
  EXPECT_THAT(back.outcome.error, ::testing::EndsWith("\xC3\xA4..."));
  EXPECT_NO_THROW(decode(encode(Leaving{"\xFF\xFE"})));
}

TEST(CodecTest, RandomAndMutatedFramesNeverCrash) {
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  Rng rng(seed);
  const std::vector<Message> all = one_of_each();
  const std::string alphabet = "{}[]\",:0123456789.-+eE\\ntrufalse heldtrialatemp\x01\xFF";
  std::size_t refused = 0, read = 0;
  for (int i = 0; i < 20'000; ++i) {
    std::string frame = i % 4 == 0 ? std::string(rng.below(200), 'x') : encode(all[rng.below(all.size())]);
    if (i % 4 == 0) {
      for (char& c : frame) c = static_cast<char>(rng.below(256));
    }
    for (std::uint64_t changes = 1 + rng.below(4); changes > 0 && !frame.empty(); --changes) {
      const std::size_t at = rng.below(frame.size());
      switch (rng.below(4)) {
        case 0: frame[at] = alphabet[rng.below(alphabet.size())]; break;
        case 1: frame.erase(at, 1 + rng.below(20)); break;
        case 2: frame.insert(at, 1, alphabet[rng.below(alphabet.size())]); break;
        default: frame.insert(at, frame.substr(rng.below(frame.size()), rng.below(20)));
      }
    }
    try {
      const Message message = decode(frame);
      EXPECT_NO_THROW(decode(encode(message))) << frame;
      ++read;
    } catch (const ProtocolError&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 1000u);
  EXPECT_GT(read, 100u);
}

TEST(CodecTest, EveryExampleFrameOfTheDocumentIsLegal) {
  const char* source = std::getenv("FUSION_SOURCE_DIR");
  const std::string text = read_text(std::filesystem::path(source != nullptr ? source : ".") / "docs/protocol.md");
  std::set<std::size_t> kinds;
  const std::string fence = "```json\n";
  for (std::size_t at = text.find(fence); at != std::string::npos; at = text.find(fence, at)) {
    at += fence.size();
    const std::string frame = text.substr(at, text.find("\n```", at) - at);
    at += frame.size() + 4;
    const Message message = decode(frame);
    EXPECT_EQ(nlohmann::json::parse(encode(message)), nlohmann::json::parse(frame)) << "the example leaves nothing out";
    kinds.insert(message.index());
  }
  EXPECT_EQ(kinds.size(), std::variant_size_v<Message>) << "every message has an example";
}

}  // namespace
}  // namespace fusion::protocol
