#include "workers/avmnist/avmnist.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/digest.h"
#include "base/json_reader.h"
#include "base/log.h"
#include "base/tensor_files.h"
#include "workers/avmnist/idx.h"
#include "workers/avmnist/parallel.h"
#include "workers/avmnist/pca.h"
#include "workers/avmnist/sound.h"
#include "workers/avmnist/spectrogram.h"
#include "workers/avmnist/staging.h"

namespace fusion {

namespace {

using nlohmann::json;

constexpr int kGenerator = 1;  ///< Raised whenever the same parameters come to mean other bytes.
constexpr std::int64_t kPixels = 784, kDefaultComponents = 5;
constexpr double kDefaultSnrDb = -9, kReferenceEnergy = 0.25;

// ---------------------------------------------------------------------------------------------- options

/// The options with every default filled in.
struct Settings {
  AvmnistOptions asked;
  std::filesystem::path out;
  bool careful = true;
  std::optional<std::int64_t> components;  ///< none: the reference's rule
  std::optional<double> snr_db;            ///< none: no noise
  SpeechSplit split = SpeechSplit::recording;
  int threads = 1;
};

std::vector<std::string> problems_of(const AvmnistOptions& options) {
  std::vector<std::string> problems;
  const bool careful = options.preset == AvmnistPreset::careful;
  if (options.out.empty()) problems.push_back("--out: a folder for the dataset is needed");
  if (std::filesystem::exists(options.out) && !std::filesystem::is_directory(options.out)) {
    problems.push_back("--out: " + options.out.string() + " is there and is not a folder");
  }
  if (options.components && (*options.components < 1 || *options.components > kPixels)) {
    problems.push_back("--components: expected an integer in [1, 784], got " + std::to_string(*options.components));
  }
  if (!careful && options.snr_db) {
    problems.push_back("--snr: the preset reference adds no noise; leave it out, or use the preset careful");
  }
  if (!careful && options.split) {
    problems.push_back("--split: the preset reference has a split of its own; leave it out, or use the preset careful");
  }
  const double snr = options.snr_db.value_or(kDefaultSnrDb);
  if (std::isnan(snr) || snr < -60 || (snr > 60 && !std::isinf(snr))) {
    problems.push_back("--snr: expected decibels in [-60, 60], or inf for no noise, got " + json(snr).dump());
  }
  if (careful && options.noise.empty() && !std::isinf(snr)) {
    problems.push_back("--noise: the preset careful needs the folder of ESC-10 or ESC-50, unless --snr is inf");
  }
  if (options.threads < 0 || options.threads > 1024) {
    problems.push_back("--threads: expected an integer in [0, 1024], got " + std::to_string(options.threads));
  }
  if (options.limit && *options.limit < 24) {
    problems.push_back("--limit: expected at least 24 rows, got " + std::to_string(*options.limit));
  }
  return problems;
}

Settings settle(const AvmnistOptions& options) {
  if (const auto problems = problems_of(options); !problems.empty()) throw ConfigError(problems);
  Settings settings;
  settings.asked = options;
  settings.out = (std::filesystem::absolute(options.out) / "").lexically_normal().parent_path();
  settings.careful = options.preset == AvmnistPreset::careful;
  settings.components = options.components;
  settings.threads = options.threads > 0 ? options.threads : static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  if (settings.careful) {
    settings.components = options.components.value_or(kDefaultComponents);
    const double snr = options.snr_db.value_or(kDefaultSnrDb);
    if (!std::isinf(snr)) settings.snr_db = snr;
    settings.split = options.split.value_or(SpeechSplit::recording);
  }
  return settings;
}

// ---------------------------------------------------------------------------------------------- sources

/// The raw files that take part, and the part that each is for.
struct Sources {
  std::vector<std::filesystem::path> mnist;
  std::vector<std::pair<SpeechFile, AvmnistPart>> speech;
  std::vector<std::pair<NoiseFile, AvmnistPart>> noise;
};

Sources list_sources(const Settings& settings) {
  Sources sources;
  for (const char* half : {"train", "t10k"}) {
    for (const auto& file : mnist_files(settings.asked.mnist, half)) sources.mnist.push_back(file);
  }
  for (const SpeechFile& clip : list_speech(settings.asked.fsdd)) {
    const auto part = settings.careful ? part_of(clip, settings.split) : reference_part_of(clip);
    if (part) sources.speech.emplace_back(clip, *part);
  }
  if (settings.snr_db) {
    for (const NoiseFile& clip : list_noise(settings.asked.noise)) sources.noise.emplace_back(clip, part_of(clip));
  }
  return sources;
}

/// One digest for a list of files: of a line "name digest" for each.
template <typename Files, typename PathOf>
std::string digest_of_files(const Files& files, const PathOf& path_of) {
  std::string lines;
  for (const auto& entry : files) {
    const std::filesystem::path& file = path_of(entry);
    lines += file.filename().string() + " " + sha256_of_file(file) + "\n";
  }
  return sha256_of(lines);
}

json describe(const Settings& settings, const Sources& sources) {
  const auto first = [](const auto& entry) -> const std::filesystem::path& { return entry.first.file; };
  const auto itself = [](const auto& file) -> const std::filesystem::path& { return file; };
  json parameters{{"generator", kGenerator},
                  {"preset", std::string(name_of(settings.asked.preset))},
                  {"seed", settings.asked.seed},
                  {"limit", settings.asked.limit ? json(*settings.asked.limit) : json()},
                  {"components", settings.components ? json(*settings.components) : json("below 25%, each half by itself")},
                  {"split", settings.careful ? json(name_of(settings.split)) : json("reference")},
                  {"snr_db", settings.snr_db ? json(*settings.snr_db) : json()}};
  parameters["sources"] = {{"mnist", digest_of_files(sources.mnist, itself)},
                           {"fsdd", digest_of_files(sources.speech, first)},
                           {"noise", sources.noise.empty() ? json() : json(digest_of_files(sources.noise, first))}};
  return parameters;
}

// ---------------------------------------------------------------------------------------------- what is there

std::string digest_of(json document) {
  document.erase("digest");
  return sha256_of(document.dump());
}

/// Whether every file is as the document says.
bool is_whole(const std::filesystem::path& folder, const json& document) {
  if (document.value("digest", "") != digest_of(document)) return false;
  const auto files = document.find("sha256");
  if (files == document.end() || !files->is_object() || files->empty()) return false;
  return std::all_of(files->items().begin(), files->items().end(), [&](const auto& entry) {
    const std::filesystem::path file = folder / entry.key();
    return std::filesystem::is_regular_file(file) && entry.value() == sha256_of_file(file);
  });
}

/// What tells a dataset made with `old` parameters from the one asked for, a sentence each.
std::vector<std::string> differences(const std::string& file, const json& old, const json& asked) {
  std::vector<std::string> problems;
  for (const auto& [key, value] : asked.items()) {
    const json there = old.contains(key) ? old[key] : json();
    if (there == value) continue;
    if (key != "sources") {
      problems.push_back(file + ": the dataset there was made with " + key + " " + there.dump() + ", asked for is " + value.dump() +
                         "; choose another folder or remove that one");
      continue;
    }
    for (const auto& [source, digest] : value.items()) {
      if (there.is_object() && there.contains(source) && there[source] == digest) continue;
      problems.push_back(file + ": the dataset there was made from other files of " + source +
                         "; choose another folder or remove that one");
    }
  }
  if (problems.empty()) problems.push_back(file + ": is there and is not an AV-MNIST dataset; choose another folder");
  return problems;
}

/// The dataset in `out` if it is the one asked for and whole. Throws ConfigError if it is another one.
std::optional<json> present_dataset(const std::filesystem::path& out, const json& parameters) {
  const std::filesystem::path file = out / "dataset.json";
  if (!std::filesystem::exists(file)) return std::nullopt;
  const json document = parse_json_file(file);
  json there = document.is_object() && document.contains("parameters") ? document["parameters"] : json();
  if (!there.is_object()) throw ConfigError(file.string() + ": is there and is not an AV-MNIST dataset; choose another folder");
  there.erase("measured");
  if (there != parameters) throw ConfigError(differences(file.string(), there, parameters));
  if (is_whole(out, document)) return document;
  logger("data")->warn("dataset incomplete or damaged, it is made again out={}", out.string());
  return std::nullopt;
}

// ---------------------------------------------------------------------------------------------- images

struct Mnist {
  MnistPart train, test;
  std::int64_t dev_begin = 0;  ///< rows of train from here on are the dev split
};

/// The rows of one half as principal components leave them, saved as T.
template <typename T>
void write_images(const Settings& settings, const MnistPart& part, const Pca& pca, std::int64_t components,
                  const std::string& half, const std::filesystem::path& file) {
  std::vector<T> images(static_cast<std::size_t>(part.rows() * kPixels));
  Progress progress("images " + half, part.rows(), "rows", settings.asked.quiet);
  for_row_ranges(part.rows(), 64, settings.threads, progress, [&](std::int64_t begin, std::int64_t end) {
    std::array<double, kPixels> image;
    for (std::int64_t row = begin; row < end; ++row) {
      const auto at = static_cast<std::size_t>(row * kPixels);
      pca.project(std::span(part.pixels).subspan(at, kPixels), components, image);
      std::transform(image.begin(), image.end(), &images[at], [](double x) { return static_cast<T>(x); });
    }
  });
  progress.finish();
  write_npy(file, {sizeof(T) == 8 ? DType::f64 : DType::f32, {part.rows(), kPixels}, images.data()});
}

/// What the PCA came to: recorded, not compared.
json measured(const Pca& pca, std::int64_t components) {
  return {{"components", components}, {"variance_kept", pca.kept(components)}};
}

json write_careful_images(const Settings& settings, const Mnist& mnist, const std::filesystem::path& folder) {
  const auto training = std::span(mnist.train.pixels).first(static_cast<std::size_t>(mnist.dev_begin * kPixels));
  const Pca pca = fit_pca(training, kPixels, settings.threads);
  write_images<float>(settings, mnist.train, pca, *settings.components, "train", folder / "image/train_data.npy");
  write_images<float>(settings, mnist.test, pca, *settings.components, "test", folder / "image/test_data.npy");
  return measured(pca, *settings.components);
}

json write_reference_images(const Settings& settings, const Mnist& mnist, const std::filesystem::path& folder) {
  json result;
  for (const bool train : {true, false}) {
    const MnistPart& part = train ? mnist.train : mnist.test;
    const std::string half = train ? "train" : "test";
    const Pca pca = fit_pca(part.pixels, kPixels, settings.threads);
    const std::int64_t components = settings.components.value_or(pca.count_for(kReferenceEnergy));
    write_images<double>(settings, part, pca, components, half, folder / ("image/" + half + "_data.npy"));
    result[half] = measured(pca, components);
  }
  return result;
}

// ---------------------------------------------------------------------------------------------- sound

std::vector<float> decode_speech(const SpeechFile& clip) {
  Sound sound = read_sound(clip.file);
  if (sound.rate != kMixRate) {
    throw DataError(clip.file.string() + ": has " + std::to_string(sound.rate) + " samples per second; recordings of FSDD have 8000");
  }
  return std::move(sound.samples);
}

std::vector<float> decode_noise(const NoiseFile& clip) {
  const Sound sound = read_sound(clip.file);
  if (sound.rate < kMixRate) {
    throw DataError(clip.file.string() + ": has " + std::to_string(sound.rate) + " samples per second; at least 8000 are needed");
  }
  return resample(sound.samples, sound.rate, kMixRate);
}

/// Decodes everything and deals it out to the parts.
std::map<AvmnistPart, MixturePool> load_pools(const Settings& settings, const Sources& sources) {
  const std::size_t speech_count = sources.speech.size(), count = speech_count + sources.noise.size();
  std::vector<std::vector<float>> samples(count);
  Progress progress("decode sounds", static_cast<std::int64_t>(count), "clips", settings.asked.quiet);
  for_row_ranges(static_cast<std::int64_t>(count), 1, settings.threads, progress, [&](std::int64_t row, std::int64_t) {
    const auto i = static_cast<std::size_t>(row);
    samples[i] = i < speech_count ? decode_speech(sources.speech[i].first) : decode_noise(sources.noise[i - speech_count].first);
  });
  progress.finish();
  std::map<AvmnistPart, std::vector<MixturePool::Speech>> speech;
  std::map<AvmnistPart, std::vector<MixturePool::Noise>> noise;
  for (std::size_t i = 0; i < count; ++i) {
    if (i < speech_count) speech[sources.speech[i].second].push_back({sources.speech[i].first, std::move(samples[i])});
    else noise[sources.noise[i - speech_count].second].push_back({sources.noise[i - speech_count].first, std::move(samples[i])});
  }
  std::map<AvmnistPart, MixturePool> pools;
  for (const AvmnistPart part : {AvmnistPart::train, AvmnistPart::dev, AvmnistPart::test}) {
    if (part == AvmnistPart::dev && !settings.careful) continue;  // the reference's dev rows are rows of train
    pools.try_emplace(part, part, settings.asked.seed, settings.snr_db, std::move(speech[part]), std::move(noise[part]));
  }
  return pools;
}

Spectrograms make_spectrograms(const std::map<AvmnistPart, MixturePool>& pools) {
  std::vector<std::int64_t> lengths;
  for (const auto& [part, pool] : pools) {
    for (const auto& clip : pool.speech()) lengths.push_back(static_cast<std::int64_t>(clip.samples.size()));
  }
  return Spectrograms(lengths, kMixRate);
}

using Pictures = std::vector<std::uint8_t>;

std::span<std::uint8_t, kSpectrogramCells> picture_at(Pictures& pictures, std::int64_t row) {
  return std::span(pictures).subspan(static_cast<std::size_t>(row) * kSpectrogramCells).first<kSpectrogramCells>();
}

/// A mixture and its spectrogram for every row; `pool_of(row)` says whose.
template <typename PoolOf>
Pictures careful_pictures(const Settings& settings, const std::vector<std::uint8_t>& labels, const Spectrograms& spectrograms,
                          Progress& progress, const PoolOf& pool_of) {
  Pictures pictures(labels.size() * kSpectrogramCells);
  const auto rows = static_cast<std::int64_t>(labels.size());
  for_row_ranges(rows, 32, settings.threads, progress, [&](std::int64_t begin, std::int64_t end) {
    std::vector<double> sound;
    for (std::int64_t row = begin; row < end; ++row) {
      const MixturePool& pool = pool_of(row);
      pool.mix(pool.draw(row, labels[static_cast<std::size_t>(row)]), sound);
      spectrograms.picture(sound, picture_at(pictures, row));
    }
  });
  return pictures;
}

/// Without noise there are no more pictures than clips: each is computed once, then dealt out.
Pictures reference_pictures(const Settings& settings, const std::vector<std::uint8_t>& labels,
                            const Spectrograms& spectrograms, Progress& progress, const MixturePool& pool) {
  Pictures distinct(pool.speech().size() * kSpectrogramCells);
  Progress silent("", 0, "", true);
  for_row_ranges(static_cast<std::int64_t>(pool.speech().size()), 8, settings.threads, silent,
                 [&](std::int64_t begin, std::int64_t end) {
    std::vector<double> sound;
    for (std::int64_t clip = begin; clip < end; ++clip) {
      Mixture clean;
      clean.speech = static_cast<std::size_t>(clip);
      pool.mix(clean, sound);
      spectrograms.picture(sound, picture_at(distinct, clip));
    }
  });
  const std::vector<Mixture> rows = pool.walk(labels);
  Pictures pictures(labels.size() * kSpectrogramCells);
  for (std::size_t row = 0; row < rows.size(); ++row) {
    const auto from = picture_at(distinct, static_cast<std::int64_t>(rows[row].speech));
    std::copy(from.begin(), from.end(), picture_at(pictures, static_cast<std::int64_t>(row)).begin());
    progress.advance();
  }
  return pictures;
}

void write_sounds(const Settings& settings, const Mnist& mnist, const std::map<AvmnistPart, MixturePool>& pools,
                  const std::filesystem::path& folder) {
  const Spectrograms spectrograms = make_spectrograms(pools);
  for (const bool train : {true, false}) {
    const std::string half = train ? "train" : "test";
    const MnistPart& part = train ? mnist.train : mnist.test;
    const MixturePool& main = pools.at(train ? AvmnistPart::train : AvmnistPart::test);
    const auto pool_of = [&](std::int64_t row) -> const MixturePool& {
      return train && row >= mnist.dev_begin ? pools.at(AvmnistPart::dev) : main;
    };
    Progress progress("sounds " + half, part.rows(), "rows", settings.asked.quiet);
    const Pictures pictures = settings.careful ? careful_pictures(settings, part.labels, spectrograms, progress, pool_of)
                                               : reference_pictures(settings, part.labels, spectrograms, progress, main);
    progress.finish();
    write_npy(folder / ("audio/" + half + "_data.npy"),
              {DType::u8, {part.rows(), kSpectrogramSize, kSpectrogramSize}, pictures.data()});
  }
}

// ---------------------------------------------------------------------------------------------- the document

json modality(const std::string& name, const json& shape, double mean, double std) {
  return {{"name", name}, {"shape", shape}, {"mean", mean}, {"std", std},
          {"files", {{"train", name + "/train_data.npy"}, {"test", name + "/test_data.npy"}}}};
}

json make_document(const Mnist& mnist, const json& parameters) {
  json document{{"format", "fusiond-dataset-1"}, {"name", "avmnist"}, {"classes", 10}, {"parameters", parameters}};
  for (int digit = 0; digit < 10; ++digit) document["class_names"].push_back(std::to_string(digit));
  // Sound: 0 to 255 becomes -1 to 1. Images are centred already (the mean image is not added back): only scaled.
  document["modalities"] = {modality("audio", {1, kSpectrogramSize, kSpectrogramSize}, 127.5, 127.5),
                            modality("image", {1, 28, 28}, 0, 255)};
  document["modalities"][0]["time_axis"] = -1;  // a spectrogram's columns
  document["labels"] = {{"train", "train_labels.npy"}, {"test", "test_labels.npy"}};
  const auto rows = [](const char* of, std::int64_t begin, std::int64_t end) {
    return json{{"of", of}, {"begin", begin}, {"end", end}};
  };
  document["splits"] = {{"train", rows("train", 0, mnist.dev_begin)},
                        {"dev", rows("train", mnist.dev_begin, mnist.train.rows())},
                        {"test", rows("test", 0, mnist.test.rows())}};
  return document;
}

void write_labels(const MnistPart& part, const std::filesystem::path& file) {
  write_npy(file, {DType::u8, {part.rows()}, part.labels.data()});
}

AvmnistOutcome outcome_of(const json& document, bool up_to_date) {
  const auto rows = [&](const char* split) {
    const json& range = document.at("splits").at(split);
    return range.at("end").get<std::int64_t>() - range.at("begin").get<std::int64_t>();
  };
  return {up_to_date, document.at("digest"), rows("train"), rows("dev"), rows("test")};
}

Mnist read_both(const Settings& settings) {
  Mnist mnist{read_mnist(settings.asked.mnist, "train", settings.asked.limit),
              read_mnist(settings.asked.mnist, "t10k", settings.asked.limit)};
  if (mnist.train.rows() < 24 || mnist.test.rows() < 2) {
    throw DataError(settings.asked.mnist.string() + ": holds too few images (" + std::to_string(mnist.train.rows()) + " and " +
                    std::to_string(mnist.test.rows()) + ")");
  }
  mnist.dev_begin = mnist.train.rows() - mnist.train.rows() / 12;
  return mnist;
}

AvmnistOutcome build(const Settings& settings) {
  const Sources sources = list_sources(settings);
  json parameters = describe(settings, sources);
  if (const auto present = present_dataset(settings.out, parameters)) return outcome_of(*present, true);
  // Everything is read before anything is written.
  const Mnist mnist = read_both(settings);
  const std::map<AvmnistPart, MixturePool> pools = load_pools(settings, sources);
  Staging staging(settings.out);
  parameters["measured"] = settings.careful ? write_careful_images(settings, mnist, staging.path())
                                            : write_reference_images(settings, mnist, staging.path());
  write_sounds(settings, mnist, pools, staging.path());
  write_labels(mnist.train, staging.path() / "train_labels.npy");
  write_labels(mnist.test, staging.path() / "test_labels.npy");

  json document = make_document(mnist, parameters);
  std::vector<std::string> files{"audio/train_data.npy", "audio/test_data.npy", "image/train_data.npy",
                                 "image/test_data.npy", "train_labels.npy", "test_labels.npy"};
  for (const std::string& file : files) document["sha256"][file] = sha256_of_file(staging.path() / file);
  document["digest"] = digest_of(document);
  nlohmann::ordered_json readable;
  for (const char* key : {"format", "name", "classes", "class_names", "parameters", "modalities", "labels", "splits", "sha256",
                          "digest"}) {
    readable[key] = document.at(key);
  }
  write_atomically(staging.path() / "dataset.json", readable.dump(2) + "\n");
  files.push_back("dataset.json");
  staging.publish(files);
  return outcome_of(document, false);
}

}  // namespace

AvmnistOutcome build_avmnist(const AvmnistOptions& options) {
  const Settings settings = settle(options);
  try {
    return build(settings);
  } catch (const std::filesystem::filesystem_error& error) {
    throw DataError(error.path1().string() + ": " + error.code().message());
  }
}

}  // namespace fusion
