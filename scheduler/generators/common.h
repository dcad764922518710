// What the generators share.
#pragma once

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "scheduler/generators.h"
#include "scheduler/schedule.h"

namespace sluice {

// A training schedule without actions yet.
inline Schedule EmptySchedule(std::string name, Placement placement, int micro_batches) {
  Schedule schedule{.name = std::move(name), .micro_batches = micro_batches, .placement = std::move(placement)};
  schedule.ranks.resize(schedule.placement.ranks());
  return schedule;
}

inline std::string HowToSetChunks(int chunks) {
  return absl::StrCat("set layout { chunks: ", chunks, " } in a job, --chunks ", chunks, " on the command line");
}

// The numbers that every generator needs, and v = `chunks` (or left at 1) for those that fix it; 0: any v.
inline absl::Status CheckParams(absl::string_view name, const GeneratorParams& params, int chunks) {
  if (params.ranks < 1 || params.micro_batches < 1 || params.chunks < 1) {
    return absl::InvalidArgumentError(absl::StrCat(name,
                                                   " needs at least one rank, one micro-batch and one chunk, not ",
                                                   params.ranks, ", ", params.micro_batches, " and ", params.chunks));
  }
  if (chunks != 0 && params.chunks != 1 && params.chunks != chunks) {
    return absl::InvalidArgumentError(absl::StrCat(name, " has ", chunks, chunks == 1 ? " stage" : " stages",
                                                   " per rank, not ", params.chunks, ": ", HowToSetChunks(chunks)));
  }
  return absl::OkStatus();
}

// GeneratorParams::in_flight_cap of those that follow it.
inline absl::Status CheckCap(absl::string_view name, const GeneratorParams& params) {
  if (params.in_flight_cap == 0 || params.in_flight_cap >= 1) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(name, " needs a cap of at least one micro-batch in flight, not ",
                                                 params.in_flight_cap, "; 0 is p of them, as 1f1b holds"));
}

// GeneratorParams::in_flight_cap, or what it is when left out; never more than there are micro-batches.
inline double InFlightCap(const GeneratorParams& params) {
  const double cap = params.in_flight_cap > 0 ? params.in_flight_cap : params.ranks;
  return std::min<double>(cap, params.micro_batches);
}

// The shape of the 1F1B family: forwards 0 ... warm_up-1, then one forward and one backward in turn, then the backwards
// that are left. forward(k) and backward(k) emit the rank's k-th of `total`.
template <class ForwardStep, class BackwardStep>
void OneForwardOneBackward(int warm_up, int total, ForwardStep forward, BackwardStep backward) {
  for (int k = 0; k < warm_up; ++k) forward(k);
  for (int k = warm_up; k < total; ++k) {
    forward(k);
    backward(k - warm_up);
  }
  for (int k = total - warm_up; k < total; ++k) backward(k);
}

}  // namespace sluice
