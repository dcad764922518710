// NCCL for one rank: its communicators, and what it puts into streams of its GPU with them. For programs that may have
// been built without: nothing here needs NCCL's headers.
//
// Threads: any; calls of NCCL are made one at a time for each rank. Nothing here waits for another rank: joining,
// splitting and closing are started, and Poll() says when they have ended. Errors of what a stream issues end that
// stream, and Poll() tells them as NCCL has them. Written against NCCL 2.28.9.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "base/world.h"
#include "kernels/device.h"

namespace sluice::cuda {

// FAILED_PRECONDITION: this program was built without NCCL.
absl::StatusOr<std::string> NewNcclId();
// "2.28.9".
absl::StatusOr<std::string> NcclVersion();

struct NcclRankOptions {
  std::string id;  // of the world: one process makes it, all have it
  int rank = 0, ranks = 1;
  // Channels, each a multiprocessor, that one operation takes at most; 0: as NCCL decides.
  int channels_max = 0;
};

// A part of what one rank does in a group: `from` alone is sent to the peer, `to` alone received from it, both are a
// copy within the GPU.
struct NcclLeg {
  const std::byte* from = nullptr;
  std::byte* to = nullptr;
  int64_t bytes = 0;  // more than none
  int peer = -1;      // rank in the communicator
};

class NcclRank {
 public:
  // Starts to join the world. The device, a GPU, outlives the streams made here, and nothing else.
  static absl::StatusOr<std::unique_ptr<NcclRank>> Join(World* world, Device* device, const NcclRankOptions& options);
  virtual ~NcclRank() = default;  // aborts what has not been closed

  // Whether nothing is in progress, or the first error of any communicator.
  virtual absl::StatusOr<bool> Poll() = 0;
  // Called by all ranks of the world, each with its color (-1: it takes part in none of these) and its place among
  // those of its color. The communicator that comes of it has the next number, from 0. REQUIRES: nothing is in
  // progress.
  virtual absl::Status StartSplit(int color, int key) = 0;

  // Of the GPU's highest priority. A communicator is used on one stream only.
  virtual std::unique_ptr<Stream> NewStream(absl::string_view name) = 0;
  // Issues all legs as one operation, which ends when each has; they stay as they are until it has begun.
  virtual void Issue(Stream* stream, int communicator, absl::Span<const NcclLeg> legs) = 0;
  // `bytes` of each rank, in the order of the communicator. `mine` may lie at its place in `all`.
  virtual void AllGather(Stream* stream, int communicator, const std::byte* mine, std::byte* all, int64_t bytes) = 0;

  // Gives up all communicators together: what is running on the GPU ends, what was issued and has not begun never does.
  virtual void Abort() = 0;
  // Starts to leave in peace, once nothing is running; in progress until all ranks have.
  virtual void StartClose() = 0;
};

}  // namespace sluice::cuda
