#pragma once

#include <cstdlib>
#include <iostream>
#include <string_view>

namespace fusion::fuzz {

/// Ends the process where something is not as promised: that is a finding, whoever runs the target.
inline void expect(bool as_promised, std::string_view promise) {
  if (as_promised) return;
  std::cerr << "broken promise: " << promise << std::endl;
  std::abort();
}

}  // namespace fusion::fuzz
