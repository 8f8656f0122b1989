#include "tools/metrics.h"

#include <algorithm>
#include <filesystem>

#include "base/metrics.h"
#include "base/version.h"
#include "tools/process_figures.h"

namespace fusion {

namespace {

template <typename Number>
double as_double(Number number) {
  return static_cast<double>(number);
}
double as_double(const Counter& counter) { return static_cast<double>(counter.value()); }

/// 0 where there is none.
double file_bytes(const std::string& path) {
  std::error_code missing;
  const auto bytes = std::filesystem::file_size(path, missing);
  return missing ? 0 : as_double(bytes);
}

void write_trials(MetricsText& out, const DispatchLoad& load, const DispatchFigures& figures) {
  DispatchLoad::Trials all;
  for (const auto& [study, trials] : load.studies) {
    all.queued += trials.queued;
    all.leased += trials.leased;
  }
  out.gauge("fusion_trials", "Trials of studies that are not over, by state.");
  out.value(as_double(all.queued), {{"state", "queued"}}).value(as_double(all.leased), {{"state", "leased"}});
  out.gauge("fusion_study_queue_length", "Trials of one study that wait for a worker.");
  for (const auto& [study, trials] : load.studies) out.value(as_double(trials.queued), {{"study", to_string(study)}});
  out.gauge("fusion_studies", "Studies that run or are paused.").value(as_double(load.studies.size()));
  out.counter("fusion_trials_ended_total", "Trials that a worker brought to a final state.");
  for (const TrialState state : {TrialState::completed, TrialState::failed, TrialState::cancelled}) {
    out.value(as_double(figures.ended[static_cast<std::size_t>(state)]), {{"state", std::string(name_of(state))}});
  }
  out.counter("fusion_attempts_started_total", "Attempts at trials that were leased to a worker.").value(as_double(figures.granted));
  out.counter("fusion_attempts_ended_total", "Attempts at trials that ended, by outcome.");
  for (const auto& [outcome, name] : EnumNames<Outcome>::kTable) {
    out.value(as_double(figures.outcomes[static_cast<std::size_t>(outcome)]), {{"outcome", std::string(name)}});
  }
  out.counter("fusion_epochs_total", "Epoch reports that were stored.").value(as_double(figures.epochs));
  out.counter("fusion_results_dropped_total", "Results that came too late or from a worker that did not hold the trial.").value(as_double(figures.dropped));
}

void write_workers(MetricsText& out, const DispatchLoad& load, const DispatchFigures& figures) {
  out.gauge("fusion_leases", "Trials that workers hold, also those that are over but still fill a slot.").value(as_double(load.leases));
  out.gauge("fusion_workers", "Workers that are connected.").value(as_double(load.workers));
  out.gauge("fusion_worker_slots", "Trials that connected workers want to hold in all.").value(as_double(load.slots));
  out.gauge("fusion_worker_slots_free", "Of these, slots that could be given a trial now.").value(as_double(load.free_slots));
  out.gauge("fusion_retrainings", "Retrainings that are not over, by state; paused ones count as waiting.");
  out.value(as_double(load.retrainings_waiting), {{"state", "waiting"}}).value(as_double(load.retrainings_leased), {{"state", "leased"}});
  out.histogram("fusion_dispatch_seconds", "From when a free slot was found for trials until their pack was sent, their lease being on disk.",
                figures.grant);
}

void write_store(MetricsText& out, const StoreFigures& store, const std::string& database) {
  const double answered = as_double(store.answered), posted = as_double(store.posted);
  out.histogram("fusion_store_commit_seconds", "Commit of one group of changes: mostly its sync to disk.", store.commit);
  out.histogram("fusion_store_wait_seconds", "From when a change was handed to the store thread until it was on disk.", store.on_disk);
  out.gauge("fusion_store_queue_length", "Changes that wait for the store thread, or are at work there.").value(std::max(0.0, posted - answered));
  out.counter("fusion_store_failures_total", "Changes that could not be stored.").value(as_double(store.failed));
  out.gauge("fusion_database_bytes", "Size of the database's files.");
  out.value(file_bytes(database), {{"file", "database"}}).value(file_bytes(database + "-wal"), {{"file", "wal"}});
}

void write_serving(MetricsText& out, const ServerCounts& server, const ReaderFigures& readers) {
  out.counter("fusion_http_requests_total", "Answers by route and status; route other: refused before, or unknown to, the API.");
  for (const auto& [kind, count] : server.requests) out.value(as_double(count), {{"route", kind.first}, {"code", std::to_string(kind.second)}});
  out.counter("fusion_requests_refused_total", "Requests that were answered 401 (not known) or 403 (not for this role).");
  out.value(as_double(server.unauthorized), {{"reason", "unauthorized"}}).value(as_double(server.forbidden), {{"reason", "forbidden"}});
  out.gauge("fusion_connections", "Connections that are open, those of workers too.").value(as_double(server.connections));
  out.gauge("fusion_worker_sessions", "WebSocket sessions of workers that are open.").value(as_double(server.sessions));
  out.counter("fusion_connections_refused_total", "Connections that were not served, or given up for others, because there were too many.");
  out.value(as_double(server.not_accepted + server.evicted));
  out.gauge("fusion_reader_queue_length", "Queries that wait for a reader thread, or run on one.").value(std::max(0.0, as_double(readers.asked) - as_double(readers.answered)));
  out.gauge("fusion_reader_threads", "Reader threads.").value(as_double(readers.threads));
  out.counter("fusion_reader_failures_total", "Queries that failed: wrong SQL, a deadline that passed.").value(as_double(readers.failed));
  out.histogram("fusion_reader_seconds", "Queries, from when they were asked until they were answered.", readers.took);
}

void write_process(MetricsText& out, UnixMs started, bool ready) {
  const ProcessFigures process = ProcessFigures::now();
  out.gauge("fusion_build_info", "Always 1; the labels say what was built.");
  out.value(1, {{"version", kCodeVersion}, {"compiler", __VERSION__}});
  out.gauge("fusion_ready", "1 while the daemon takes work, 0 once it stops or cannot store (as /readyz).").value(ready ? 1 : 0);
  out.gauge("process_start_time_seconds", "When the daemon started, in seconds since 1970.").value(as_double(started) / 1000);
  out.counter("process_cpu_seconds_total", "CPU time of the daemon.").value(process.cpu_s);
  out.gauge("process_resident_memory_bytes", "Memory of the daemon that is resident.").value(as_double(process.resident_bytes));
  out.gauge("process_open_fds", "Descriptors that the daemon has open.").value(as_double(process.open_files));
  out.gauge("process_max_fds", "Descriptors that it may have open.").value(as_double(process.most_files));
  out.gauge("process_threads", "Threads of the daemon.").value(as_double(process.threads));
}

}  // namespace

std::string metrics_text(const MetricsSources& sources) {
  MetricsText out;
  const DispatchLoad load = sources.dispatcher.load();
  write_trials(out, load, sources.dispatcher.figures());
  write_workers(out, load, sources.dispatcher.figures());
  write_store(out, sources.store, sources.database);
  write_serving(out, sources.server, sources.readers);
  write_process(out, sources.started, sources.ready);
  return out.text();
}

}  // namespace fusion
