// docs/tutorial-own-backbones.md as it stands: its blocks are run one after the other.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "base/files.h"
#include "base/json_reader.h"
#include "tests/end_to_end/process.h"
#include "tests/temporary_folder.h"

namespace fusion {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

constexpr const char* kPython = "/usr/bin/python3";

/// A page's ```python and ```sh blocks as one script. A python block's first line names the file that it is kept in.
std::string script_of(const std::string& page) {
  std::string script = "set -euo pipefail\ntrap 'jobs -p | xargs -r kill 2>/dev/null || true' EXIT\n";
  for (std::size_t at = page.find("```"); at != std::string::npos; at = page.find("```", at)) {
    const std::size_t line = page.find('\n', at), end = page.find("```", line);
    const std::string kind = page.substr(at + 3, line - at - 3), body = page.substr(line + 1, end - line - 1);
    at = end + 3;
    if (kind == "sh") script += body;
    if (kind != "python") continue;
    const std::string name = body.substr(2, body.find('\n') - 2);
    script += "cat > " + name + " <<'END_OF_BLOCK'\n" + body + "END_OF_BLOCK\n" + kPython + " " + name + "\n";
  }
  return script;
}

class TutorialTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const char* const source = std::getenv("FUSION_SOURCE_DIR");
    if (!source) GTEST_SKIP() << "FUSION_SOURCE_DIR is not set: it names the folder that docs lies in";
    page_ = read_text(std::filesystem::path(source) / "docs/tutorial-own-backbones.md");
    if (!std::filesystem::exists(kPython) || testing::run({kPython, "-c", "import torch, numpy"}, {folder_.path(), {}}).status != 0) {
      GTEST_SKIP() << "python3 with torch and numpy is not installed: Debian's are python3-torch and python3-numpy";
    }
  }

  testing::Finished run(const std::string& script) const {
    write_atomically(folder_ / "script.sh", script);
    const std::string path = std::filesystem::path(testing::program("fusiond")).parent_path().string() + ":" + std::getenv("PATH");
    return testing::run({"/bin/bash", "script.sh"}, {folder_.path(), {{"PATH", path}}}, std::chrono::seconds(400));
  }

  std::string page_;
  testing::TemporaryFolder folder_;
};

TEST_F(TutorialTest, RunsAsItStands) {
  const testing::Finished finished = run(script_of(page_));
  ASSERT_EQ(finished.status, 0) << finished.out << finished.err;
  EXPECT_THAT(finished.out, HasSubstr("taps that keep time: early late"));
  const json best = parse_json_file(folder_ / "best.json");
  ASSERT_EQ(best.at("architectures").size(), 1u);
  EXPECT_GT(best.at("architectures").at(0).at("dev_score").get<double>(), 0.4);  // a modality alone: at most about a half
  const json look = parse_json_file(folder_ / "look.json");
  EXPECT_GT(look.at("trained").get<double>(), 0.6);
  EXPECT_NEAR(look.at("python").get<double>(), look.at("trained").get<double>(), 1e-9);  // every row the same class
}

/// Three modalities of three ranks, in the tutorial's way: pictures, sounds and vectors.
const char* const kThree = R"(
cat > three.py <<'END_OF_BLOCK'
import hashlib, json, os
import numpy as np, torch
from networks import picture_network, sound_network
torch.manual_seed(1)
rng = np.random.default_rng(1)
class Touch(torch.nn.Module):  # vectors, a tuple of taps, no stages and no scores
    def __init__(self):
        super().__init__()
        self.first, self.second = torch.nn.Linear(6, 5), torch.nn.Linear(5, 7)
    def forward(self, x):
        early = torch.relu(self.first(x))
        return early, torch.relu(self.second(early))

networks = {"picture": (picture_network(), [1, 12, 12]), "sound": (sound_network(), [4, 32]), "touch": (Touch(), [6])}
document = {"format": "fusiond-dataset-1", "name": "three", "classes": 4, "modalities": [], "labels": {"all": "labels.npy"},
            "splits": {"train": {"of": "all", "begin": 0, "end": 90}, "dev": {"of": "all", "begin": 90, "end": 120}}}
np.save("labels.npy", rng.integers(0, 4, 120))
for name, (network, shape) in networks.items():
    np.save(name + ".npy", rng.normal(0, 1, [120] + shape).astype(np.float32))
    torch.jit.script(network.eval()).save(name + ".pt")
    document["modalities"].append({"name": name, "shape": shape, "files": {"all": name + ".npy"}})
