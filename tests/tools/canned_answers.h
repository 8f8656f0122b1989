#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace fusion::testing {

/// Records as docs/protocol.md has them, each with a member that no client knows.
inline nlohmann::json canned_study(const std::string& state = "running", int completed = 33) {
  return nlohmann::json::parse(R"({
    "id": 7, "name": "toy-mfas", "state": ")" + state + R"(", "error": "", "priority": 2, "seed": 18446744073709551615,
    "strategy": "mfas", "dataset": "/data/toy/features/features.json", "dataset_digest": "0123456789abcdef0123",
    "created_ms": 1700000000000, "updated_ms": 1700000060000, "new_member": {"a": [1]},
    "trials": {"asked": 40, "queued": 5, "leased": 2, "completed": )" + std::to_string(completed) + R"(, "failed": 1,
               "cancelled": 0, "total": 195},
    "best": {"trial": 17, "architecture": [[3, 2, 0], [0, 1, 1, "glu"]], "dev_score": 0.91},
    "spec": {}, "trials_per_min": 12.34, "eta_s": 790,
    "last_fit": {"fit_index": 3, "surrogate": "lstm", "observations": 33, "loss": 0.00123, "rank_correlation": 0.81,
                 "mean_abs_error": 0.02, "seconds": 0.4, "details": {}, "at_ms": 1700000050000},
    "dataset_spec": {"name": "toy", "digest": "0123456789abcdef0123", "classes": 4, "class_names": [],
      "modalities": [
        {"name": "audio", "has_logits": false, "taps": [{"name": "a0", "width": 4}, {"name": "a1", "width": 4},
                                                        {"name": "a2", "width": 4}, {"name": "a3", "width": 4}]},
        {"name": "image", "has_logits": false, "taps": [{"name": "i0", "width": 4}, {"name": "i1", "width": 4},
                                                        {"name": "i2", "width": 4}]}],
      "rows": {"train": 100, "dev": 20, "test": 20}}
  })");
}

inline nlohmann::json canned_trial() {
  return nlohmann::json::parse(R"({
    "id": 17, "study": 7, "ask_index": 16, "told_index": 15, "architecture": [[3, 2, 0], [0, 1, 1, "glu"]], "steps": 2,
    "seed": 4711, "replica": 0, "state": "completed", "attempts": 2, "failures": 1, "dev_score": 0.91, "test_score": null,
    "best_epoch": 2, "train_loss": 0.2345678, "dev_accuracy": 0.91, "dev_weighted_f1": 0.9, "dev_macro_f1": 0.89,
    "train_s": 1.25, "parameters": 12345, "error": "", "facts": "{\"level\":1}", "created_ms": 1700000000000,
    "ended_ms": 1700000005000, "new_member": 1})");
}

inline nlohmann::json canned_full_trial() {
  nlohmann::json trial = canned_trial();
  trial["attempt_log"] = nlohmann::json::parse(R"([
    {"attempt": 1, "worker": 3, "worker_name": "gpu01-0", "outcome": "oom", "error": "CUDA out of memory.\nTried 2 GiB.",
     "engine": "autograd", "device": "cuda:0", "code_version": "0.1.0", "torch_version": "2.4.0",
     "started_ms": 1700000000000, "ended_ms": 1700000000500},
    {"attempt": 2, "worker": 4, "worker_name": "gpu01-1", "outcome": "completed", "error": "", "engine": "autograd",
     "device": "cpu", "code_version": "0.1.0", "torch_version": "1.13.0", "started_ms": 1700000001000,
     "ended_ms": 1700000003000}])");
  trial["epochs"] = nlohmann::json::parse(R"([
    {"attempt": 2, "epoch": 1, "train_loss": 1.5, "dev_score": 0.5, "learning_rate": 0.001, "seconds": 0.4},
    {"attempt": 2, "epoch": 2, "train_loss": 0.8, "dev_score": 0.91, "learning_rate": 0.0005, "seconds": 0.4},
    {"attempt": 2, "epoch": 3, "train_loss": 0.2345678, "dev_score": 0.75, "learning_rate": 0.000001, "seconds": 0.4}])");
  return trial;
}

}  // namespace fusion::testing
