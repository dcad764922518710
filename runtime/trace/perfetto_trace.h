// Timelines of one or several steps as a file in Perfetto's own format (protobuf track events), for ui.perfetto.dev and
// its trace processor: what chrome_trace.h writes, in less than half of the bytes. It is not read back.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "runtime/trace/trace_step.h"

namespace sluice {

// One process per rank with a thread for each of its tracks, a flow from each send to its receive, a counter of the
// bytes held, a mark at the begin of each step. A step's events stand in order of time. Errors: as WriteChromeTrace.
absl::Status WritePerfettoTrace(const std::string& path, const std::vector<TraceStep>& steps);

}  // namespace sluice
