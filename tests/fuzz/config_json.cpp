#include "base/json_reader.h"
#include "space/dataset_spec.h"
#include "space/retraining_options.h"
#include "space/search_space.h"
#include "space/study.h"
#include "tests/fuzz/expect.h"
#include "tests/fuzz/targets.h"

namespace fusion::fuzz {

namespace {

template <typename Options>
void read_as(const nlohmann::json& document) {
  JsonProblems problems;
  JsonReader reader(document, "fuzz", problems);
  const Options options = Options::read(reader);
  if (!problems.empty()) return;
  const nlohmann::json whole = options.to_json();
  JsonReader again(whole, "fuzz", problems);
  expect(Options::read(again).to_json() == whole && problems.empty(), "what is read without a problem can be written and read again");
}

}  // namespace

void config_json(std::string_view bytes) {
  try {
    const nlohmann::json document = parse_json(bytes, "fuzz");
    read_as<StudySpec>(document);
    read_as<TrainingOptions>(document);
    read_as<RetrainingOptions>(document);
    JsonProblems problems;
    JsonReader reader(document, "fuzz", problems);
    const DatasetSpec dataset = DatasetSpec::read(reader);
    if (problems.empty()) SearchSpace::read(reader, dataset);
  } catch (const Error&) {
  }
}

}  // namespace fusion::fuzz
