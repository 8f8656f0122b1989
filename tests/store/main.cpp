#include <gtest/gtest.h>

#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "tests/store/writers.h"

// The tests, or one of the processes that the tests start and kill.
int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  try {
    if (arguments.size() == 2 && arguments[0] == "--writer") return fusion::testing::run_writer(arguments[1]);
    if (arguments.size() == 3 && arguments[0] == "--filling") return fusion::testing::run_filling(arguments[1], arguments[2]);
    if (arguments.size() == 2 && arguments[0] == "--sample") return fusion::testing::run_sample(arguments[1]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "store_test %s: %s\n", arguments[0].c_str(), error.what());
    return 2;
  }
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
