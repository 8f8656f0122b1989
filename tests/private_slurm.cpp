#include "tests/private_slurm.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <fstream>
#include <random>
#include <sstream>
#include <thread>

#include "base/files.h"

namespace fusion::testing {

namespace fs = std::filesystem;
using namespace std::chrono_literals;

namespace {

constexpr int kNodes = 2, kGpus = 2;

bool is_free(int port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const bool free = ::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  ::close(fd);
  return free;
}

/// The first of a controller's port and the nodes', all free, below those that the kernel gives out.
int free_ports() {
  std::random_device random;
  while (true) {
    const int first = 20'000 + static_cast<int>(random() % 1'000) * 10;
    int port = first;
    while (port <= first + kNodes && is_free(port)) ++port;
    if (port > first + kNodes) return first;
  }
}

std::string text_of(const fs::path& file) {
  std::ifstream stream(file, std::ios::binary);
  std::ostringstream text;
  text << stream.rdbuf();
  return std::move(text).str();
}

/// The program's name and the parent, of /proc/PID/stat.
std::pair<std::string, pid_t> name_and_parent(pid_t pid) {
  const std::string stat = text_of("/proc/" + std::to_string(pid) + "/stat");
  const std::size_t open = stat.find('('), close = stat.rfind(')');
  if (open == std::string::npos || close == std::string::npos) return {"", 0};
  std::istringstream rest(stat.substr(close + 1));
  char state = 0;
  pid_t parent = 0;
  rest >> state >> parent;
  return {stat.substr(open + 1, close - open - 1), parent};
}

}  // namespace

std::string PrivateSlurm::missing() {
  if (::geteuid() != 0) return "a private Slurm needs root";
  for (const char* program : {"/usr/sbin/munged", "/usr/sbin/slurmctld", "/usr/sbin/slurmd", "/usr/bin/sbatch", "/usr/bin/unshare", "/usr/bin/setpriv"}) {
    if (!fs::exists(program)) return std::string(program) + " is not there (apt-get install slurm-wlm munge)";
  }
  const TemporaryFolder folder;
  if (run({"/usr/bin/unshare", "--uts", "--", "/bin/hostname", "localhost"}, {folder.path(), {}}).status != 0) {
    return "a private Slurm needs a UTS namespace of its own, which this machine does not allow";
  }
  if (::mknod((folder / "null").c_str(), S_IFCHR | 0600, ::makedev(1, 3)) != 0) return "a private Slurm needs device nodes, which this machine does not allow";
  return "";
}

PrivateSlurm::PrivateSlurm() {
  ::chmod(folder_.path().c_str(), 0755);
  for (const char* name : {"state", "spool", "log", "dev", "munge"}) fs::create_directories(folder_ / name);
  write_configuration();
  start("munged", {"/usr/sbin/munged", "--foreground", "--force", "--key-file=" + (folder_ / "munge/key").string(),
                   "--socket=" + (folder_ / "munge/socket").string(), "--pid-file=" + (folder_ / "munge/pid").string(),
                   "--seed-file=" + (folder_ / "munge/seed").string(), "--log-file=" + (folder_ / "log/munged").string()});
  for (int i = 0; i < 600 && !fs::exists(folder_ / "munge/socket"); ++i) std::this_thread::sleep_for(50ms);
  run_controller(true);
  for (int n = 1; n <= kNodes; ++n) start_node("node" + std::to_string(n));
  EXPECT_TRUE(wait_until_idle()) << text_of(folder_ / "log/slurmctld");
}

PrivateSlurm::~PrivateSlurm() {
  // Keepers first: they would start nothing, but tell a controller that is about to go.
  for (int i = 0; i < 5; ++i) {
    const std::vector<pid_t> left = job_processes("");
    if (left.empty()) break;
    for (const pid_t pid : left) ::kill(pid, SIGKILL);
    std::this_thread::sleep_for(50ms);
  }
  for (auto& [name, process] : daemons_) process->signal(SIGKILL);
}

