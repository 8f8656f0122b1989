#pragma once

#include "workers/data/feature_writer.h"

namespace fusion {

/// Prints what needs no search, to compare a search with: accuracies of each backbone and of late fusion, per cent, per split.
void print_baselines(const FeatureManifest& manifest);

}  // namespace fusion
