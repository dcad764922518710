// A copy in host memory of what one rank has of the model's state to save. It is made on a stream of its own while the
// next step's passes run; only the optimizer waits for it. The memory is as large as that state, and kept for the next
// copy.
//
// Threads: the rank's task, and one of its own while a copy is made; what has been copied: any.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "base/world.h"
#include "kernels/device.h"
#include "runtime/checkpoint/parameter_source.h"
#include "runtime/trainer/snapshot.h"
#include "stages/layer_stage.h"

namespace sluice {

class StateCopy {
 public:
  // World, device and stages outlive it. RESOURCE_EXHAUSTED: the host has no room for it.
  static absl::StatusOr<std::unique_ptr<StateCopy>> Create(World* world, Device* device, const std::string& name,
                                                           absl::Span<LayerStage* const> stages);
  // Waits for the copy that is made.
  ~StateCopy();

  // Begins a copy and returns. REQUIRES: nothing that writes the state is running, and nobody reads the last copy any
  // more.
  void Begin();
  // The rank's part of a snapshot; `copied` is the last Begin()'s.
  RankSnapshot snapshot(WorldRank rank) const;

 private:
  struct Source {
    const LayerStage* stage = nullptr;
    LayerStage::OwnState state;
  };
  StateCopy(World* world, std::unique_ptr<Stream> stream) : world_(world), stream_(std::move(stream)) {}
  void Copy();

  World* const world_;
  const std::unique_ptr<Stream> stream_;
  std::vector<Source> sources_;
  std::vector<Piece> pieces_;  // as many
  std::unique_ptr<float[]> values_;
  int64_t elements_ = 0;
  Ref<Signal> copied_;
  EventRef task_;
};

// Fills what the stages hold of each parameter, and of m and v if `what` says so, from the source. Waits until it is
// there. Errors: the source's.
absl::Status RestoreStages(World* world, absl::Span<LayerStage* const> stages, const ParameterSource& source,
                           RestoredState what);

}  // namespace sluice
