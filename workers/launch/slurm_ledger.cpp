#include "workers/launch/slurm_ledger.h"

#include <algorithm>

namespace fusion {

namespace {

std::chrono::milliseconds between(SteadyTime from, SteadyTime to) { return std::chrono::duration_cast<std::chrono::milliseconds>(to - from); }

std::string with_reason(const SlurmJob& job) { return job.state + (job.reason.empty() ? "" : " (" + job.reason + ")"); }

}  // namespace

void SlurmLedger::sending(const std::string& launch, int count) {
  Launch& entry = launches_[launch];
  entry.count = count;
}

// What a poll showed of it already stays.
void SlurmLedger::submitted(const std::string& launch, std::int64_t array, SteadyTime now) {
  const auto found = launches_.find(launch);
  if (found == launches_.end()) return;
  for (int index = 0; index < found->second.count; ++index) {
    const auto [at, fresh] = elements_.try_emplace({array, index});
    if (!fresh) continue;
    at->second.launch = launch;
    at->second.since = now;
    at->second.job.job = at->second.job.array = array;
    at->second.job.index = index;
    at->second.job.state = "PENDING";
  }
  launches_.erase(found);
}

void SlurmLedger::unclear(const std::string& launch, SteadyTime now) {
  const auto found = launches_.find(launch);
  if (found == launches_.end()) return;
  if (seen_of(launch) > 0) {  // a poll was faster
    launches_.erase(found);
    return;
  }
  found->second.unclear = true;
  found->second.since = now;
}

std::optional<std::string> SlurmLedger::launch_of(const SlurmJob& job) const {
  if (!job.comment.starts_with(options_.identity)) return std::nullopt;
  return job.comment.substr(options_.identity.size());
}

int SlurmLedger::seen_of(const std::string& launch) const {
  return static_cast<int>(std::ranges::count_if(elements_, [&](const auto& entry) { return entry.second.launch == launch; }));
}

void SlurmLedger::see(Element& element, const SlurmJob& job, SteadyTime now) {
  element.job = job;
  element.phase = phase_of(job.state);
  element.absent = 0;
  element.preempted = job.state == "PREEMPTED" ? element.preempted + 1 : 0;
  if (element.preempted > 1) element.phase = SlurmPhase::gone;  // of a partition that cancels
  if (element.phase == SlurmPhase::running && !element.ran) element.ran = now;
  if (element.phase == SlurmPhase::coming) element.ran.reset();  // requeued
}

SlurmLedger::Ended SlurmLedger::end(const Key& key, const Element& element, const std::string& state, SteadyTime now) const {
  return {name_of(key), state, element.launch, element.leaving, element.joined, element.ran ? between(*element.ran, now) : std::chrono::milliseconds(0)};
}

SlurmLedger::Polled SlurmLedger::take(const std::vector<SlurmJob>& jobs, SteadyTime began, SteadyTime now) {
  Polled polled;
  std::set<Key> shown;
  std::set<std::string> shown_launches;
  for (const SlurmJob& job : jobs) {
    const auto launch = launch_of(job);
    if (!launch || !job.index) continue;
    const Key key{job.array, *job.index};
    shown.insert(key);
    shown_launches.insert(*launch);
    auto found = elements_.find(key);
    if (found == elements_.end()) {
      if (phase_of(job.state) == SlurmPhase::gone) continue;  // told of long ago, or before this daemon's time
      found = elements_.try_emplace(key).first;
      found->second.launch = *launch;
      found->second.since = now;
      if (!launches_.contains(*launch) || launches_.at(*launch).unclear) polled.adopted.push_back(name_of(key));
    }
    see(found->second, job, now);
  }
  for (auto at = elements_.begin(); at != elements_.end();) {
    const auto here = at++;
    Element& element = here->second;
    if (!shown.contains(here->first)) {
      if (began < element.since || ++element.absent < 2 || now - element.since < options_.absent) continue;
      polled.ended.push_back(end(here->first, element, "no longer known to Slurm", now));
    } else if (element.phase == SlurmPhase::gone) {
      polled.ended.push_back(end(here->first, element, element.job.state, now));
    } else {
      continue;
    }
    elements_.erase(here);
  }
  for (auto at = launches_.begin(); at != launches_.end();) {
    const auto here = at++;
    Launch& launch = here->second;
    if (!launch.unclear) continue;
    if (!shown_launches.contains(here->first)) {
      if (began < launch.since || ++launch.absent < 2) continue;
      polled.lost_launches.push_back(here->first);
    }
    launches_.erase(here);
  }
  return polled;
}

bool SlurmLedger::connected(const std::set<std::string>& names) {
  bool first = false;
  for (auto& [key, element] : elements_) {
    element.connected = names.contains(name_of(key));
    if (element.connected && !std::exchange(element.joined, true)) first = true;
  }
  return first;
}

// The youngest: they are furthest from their start.
std::vector<std::string> SlurmLedger::withdraw(int count, SteadyTime now) {
  std::vector<std::string> taken;
  for (auto at = elements_.rbegin(); at != elements_.rend() && static_cast<int>(taken.size()) < count; ++at) {
    Element& element = at->second;
    if (element.leaving || element.phase != SlurmPhase::coming || element.connected) continue;
    element.leaving = true;
    element.leave_by = now;
    taken.push_back(name_of(at->first));
  }
  return taken;
}

void SlurmLedger::retire(const std::string& name, SteadyTime until) {
  for (auto& [key, element] : elements_) {
    if (name_of(key) != name || element.leaving) continue;
    element.leaving = true;
    element.leave_by = until;
  }
}

std::vector<std::string> SlurmLedger::overdue(SteadyTime now, std::chrono::milliseconds again) {
  std::vector<std::string> late;
  for (auto& [key, element] : elements_) {
    if (!element.leaving || element.phase == SlurmPhase::closing || now < element.leave_by) continue;
    element.leave_by = now + again;
    late.push_back(name_of(key));
  }
  return late;
}

std::vector<std::string> SlurmLedger::names() const {
  std::vector<std::string> list;
  for (const auto& [key, element] : elements_) list.push_back(name_of(key));
  return list;
}

int SlurmLedger::size() const {
  int count = static_cast<int>(std::ranges::count_if(elements_, [](const auto& entry) { return entry.second.counts(); }));
  for (const auto& [id, launch] : launches_) count += std::max(0, launch.count - seen_of(id));
  return count;
}

int SlurmLedger::untried() const {
  return static_cast<int>(std::ranges::count_if(elements_, [](const auto& entry) { return entry.second.counts() && !entry.second.joined; }));
}

bool SlurmLedger::changing() const {
  if (!launches_.empty()) return true;
  return std::ranges::any_of(elements_, [](const auto& entry) {
    const Element& e = entry.second;
    return e.leaving || e.phase != SlurmPhase::running || e.absent > 0 || (e.joined && !e.connected);
  });
}

bool SlurmLedger::all_held() const {
  bool any = false;
  for (const auto& [key, element] : elements_) {
    if (element.leaving || element.phase != SlurmPhase::coming) continue;
    if (!waits_in_vain(element.job.reason)) return false;
    any = true;
  }
  return any && launches_.empty();
}

std::vector<LaunchedWorker> SlurmLedger::workers(SteadyTime now) const {
  static constexpr const char* kStates[] = {"waiting", "running", "closing", "closing"};
  std::vector<LaunchedWorker> list;
  for (const auto& [key, element] : elements_) {
    LaunchedWorker worker;
    worker.name = name_of(key);
    worker.state = element.leaving ? "leaving" : kStates[static_cast<int>(element.phase)];
    worker.process = element.job.job;
    worker.starts = element.ran ? 1 : 0;
    worker.detail = with_reason(element.job);
    worker.node = element.job.node;
    worker.since_s = static_cast<double>(between(element.since, now).count()) / 1000;
    list.push_back(std::move(worker));
  }
  for (const auto& [id, launch] : launches_) {
    for (int i = seen_of(id); i < launch.count; ++i) {
      LaunchedWorker worker;
      worker.state = "waiting";
      worker.detail = launch.unclear ? "sbatch gave no clear answer; squeue is asked whether it was submitted" : "is being submitted";
      list.push_back(std::move(worker));
    }
  }
  return list;
}

bool SlurmLedger::is_silent(const Element& element, SteadyTime now) const {
  return !element.leaving && element.ran && !element.joined && now - *element.ran >= options_.connect;
}

std::string SlurmLedger::silent(SteadyTime now) const {
  const auto found = std::ranges::find_if(elements_, [&](const auto& entry) { return is_silent(entry.second, now); });
  return found == elements_.end() ? "" : name_of(found->first);
}

std::string SlurmLedger::complaint(SteadyTime now, const std::string& url) const {
  std::map<std::string, int> waiting;
  std::string silent;
  for (const auto& [key, element] : elements_) {
    if (element.leaving) continue;
    if (element.phase == SlurmPhase::coming && !element.job.reason.empty()) ++waiting[with_reason(element.job)];
    if (silent.empty() && is_silent(element, now)) {
      silent = "job " + name_of(key) + " runs on " + element.job.node + ", and its worker has not come for " +
               std::to_string(between(*element.ran, now).count() / 1000) + " s: can that node reach " + url + "?";
    }
  }
  std::string text;
  for (const auto& [words, count] : waiting) text += (text.empty() ? "" : ", ") + std::to_string(count) + " x " + words;
  if (silent.empty()) return text;
  return text.empty() ? silent : silent + "; " + text;
}

}  // namespace fusion
