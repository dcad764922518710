// Timelines of one or several steps as a file that chrome://tracing, ui.perfetto.dev and this program read: Chrome's
// trace event JSON. One process per rank with tracks for compute, send, receive and collectives, an arrow from each
// send to its receive, and a memory counter. README.md lists the events and their fields.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/trace/trace_step.h"

namespace sluice {

// Writes steps one by one; the file has its name only when Finish() was OK, and before that nothing reads half of it.
// Threads: one.
class ChromeTraceWriter {
 public:
  // Errors: `path` cannot be written, with the remedy.
  static absl::StatusOr<std::unique_ptr<ChromeTraceWriter>> Create(const std::string& path);
  ~ChromeTraceWriter();

  // Errors: INVALID_ARGUMENT if a span or sample names a rank outside the timeline or ends before it begins; what
  // writing met (a full disk). After an error nothing more is written and Finish() returns it.
  absl::Status Add(const TraceStep& step);
  absl::Status Finish();

 private:
  class Impl;
  explicit ChromeTraceWriter(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// All steps at once. Steps whose begin_ns is not after the end of the one before are written where they say all the
// same: overlapping spans get tracks of their own.
absl::Status WriteChromeTrace(const std::string& path, const std::vector<TraceStep>& steps);

// The steps of a file that ChromeTraceWriter wrote, exact to the nanosecond. Spans stand in order of time. Errors:
// NOT_FOUND or PERMISSION_DENIED from the file system; INVALID_ARGUMENT that says whether the file is no JSON, torn
// (where), or not one of ours.
absl::StatusOr<std::vector<TraceStep>> ReadChromeTrace(const std::string& path);

}  // namespace sluice
