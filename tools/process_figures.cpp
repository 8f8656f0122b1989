#include "tools/process_figures.h"

#include <sys/resource.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

namespace fusion {

namespace {

double seconds(const timeval& time) { return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6; }

std::uint64_t entries_of(const char* folder) {
  std::error_code ignored;
  const std::filesystem::directory_iterator begin(folder, ignored);
  return ignored ? 0 : static_cast<std::uint64_t>(std::distance(begin, std::filesystem::directory_iterator()));
}

}  // namespace

ProcessFigures ProcessFigures::now() {
  ProcessFigures figures;
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  figures.cpu_s = seconds(usage.ru_utime) + seconds(usage.ru_stime);
  std::uint64_t pages = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> pages >> resident;
  figures.resident_bytes = resident * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  figures.open_files = entries_of("/proc/self/fd");
  figures.threads = entries_of("/proc/self/task");
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) figures.most_files = limit.rlim_cur;
  return figures;
}

}  // namespace fusion