document["sha256"] = {name: hashlib.sha256(open(name, "rb").read()).hexdigest() for name in ("picture.npy", "sound.npy", "touch.npy", "labels.npy")}
text = json.dumps(document, sort_keys=True, separators=(",", ":"))
document["digest"] = hashlib.sha256(text.encode()).hexdigest()
json.dump(document, open("dataset.json", "w"))
json.dump({"name": "three", "dataset": os.path.abspath("dataset.json"), "space": {"steps": {"min": 1, "max": 1}, "activations": ["relu"]},
           "strategy": {"name": "exhaustive"}, "training": {"epochs": 1, "batch": 32, "width": 8}}, open("study.json", "w"))
END_OF_BLOCK
/usr/bin/python3 three.py
fusion-data inspect touch.pt --input 6 --json > touch.json
fusion-data extract dataset.json --backbone picture=picture.pt --backbone sound=sound.pt --backbone touch=touch.pt --quiet
fusiond --db fusion.db --listen 127.0.0.1:0 --port-file port --loopback same_user --local-workers 1 --log-level warn &
until [ -s port ]; do sleep 0.1; done
export FUSION_URL=http://127.0.0.1:$(cat port)
fusionctl submit study.json
fusionctl watch 1
fusionctl export 1 --top 100 -o best.json
fusionctl retrain --from best.json --head linear --width 16 --batch 30 --epochs 2 --wait
fusionctl retrain --from best.json --head bert --bert-heads 4 --width 16 --batch 30 --epochs 1 --finetune none --wait
fusionctl retrain --from best.json --head mmtm --epochs 1 --wait > refused.txt 2>&1 && exit 9
fusionctl evaluate 1 --json > evaluation.json
fusionctl export --retraining 1 -o linear.pt
fusionctl export --retraining 2 -o bert.pt
fusionctl show --retraining 1 --json > linear.json
fusionctl show --retraining 2 --json > bert.json
fusionctl shutdown
wait
cat > back.py <<'END_OF_BLOCK'
import json, numpy as np, torch
rows = slice(90, 120)  # dev
inputs = {name: torch.from_numpy(np.load(name + ".npy"))[rows] for name in ("picture", "sound", "touch")}
labels, found = np.load("labels.npy")[rows], {}
for name in ("linear", "bert"):
    model = torch.jit.load(name + ".pt")
    found[name] = float((model(inputs).argmax(1).numpy() == labels).mean())
json.dump(found, open("back.json", "w"))
END_OF_BLOCK
/usr/bin/python3 back.py
)";

TEST_F(TutorialTest, SearchesAndRetrainsOverThreeNetworksMadeInPython) {
  const std::size_t networks = page_.find("# networks.py");
  const std::string block = page_.substr(networks, page_.find("```", networks) - networks);
  write_atomically(folder_ / "networks.py", block);
  const testing::Finished finished = run(std::string("set -euo pipefail\ntrap 'jobs -p | xargs -r kill 2>/dev/null || true' EXIT\n") + kThree);
  ASSERT_EQ(finished.status, 0) << finished.out << finished.err;
  const json best = parse_json_file(folder_ / "best.json");
  EXPECT_EQ(best.at("architectures").size(), 8u);  // two taps of each of three
  for (const json& architecture : best.at("architectures")) EXPECT_EQ(architecture.at("steps").at(0).at("taps").size(), 3u);
  const json touch = parse_json_file(folder_ / "touch.json");
  EXPECT_FALSE(touch.at("uses").at("mmtm").at("can").get<bool>());
  EXPECT_EQ(touch.at("taps").at(1).at("shape"), (std::vector<int>{7}));
  const json back = parse_json_file(folder_ / "back.json");
  for (const std::string head : {"linear", "bert"}) {
    const json retraining = parse_json_file(folder_ / (head + ".json")).at("retraining");
    EXPECT_EQ(retraining.at("state"), "completed");
    EXPECT_NEAR(back.at(head).get<double>(), retraining.at("dev_score").get<double>(), 1e-9) << head;
  }
  EXPECT_THAT(read_text(folder_ / "refused.txt"), HasSubstr("touch.pt"));  // it cannot run stage by stage: a sentence names it
}

}  // namespace
}  // namespace fusion
