// The documented example of a backbone that runs stage by stage, from Python to a retrained model with gated streams.
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "base/tensor_files.h"
#include "model/staged_backbone.h"
#include "model/tensor_io.h"
#include "tests/workers/train/small_retraining.h"
#include "workers/train/model_cost.h"

namespace fusion {
namespace {

using testing::SmallRetraining;

/// The example on "dots", a LeNet on "waves", two fusion layers of 8 and a classifier of 3.
std::int64_t multiply_adds_of_example(const testing::SmallDataset& data) {
  const std::int64_t script = 64 * 4 * 9 + 16 * 8 * 4 * 9 + 8 * 3;
  const auto waves = open_staged_backbone(data.folder / "backbones/waves.safetensors", {1, 6, 10});
  const MultiplyAdds lenet = count_multiply_adds([&] { (void)waves->forward(at::zeros({1, 1, 6, 10}), false); });
  return script + lenet.count.value() + 8 * (8 + 4) + 8 * (4 + 8 + 8) + 3 * 8;
}

TEST(RetrainScriptTest, TrainsTheDocumentedExampleWithGates) {
  if (std::system("/usr/bin/python3 -c 'import torch' >/dev/null 2>&1") != 0) {
    GTEST_SKIP() << "python3-torch is not installed: no TorchScript file can be made";
  }
  SmallRetraining small;
  const char* const source = std::getenv("FUSION_SOURCE_DIR");
  const std::filesystem::path example = std::filesystem::path(source != nullptr ? source : ".") / "docs/examples/staged_backbone.py";
  const std::filesystem::path file = small.data.folder / "staged.pt";
  const std::string command = "/usr/bin/python3 " + example.string() + " " + file.string() + " 1 3";
  ASSERT_EQ(std::system(command.c_str()), 0);
  small.extract({{"dots", file}});
  for (const HeadKind head : {HeadKind::mmtm, HeadKind::bert, HeadKind::linear}) {
    SCOPED_TRACE(std::string(name_of(head)));
    RetrainingOptions options = SmallRetraining::options(head);
    options.eta_max = 0.01;
    const RetrainingJob job = small.job(options, std::string(name_of(head)));
    const RetrainingOutcome outcome = retrain(job);
    ASSERT_EQ(outcome.outcome, Outcome::completed) << outcome.error;
    EXPECT_EQ(outcome.score->parameters, outcome.score->trained_parameters);
    const auto model = SafetensorsFile::open(std::filesystem::path(job.folder) / "model.safetensors");
    EXPECT_TRUE(model.contains("backbone.dots.first.0.weight"));
    EXPECT_TRUE(model.contains("backbone.dots.second.1.running_mean"));
    if (head != HeadKind::linear) continue;
    EXPECT_EQ(outcome.score->evaluation.at("multiply_adds"), multiply_adds_of_example(small.data));
  }
}

}  // namespace
}  // namespace fusion
