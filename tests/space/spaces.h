#pragma once

#include "space/dataset_spec.h"

namespace fusion::testing {

/// AV-MNIST at C channels: audio taps 0..4, image taps 0..2.
inline DatasetSpec avmnist_spec(std::int64_t channels = 3) {
  DatasetSpec spec;
  spec.name = "avmnist";
  spec.digest = "d";
  spec.classes = 10;
  spec.rows = {{"train", 55'000}, {"dev", 5'000}, {"test", 10'000}};
  ModalitySpec audio{"audio", {}, true}, image{"image", {}, true};
  for (int i = 0; i < 5; ++i) audio.taps.push_back({"tap" + std::to_string(i), channels << i});
  for (int i = 0; i < 3; ++i) image.taps.push_back({"tap" + std::to_string(i), channels << i});
  spec.modalities = {audio, image};
  return spec;
}

/// Three modalities of 2, 1 and 2 taps.
inline DatasetSpec tiny_spec() {
  DatasetSpec spec;
  spec.name = "tiny";
  spec.digest = "t";
  spec.classes = 2;
  spec.rows = {{"train", 10}, {"dev", 5}};
  spec.modalities = {{"a", {{"x", 2}, {"y", 3}}, false}, {"b", {{"z", 4}}, false}, {"c", {{"v", 1}, {"w", 1}}, false}};
  return spec;
}

}  // namespace fusion::testing