void PrivateSlurm::write_configuration() {
  const int port = free_ports();
  const std::string at = folder_.path().string();
  std::ofstream key(folder_ / "munge/key", std::ios::binary);
  std::random_device random;
  for (int i = 0; i < 128; ++i) key.put(static_cast<char>(random()));
  key.close();
  ::chmod((folder_ / "munge/key").c_str(), 0400);
  for (int i = 0; i < kGpus; ++i) ::mknod((folder_ / ("dev/fakegpu" + std::to_string(i))).c_str(), S_IFCHR | 0666, ::makedev(1, 3));
  write_atomically(folder_ / "gres.conf", "NodeName=node[1-2] Name=gpu Type=fake File=" + at + "/dev/fakegpu[0-1]\n");
  write_atomically(folder_ / "cgroup.conf", "CgroupAutomount=no\n");
  std::string ports = std::to_string(port + 1) + "-" + std::to_string(port + kNodes);
  write_atomically(conf(), "ClusterName=test\nSlurmctldHost=localhost(127.0.0.1)\nSlurmctldPort=" + std::to_string(port) +
                               "\nSlurmUser=root\nSlurmdUser=root\nAuthType=auth/munge\nCredType=cred/munge\nAuthInfo=socket=" + at +
                               "/munge/socket,cred_expire=5\nCommunicationParameters=NoInAddrAny,NoCtldInAddrAny\nSlurmctldPidFile=" + at +
                               "/slurmctld.pid\nSlurmdPidFile=" + at + "/slurmd.%n.pid\nSlurmdSpoolDir=" + at + "/spool/%n\nStateSaveLocation=" + at +
                               "/state\nSlurmctldLogFile=" + at + "/log/slurmctld\nSlurmdLogFile=" + at + "/log/slurmd.%n\n" +
                               "ProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\nJobAcctGatherType=jobacct_gather/none\n"
                               "AccountingStorageType=accounting_storage/none\nSwitchType=switch/none\nMailProg=/bin/true\nMpiDefault=none\n"
                               "ReturnToService=2\nSlurmctldTimeout=30\nSlurmdTimeout=10\nInactiveLimit=0\nKillWait=3\nMinJobAge=300\nWaittime=0\n"
                               "SchedulerType=sched/backfill\nSchedulerParameters=sched_min_interval=10000,batch_sched_delay=0,bf_interval=3\n"
                               "SelectType=select/cons_tres\nSelectTypeParameters=CR_Core_Memory\nDefMemPerCPU=500\nPreemptType=preempt/partition_prio\n"
                               "PreemptMode=REQUEUE\nJobRequeue=1\nSlurmdParameters=config_overrides\nGresTypes=gpu\n"
                               "NodeName=node[1-2] NodeHostname=localhost NodeAddr=127.0.0.1 Port=[" + ports + "] CPUs=4 RealMemory=4000 Gres=gpu:fake:2\n"
                               "PartitionName=low Nodes=ALL Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=3 MaxTime=INFINITE\n"
                               "PartitionName=high Nodes=ALL PriorityTier=10 PreemptMode=OFF MaxTime=INFINITE\n"
                               "PartitionName=nopre Nodes=ALL PriorityTier=1 PreemptMode=OFF MaxTime=INFINITE\n"
                               "PartitionName=closed Nodes=ALL AllocNodes=elsewhere\n"
                               "SlurmctldParameters=preempt_send_user_signal\n");
}

// In a UTS namespace whose host name is loopback, because Slurm binds what the host name resolves to; and ended by the kernel should the test be.
void PrivateSlurm::start(const std::string& name, std::vector<std::string> command) {
  std::vector<std::string> whole{"/usr/bin/setpriv", "--pdeathsig", "KILL", "/usr/bin/unshare", "--uts", "--", "/bin/sh", "-c",
                                 "hostname localhost && exec \"$@\"", "sh"};
  whole.insert(whole.end(), command.begin(), command.end());
  daemons_[name] = std::make_unique<Process>(whole, Process::Options{folder_ / "log", environment()});
}

void PrivateSlurm::run_controller(bool fresh) {
  std::vector<std::string> command{"/usr/sbin/slurmctld", "-D", "-f", conf().string()};
  if (fresh) command.push_back("-c");
  start("slurmctld", command);
}

void PrivateSlurm::stop_controller() {
  daemons_.at("slurmctld")->signal(SIGTERM);
  daemons_.at("slurmctld")->wait(60s);
}

void PrivateSlurm::start_node(const std::string& node) { start(node, {"/usr/sbin/slurmd", "-D", "-N", node, "-f", conf().string()}); }

void PrivateSlurm::kill_node(const std::string& node) {
  daemons_.at(node)->signal(SIGKILL);
  for (const pid_t pid : job_processes(node)) ::kill(pid, SIGKILL);
}

bool PrivateSlurm::wait_until_idle() const {
  const auto end = std::chrono::steady_clock::now() + 120s;
  while (std::chrono::steady_clock::now() < end) {
    const Finished told = run({"/usr/bin/sinfo", "-h", "-N", "-p", "low", "-t", "idle", "-o", "%N"}, {folder_.path(), environment()});
    if (told.status == 0 && told.out == "node1\nnode2\n") return true;
    std::this_thread::sleep_for(100ms);
  }
  return false;
}

std::string PrivateSlurm::ask(const std::vector<std::string>& command) const {
  std::vector<std::string> whole = command;
  whole[0] = "/usr/bin/" + whole[0];
  const Finished told = run(whole, {folder_.path(), environment()});
  EXPECT_EQ(told.status, 0) << command[0] << ": " << told.err;
  return told.out;
}

std::vector<std::string> PrivateSlurm::jobs(const std::string& states, const std::string& format) const {
  std::istringstream lines(ask({"squeue", "-h", "-r", "-t", states, "-o", format}));
  std::vector<std::string> list;
  for (std::string line; std::getline(lines, line);) list.push_back(line);
  return list;
}

std::vector<pid_t> PrivateSlurm::job_processes(const std::string& node) const {
  std::vector<pid_t> keepers, jobs;
  const std::string mine = std::string("SLURM_CONF=") + conf().string() + '\0';
  for (const auto& entry : fs::directory_iterator("/proc")) {
    const std::string name = entry.path().filename().string();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    const std::string environment = text_of(entry.path() / "environ") + '\0';
    if (environment.find(mine) == std::string::npos || environment.find("SLURM_JOB_ID=") == std::string::npos) continue;
    if (!node.empty() && environment.find("SLURMD_NODENAME=" + node + '\0') == std::string::npos) continue;
    const pid_t pid = std::stoi(name);
    jobs.push_back(pid);
    const auto [program, parent] = name_and_parent(pid);
    const auto [keeper, ignored] = name_and_parent(parent);
    if (keeper == "slurmstepd") keepers.push_back(parent);
  }
  keepers.insert(keepers.end(), jobs.begin(), jobs.end());
  return keepers;
}

}  // namespace fusion::testing
