#include "tools/launch/host_job.h"

#include <sys/random.h>

#include <array>
#include <cerrno>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace sluice::tools {
namespace {

// Empty variables aren't set; they cover those of a launcher around this one.
std::vector<std::string> Environment(const HostJob& job, int process, int port) {
  const bool chooses_port = port == 0;
  return {absl::StrCat("RANK=", process),
          absl::StrCat("WORLD_SIZE=", job.processes),
          absl::StrCat("LOCAL_RANK=", process - job.first),
          absl::StrCat("LOCAL_WORLD_SIZE=", job.count),
          absl::StrCat("MASTER_ADDR=", job.address),
          absl::StrCat("MASTER_PORT=", port),
          absl::StrCat("SLUICE_TOKEN=", job.token),
          chooses_port ? absl::StrCat("SLUICE_PORT_FD=", kMoreFile) : "SLUICE_PORT_FD=",
          "TORCHELASTIC_RUN_ID=",
          "TORCHELASTIC_USE_AGENT_STORE="};
}

SupervisedChild ProcessOf(const HostJob& job, int process, int port) {
  return {.start = {.command = job.command,
                    .environment = Environment(job, process, port),
                    .shares_output = process == 0,
                    .says_more = port == 0},
          .name = absl::StrCat("process ", process),
          .prefix = absl::StrCat("[", process, "] ")};
}

}  // namespace

absl::StatusOr<SupervisionResult> RunOnHost(const World* world, const HostJob& job, HostJobOptions options) {
  Supervisor* supervisor = nullptr;
  const auto start_all_from = [&](int process, int port) {
    for (; process < job.first + job.count; ++process) supervisor->Start(ProcessOf(job, process, port));
  };
  bool is_told = false;
  options.supervisor.on_more = [&](size_t, absl::string_view line) {
    int port = 0;
    if (is_told || !absl::SimpleAtoi(line, &port) || port < 1 || port > 65535) return;
    is_told = true;
    if (options.on_listening) options.on_listening(supervisor, port);
    start_all_from(1, port);
  };
  options.supervisor.on_order = [&](absl::string_view line) { options.on_order(supervisor, line); };
  ASSIGN_OR_RETURN(const auto owner, Supervisor::Create(world, options.supervisor));
  supervisor = owner.get();
  if (job.port != 0) {
    start_all_from(job.first, job.port);
  } else {
    supervisor->Start(ProcessOf(job, 0, 0));
  }
  return supervisor->Run();
}

absl::StatusOr<std::string> MakeToken() {
  std::array<char, 16> bytes;
  if (getrandom(bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size())) {
    return absl::ErrnoToStatus(errno, "no random bytes for the job's token");
  }
  return absl::BytesToHexString(absl::string_view(bytes.data(), bytes.size()));
}

}  // namespace sluice::tools
