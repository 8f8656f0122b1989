#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

/// What Slurm's commands print, read into values. Pure functions: nothing here starts a command.
namespace fusion {

/// What a state of Slurm's means for whoever counts workers.
enum class SlurmPhase {
  coming,   ///< waits in the queue, or is being set up
  running,  ///< alive, also when suspended or not known
  closing,  ///< COMPLETING, PREEMPTED: neither alive nor gone, for a requeued job passes through both before it waits again
  gone,     ///< ended for good
};

/// One line of `squeue -h -r -t all -o kSqueueFormat`: one job, or one element of an array.
struct SlurmJob {
  std::int64_t job = 0;    ///< its own id once it runs; before that, the array's
  std::int64_t array = 0;  ///< the array's id, or its own: with `index` the key that never changes
  std::optional<int> index;
  std::string state;    ///< Slurm's word: "PENDING"
  std::string reason;   ///< Slurm's words: "Resources", "ReqNodeNotAvail, UnavailableNodes:node2"; empty for "None"
  std::string start;    ///< when it began, or is expected to; empty where not known
  std::string node;     ///< empty while it has none
  std::string comment;  ///< empty for "(null)"
  bool operator==(const SlurmJob&) const = default;
};

/// Fields that all versions print alike. Reasons hold spaces and commas, so `|` parts them and the comment, which is free text, comes last.
inline constexpr const char* kSqueueFormat = "%A|%F|%K|%T|%r|%S|%N|%k";

/// Every line of the table. Throws DataError that names the first line which is not of that form.
std::vector<SlurmJob> parse_squeue(std::string_view text);

/// A state that is not known counts as running: nothing is replaced on the strength of a word that nobody understands.
SlurmPhase phase_of(std::string_view state);

/// The id that `sbatch --parsable` printed: "12", or "12;cluster" on a site of several. None where it printed something else.
std::optional<std::int64_t> parse_submitted(std::string_view text);

/// What became of an sbatch that did not end well.
enum class SubmitFailure {
  refused,  ///< Slurm said no: nothing was submitted, and the same request will hardly do better
  unclear,  ///< the controller may have taken it (a time-out, an answer that was lost): look for the job before the next try
};
/// Of what it wrote on standard error. Only sbatch's own "Batch job submission failed: <reason>" is a refusal, and its complaints of the
/// command line; with a reason that speaks of the connection it is none. All else is unclear.
SubmitFailure classify_submit_failure(std::string_view error_text);

/// A reason to wait that will not pass by itself: somebody held the job, or it asks for what the partition never has.
bool waits_in_vain(std::string_view reason);

/// Slurm's own words of standard error for people: its last line, without "sbatch: error: ". Empty if it wrote nothing.
std::string slurm_words(std::string_view error_text);

}  // namespace fusion
