#pragma once

namespace fusion {

/// e^x and the natural logarithm in float64, a few units in the last place, from additions, multiplications and
/// divisions only: the C library's differ between versions and processors, and a replayed study must draw the same
/// architectures everywhere. log of 0 is -infinity, of a negative number NaN.
double portable_exp(double x);
double portable_log(double x);

}  // namespace fusion
