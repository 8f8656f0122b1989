#pragma once

#include "space/search_space.h"

namespace fusion::bench {

/// Five taps of sound, three of images, ReLU and sigmoid, one to four steps.
inline SearchSpace avmnist_space() {
  DatasetSpec dataset;
  dataset.name = "avmnist";
  dataset.classes = 10;
  for (const auto& [name, taps] : {std::pair{"audio", 5}, std::pair{"image", 3}}) {
    ModalitySpec& modality = dataset.modalities.emplace_back();
    modality.name = name;
    for (int i = 0; i < taps; ++i) modality.taps.push_back({"tap" + std::to_string(i), std::int64_t{3} << i});
  }
  return SearchSpace::whole(dataset, 4);
}

}  // namespace fusion::bench
