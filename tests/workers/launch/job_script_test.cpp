#include "workers/launch/job_script.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace fusion {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(JobScriptTest, QuotesWhatAShellWouldTakeApart) {
  EXPECT_EQ(shell_words({"/opt/fusion-worker", "--name", "a b", "it's", "$HOME", ""}), "/opt/fusion-worker --name 'a b' 'it'\\''s' '$HOME' ''");
}

TEST(JobScriptTest, FillsTheTemplate) {
  EXPECT_EQ(job_script("t", kDefaultJobTemplate, "worker --x", "module load cuda\nulimit -c 0"),
            "#!/bin/bash\nmodule load cuda\nulimit -c 0\nexec worker --x\n");
  EXPECT_EQ(job_script("t", "#!/bin/sh\nsrun {{ run }} # {{run}}\n", "w", ""), "#!/bin/sh\nsrun w # w\n");
}

TEST(JobScriptTest, NamesEveryProblem) {
  EXPECT_THAT([] { job_script("pool a: template", "echo {{runn}} {{prologue}}\n", "w", ""); },
              ::testing::ThrowsMessage<ConfigError>(AllOf(HasSubstr("pool a: template: expected a first line such as #!/bin/bash"),
                                                          HasSubstr("got {{runn}}, which has no value"), HasSubstr("expected the variable {{run}}"))));
  EXPECT_THAT([] { job_script("t", "#!/bin/sh\nexec {{run}}\n", "w", "module load x"); },
              ::testing::ThrowsMessage<ConfigError>(HasSubstr("expected the variable {{prologue}}")));
  EXPECT_THAT([] { job_script("t", "#!/bin/sh\nexec {{run}} {{\n", "w", ""); }, ::testing::ThrowsMessage<ConfigError>(HasSubstr("does not end")));
}

}  // namespace
}  // namespace fusion
