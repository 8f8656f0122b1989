// fusion-data inspect as a program.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "model/lenet.h"
#include "tests/end_to_end/process.h"
#include "tests/temporary_folder.h"

namespace fusion {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class InspectProgramTest : public ::testing::Test {
 protected:
  InspectProgramTest() {
    LeNetOptions options;
    options.height = options.width = 16;
    LeNet(options, 1).save(folder_ / "net.safetensors");
  }

  testing::Finished inspect(std::vector<std::string> arguments) const {
    arguments.insert(arguments.begin(), {testing::program("fusion-data"), "inspect"});
    return testing::run(arguments, {folder_.path(), {}});
  }

  testing::TemporaryFolder folder_;
};

TEST_F(InspectProgramTest, ShowsTapsAndUses) {
  const testing::Finished shown = inspect({"net.safetensors", "--input", "1x16x16", "--time-axis", "-1"});
  ASSERT_EQ(shown.status, 0) << shown.err;
  EXPECT_THAT(shown.out, AllOf(HasSubstr("net.safetensors: lenet, rows of 1 x 16 x 16"), HasSubstr("tap1             6 x 8 x 8                   6      8"),
                               HasSubstr("mmtm       yes"), HasSubstr("taps that keep time: tap0 tap1 tap2")));
  const testing::Finished json = inspect({"net.safetensors", "--input", "1x16x16", "--json"});
  ASSERT_EQ(json.status, 0) << json.err;
  EXPECT_EQ(nlohmann::json::parse(json.out).at("taps").at(2).at("shape"), (std::vector<int>{12, 4, 4}));
}

TEST_F(InspectProgramTest, RefusesInASentence) {
  std::ofstream(folder_ / "text.pt") << "nothing of use at all";
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases{
      {{"net.safetensors", "--input", "1x28x28"}, "expected rows of shape [1,16,16], got [1,28,28]"},
      {{"net.safetensors", "--input", "1x"}, "--input: expected the shape of one row"},
      {{"net.safetensors", "--input", "1x16x16", "--time-axis", "5"}, "time_axis 5"},
      {{"text.pt", "--input", "3"}, "a backbone is a TorchScript archive"}};
  for (const auto& [arguments, sentence] : cases) {
    const testing::Finished refused = inspect(arguments);
    EXPECT_EQ(refused.status, 2) << sentence;
    EXPECT_THAT(refused.err, HasSubstr(sentence));
  }
}

}  // namespace
}  // namespace fusion
