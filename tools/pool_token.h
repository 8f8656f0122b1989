#pragma once

#include <string>

namespace fusion {

class Access;

/// Why workers that show the token of this file would be turned away, in one sentence: the file cannot be read or may be read by others, the
/// token is not known (any more), or is of another role. Empty where they would be let in.
///
/// Reads the file. I/O thread.
std::string pool_token_problem(const Access& access, const std::string& token_file);

}  // namespace fusion
