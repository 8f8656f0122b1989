#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "tools/ctl/terminal.h"

namespace fusion::ctl {

/// Pure functions: retrainings as text for people. Members that are absent show as kAbsent.
std::string retrainings_view(const nlohmann::json& retrainings, const Terminal& terminal);
std::string retraining_view(const nlohmann::json& retraining, const Terminal& terminal);

/// Figures of one split of a completed retraining's `evaluation`: accuracy, top-5, F1, a row per class, the confusion matrix, size and
/// latency of the model. Throws ConfigError if the evaluation has no such split, naming those it has.
std::string evaluation_view(const nlohmann::json& retraining, const std::string& split, const Terminal& terminal);

/// The same of every split as one file of HTML that needs nothing else, with shaded confusion matrices.
std::string evaluation_html(const nlohmann::json& retraining);

/// "epoch 3 of 71: loss 0.5, dev 0.9125, learning rate 0.001, 12 s"
std::string epoch_line(const nlohmann::json& retraining, const nlohmann::json& epoch);

}  // namespace fusion::ctl
