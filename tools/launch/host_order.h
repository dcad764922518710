// What `sluice launch` tells the supervisor of a host, on its standard input: lines of JSON, first a job, then signals.
// The token goes this way, since command lines can be read by everyone on a host. Pure.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "tools/launch/host_job.h"

namespace sluice::tools {

struct HostOrder {
  HostJob job;
  std::string directory;  // where the processes run
  std::string job_file;   // must be there
  // How to choose the address if process 0 is here (AddressForOthers); no peer: nobody else needs to reach it.
  std::string interface;
  std::string peer;
};

// A line, with its end.
std::string ToLine(const HostOrder& order);
std::string SignalLine(int signal);

// INVALID_ARGUMENT: it is no order, or of another version of the program.
absl::StatusOr<HostOrder> ParseOrder(absl::string_view line);
// 0: it is no signal.
int ParseSignal(absl::string_view line);

// What the supervisor of process 0's host says on standard error when process 0 listens.
struct Listening {
  std::string address;
  int port = 0;
};
std::string ToLine(const Listening& listening);
// False: it is another line.
bool ParseListening(absl::string_view line, Listening* listening);

}  // namespace sluice::tools
