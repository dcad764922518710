// What writer and reader of the trace file must agree on.
#pragma once

namespace sluice::trace_format {

inline constexpr int kVersion = 1;
// Category of the mark that opens a step; everything up to the next mark belongs to it.
inline constexpr char kStepCategory[] = "sluice step";
inline constexpr char kMemoryCounter[] = "memory";
inline constexpr char kSimulated[] = "simulated";
inline constexpr char kMeasured[] = "measured";
// Rank r is process r + 1: some viewers take process 0 for the idle process.
inline constexpr int kFirstProcess = 1;

// Names of QueueKind, by value.
inline constexpr const char* kQueueKinds[] = {"compute", "communication", "collective"};

}  // namespace sluice::trace_format
