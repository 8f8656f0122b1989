// The documented example of a backbone that runs stage by stage, from Python to a retrained model with gated streams.
#include <gtest/gtest.h>

#include <cstdlib>

#include "base/tensor_files.h"
#include "model/tensor_io.h"
#include "tests/workers/train/small_retraining.h"

namespace fusion {
namespace {

using testing::SmallRetraining;

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
  }
}

}  // namespace
}  // namespace fusion
