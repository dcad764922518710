// How processes agree on channels and groups and connect to each other, over blobs that the control plane carries:
//   specs        what each has opened with others; all check what concerns them
//   links/N      the verdict, and for each peer a fresh address and token
//   connected/N  which connections came about; those that did not (somebody else had called the port) are tried again
#pragma once

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/transport/gloo_hub.h"
#include "runtime/transport/gloo_link.h"
#include "runtime/transport/process_specs.h"

namespace sluice::internal {

// The connections of this process, by process; null where nothing is in common. `device` is made if there is any, and
// outlives them. All processes return an error if one does.
absl::StatusOr<std::vector<std::unique_ptr<GlooLink>>> ConnectProcesses(World* world, const GlooHubOptions& options,
                                                                        const Specs& specs,
                                                                        std::unique_ptr<GlooDevice>* device);

}  // namespace sluice::internal
