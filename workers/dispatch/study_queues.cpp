#include "workers/dispatch/study_queues.h"

#include <algorithm>

namespace fusion {

void StudyQueues::put(DispatchStudy study) {
  const StudyId id = study.id;
  queues_[id].study = std::move(study);
}

void StudyQueues::set_paused(StudyId study, bool paused) {
  if (const auto found = queues_.find(study); found != queues_.end()) found->second.study.paused = paused;
}

void StudyQueues::remove(StudyId study) { queues_.erase(study); }

const DispatchStudy* StudyQueues::find(StudyId study) const {
  const auto found = queues_.find(study);
  return found == queues_.end() ? nullptr : &found->second.study;
}

void StudyQueues::push(StudyId study, TrialId trial) {
  if (const auto found = queues_.find(study); found != queues_.end()) found->second.fresh.push_back(trial);
}

void StudyQueues::push_again(StudyId study, TrialId trial, std::int64_t ask_index) {
  if (const auto found = queues_.find(study); found != queues_.end()) found->second.again.emplace(ask_index, trial);
}

void StudyQueues::push_alone(StudyId study, TrialId trial, std::int64_t ask_index) {
  if (const auto found = queues_.find(study); found != queues_.end()) found->second.alone.emplace(ask_index, trial);
}

void StudyQueues::hold_back(StudyId study, TrialId trial, std::int64_t ask_index, SteadyTime until, bool alone) {
  const auto found = queues_.find(study);
  if (found != queues_.end()) found->second.aside.emplace(trial, Queue::Aside{ask_index, until, alone});
}

bool StudyQueues::erase(StudyId study, TrialId trial) {
  const auto found = queues_.find(study);
  if (found == queues_.end()) return false;
  Queue& queue = found->second;
  if (queue.aside.erase(trial) > 0) return true;
  const auto is_it = [&](const Place& place) { return place.second == trial; };
  if (std::erase_if(queue.again, is_it) + std::erase_if(queue.alone, is_it) > 0) return true;
  return std::erase(queue.fresh, trial) > 0;
}

bool StudyQueues::admit(SteadyTime now) {
  bool any = false;
  for (auto& [id, queue] : queues_) {
    for (auto at = queue.aside.begin(); at != queue.aside.end();) {
      const auto here = at++;
      if (here->second.until > now) continue;
      (here->second.alone ? queue.alone : queue.again).emplace(here->second.ask_index, here->first);
      queue.aside.erase(here);
      any = true;
    }
  }
  return any;
}

template <typename Wanted>
const StudyQueues::Queue* StudyQueues::first(Wanted wanted) const {
  const Queue* best = nullptr;
  for (const auto& [id, queue] : queues_) {
    if (queue.study.paused || !wanted(queue)) continue;
    const auto rank = [](const Queue& q) { return std::pair(-static_cast<std::int64_t>(q.study.priority), q.served); };
    if (best == nullptr || rank(queue) < rank(*best)) best = &queue;
  }
  return best;
}

std::optional<StudyId> StudyQueues::next(const std::set<StudyId>& passed_over) const {
  const Queue* best = first([&](const Queue& queue) {
    return (!queue.again.empty() || !queue.fresh.empty()) && !passed_over.contains(queue.study.id);
  });
  if (best == nullptr) return std::nullopt;
  return best->study.id;
}

std::optional<StudyId> StudyQueues::next_alone(const std::set<StudyId>& passed_over) const {
  const Queue* best = first([&](const Queue& queue) { return !queue.alone.empty() && !passed_over.contains(queue.study.id); });
  if (best == nullptr) return std::nullopt;
  const std::optional<StudyId> other = next();
  if (other && find(*other)->priority > best->study.priority) return std::nullopt;
  return best->study.id;
}

std::optional<TrialId> StudyQueues::take_alone(StudyId study) {
  const auto found = queues_.find(study);
  if (found == queues_.end() || found->second.alone.empty()) return std::nullopt;
  const TrialId trial = found->second.alone.begin()->second;
  found->second.alone.erase(found->second.alone.begin());
  return trial;
}

bool StudyQueues::any_running() const {
  return std::ranges::any_of(queues_, [](const auto& entry) { return !entry.second.study.paused; });
}

std::vector<StudyId> StudyQueues::studies() const {
  std::vector<StudyId> ids;
  for (const auto& [id, queue] : queues_) ids.push_back(id);
  return ids;
}

std::size_t StudyQueues::ready(StudyId study) const {
  const auto found = queues_.find(study);
  return found == queues_.end() ? 0 : found->second.again.size() + found->second.fresh.size();
}

std::size_t StudyQueues::waiting() const {
  std::size_t count = 0;
  for (const auto& [id, queue] : queues_) {
    if (!queue.study.paused) count += waiting(id);
  }
  return count;
}

std::size_t StudyQueues::waiting(StudyId study) const {
  const auto found = queues_.find(study);
  return found == queues_.end() ? 0 : ready(study) + found->second.alone.size() + found->second.aside.size();
}

std::vector<TrialId> StudyQueues::take(StudyId study, std::size_t count) {
  std::vector<TrialId> taken;
  const auto found = queues_.find(study);
  if (found == queues_.end()) return taken;
  Queue& queue = found->second;
  while (taken.size() < count && !queue.again.empty()) {
    taken.push_back(queue.again.begin()->second);
    queue.again.erase(queue.again.begin());
  }
  while (taken.size() < count && !queue.fresh.empty()) {
    taken.push_back(queue.fresh.front());
    queue.fresh.pop_front();
  }
  queue.served = ++turn_;
  return taken;
}

}  // namespace fusion
