#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "space/dataset_spec.h"

namespace fusion::ctl {

/// The dataset of a study's answer, which gives taps their names. Absent if the answer has none that can be read.
std::optional<DatasetSpec> dataset_of(const nlohmann::json& study);

/// An architecture in triplets, without blanks: `[[3,2,0]]`. kAbsent for none.
std::string triplets_text(const nlohmann::json& architecture);

/// The same for people, in one line: `tap3+tap2 relu > tap0+tap1 sigmoid glu`, taps in the order of the modalities. Empty
/// where the dataset is not known or does not fit.
std::string network_text(const nlohmann::json& architecture, const std::optional<DatasetSpec>& dataset);

/// A line per step: `audio.tap3 + image.tap2 -> concat_fc, relu`; from the second on the previous step stands among the inputs.
std::vector<std::string> network_lines(const nlohmann::json& architecture, const std::optional<DatasetSpec>& dataset);

}  // namespace fusion::ctl
