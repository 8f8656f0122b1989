// Gradients of the hand-written network: against finite differences, in double precision.
#include "workers/train/plain_network.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "model/torch_compat.h"
#include "tests/workers/train/splits.h"

namespace fusion {
namespace {

/// Takes a step downhill by exactly the gradient: no moments, no history.
constexpr plain::AdamStep<double> kGradientItself{0, 1, 0, 0, 1, 0, 1, 1};

struct Setting {
  std::string triplets;
  bool batchnorm = false, alphas = false;
  double dropout = 0;
};

class PlainNetworkTest : public ::testing::Test {
 protected:
  PlainNetworkTest() : tile_(split_, {{true, true}, {true, true}}, kRows) { tile_.fill(0, kRows); }

  static constexpr std::int64_t kRows = 23, kClasses = 3, kWidth = 5;

  static FusionNetwork make(const Setting& setting) {
    return FusionNetwork(architecture_from_text(setting.triplets), test::kWidths,
                         FusionOptions{kWidth, kClasses, setting.batchnorm, setting.alphas}, 5, at::TensorOptions().dtype(at::kDouble));
  }
  double loss(const FusionNetwork& weights, const Setting& setting) {
    plain::Network<double> network(weights, test::kWidths, 9, setting.dropout);
    plain::AdamStep<double> still = kGradientItself;
    still.step_size = 0;
    return network.train(tile_, 0, kRows, 100, still, work_) / kRows;
  }

  FeatureSplit split_ = test::make_split(kRows, 8, kClasses);
  FeatureTile<double> tile_;
  plain::Workspace<double> work_;
};

TEST_F(PlainNetworkTest, HasTheGradientThatFiniteDifferencesHave) {
  const std::vector<std::string> architectures{R"([[1,0,0],[0,1,0]])", R"([[1,0,1],[0,1,1],[1,1,1]])", R"([[0,0,2],[0,1,2]])",
                                               R"([[1,1,3],[0,1,3]])", R"([[1,0,0,"glu"],[0,1,1,"glu"]])",
                                               R"([[0,0,3,"glu"],[1,1,2],[0,1,1],[1,0,2,"glu"]])"};
  for (const std::string& triplets : architectures) {
    for (int bits = 0; bits < 8; ++bits) {
      const Setting setting{triplets, (bits & 1) != 0, (bits & 2) != 0, (bits & 4) != 0 ? 0.4 : 0.0};
      SCOPED_TRACE(triplets + (setting.batchnorm ? " batchnorm" : "") + (setting.alphas ? " alphas" : "") +
                   (setting.dropout > 0 ? " dropout" : ""));
      const FusionNetwork before = make(setting);
      FusionNetwork after = make(setting);
      plain::Network<double> network(before, test::kWidths, 9, setting.dropout);
      network.train(tile_, 0, kRows, 100, kGradientItself, work_);
      network.copy_to(after);
      for (const auto& [name, tensor] : before.parameters().named()) {
        double* const values = tensor.data_ptr<double>();
        const double* const moved = after.parameters().at(name).data_ptr<double>();
        for (std::int64_t i = 0; i < tensor.numel(); i += 1 + tensor.numel() / 7) {
          const double there = values[i];
          constexpr double kStep = 1e-6;
          values[i] = there + kStep;
          const double up = loss(before, setting);
          values[i] = there - kStep;
          const double down = loss(before, setting);
          values[i] = there;
          EXPECT_NEAR(there - moved[i], (up - down) / (2 * kStep), 2e-8) << name << " number " << i;
        }
      }
    }
  }
}

TEST_F(PlainNetworkTest, GivesItsWeightsBackAsItGotThem) {
  const Setting setting{R"([[1,0,0,"glu"],[0,1,1]])", true, true, 0};
  const FusionNetwork from = make(setting);
  FusionNetwork to(from.architecture(), test::kWidths, from.options(), 6, at::TensorOptions().dtype(at::kDouble));
  plain::Network<double> network(from, test::kWidths, 9, 0);
  network.train(tile_, 0, kRows, 0, kGradientItself, work_);
  network.restore();
  network.copy_to(to);
  EXPECT_TRUE(to.parameters().snapshot().equal(from.parameters().snapshot()));
  EXPECT_TRUE(to.buffers().snapshot().equal(from.buffers().snapshot()));
  EXPECT_EQ(network.parameters(), from.parameters().count());
}

}  // namespace
}  // namespace fusion
