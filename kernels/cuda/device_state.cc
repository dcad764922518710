#include "kernels/cuda/device_state.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status.h"
#include "kernels/cuda/errors.h"
#include "kernels/cuda/stream.h"

namespace sluice::cuda {

DeviceState::DeviceState(World* world, int ordinal, std::string name)
    : world_(world), ordinal_(ordinal), name_(std::move(name)) {}

absl::StatusOr<std::unique_ptr<DeviceState>> DeviceState::Create(World* world, int ordinal, std::string name) {
  auto state = std::unique_ptr<DeviceState>(new DeviceState(world, ordinal, std::move(name)));
  RETURN_IF_ERROR(state->Enter());
  ASSIGN_OR_RETURN(state->clock_, DeviceClock::Create(state->timed_events_));
  state->task_ = world->Spawn({.name = absl::StrCat("gpu", ordinal)}, [state = state.get()] { state->Run(); });
  return state;
}

DeviceState::~DeviceState() {
  CHECK(streams_.empty()) << "streams outlive their device";
  {
    std::lock_guard lock(mutex_);
    closing_ = true;
  }
  Ring();
  if (task_) CHECK_OK(world_->Wait(task_));
}

absl::Status DeviceState::Enter() const {
  const cudaError_t error = cudaSetDevice(ordinal_);
  return error == cudaSuccess ? absl::OkStatus() : CudaError(error, "cudaSetDevice", name_);
}

void DeviceState::Add(CudaStream* stream) {
  std::lock_guard lock(mutex_);
  streams_.push_back(stream);
}

void DeviceState::Remove(CudaStream* stream) {
  std::lock_guard lock(mutex_);
  streams_.erase(std::find(streams_.begin(), streams_.end(), stream));
}

void DeviceState::Run() {
  for (;;) {
    const EventRef rung = bell_.Arm();
    {
      std::lock_guard lock(mutex_);
      if (closing_) return;
      for (CudaStream* stream : streams_) stream->GoOnIfWoken();
    }
    world_->WaitAny({&rung, 1}, kForever);
  }
}

}  // namespace sluice::cuda
