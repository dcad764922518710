// A GPU as a Device: memory by cudaMalloc, one call a buffer, all of them before the first step ends.
#include <algorithm>
#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status.h"
#include "kernels/cuda/device_state.h"
#include "kernels/cuda/errors.h"
#include "kernels/cuda/factory.h"
#include "kernels/cuda/operations.h"
#include "kernels/cuda/stream.h"

namespace sluice::cuda {
namespace {

absl::StatusOr<CudaDeviceInfo> Describe(int ordinal) {
  cudaDeviceProp properties;
  if (const cudaError_t error = cudaGetDeviceProperties(&properties, ordinal); error != cudaSuccess) {
    return CudaError(error, "cudaGetDeviceProperties", absl::StrCat("GPU ", ordinal));
  }
  return CudaDeviceInfo{.name = properties.name,
                        .major = properties.major,
                        .minor = properties.minor,
                        .memory_bytes = static_cast<int64_t>(properties.totalGlobalMem)};
}

// REQUIRES: the calling thread's GPU is `ordinal`.
absl::Status ReachPeers(int ordinal, const std::vector<int>& peers) {
  for (const int peer : peers) {
    int can = 0;
    if (peer == ordinal) continue;
    cudaError_t error = cudaDeviceCanAccessPeer(&can, ordinal, peer);
    if (error == cudaSuccess && can != 0) error = cudaDeviceEnablePeerAccess(peer, 0);
    if (error == cudaErrorPeerAccessAlreadyEnabled) {
      IgnoreError(cudaGetLastError());
    } else if (error != cudaSuccess) {
      return CudaError(error, "cudaDeviceEnablePeerAccess", absl::StrCat("GPU ", ordinal, " for GPU ", peer));
    }
  }
  return absl::OkStatus();
}

class CudaDevice final : public Device {
 public:
  CudaDevice(const CudaDeviceOptions& options, CudaDeviceInfo info, std::unique_ptr<DeviceState> state,
             std::unique_ptr<Matmul> matmul)
      : options_(options),
        info_(std::move(info)),
        state_(std::move(state)),
        matmul_(std::move(matmul)),
        operations_(NewOperations(matmul_.get())) {}

  ~CudaDevice() override {
    setup_stream_ = nullptr;
    if (options_.measured != nullptr) options_.measured(ToText(matmul_->choices()));
    CHECK_EQ(memory_.bytes, 0) << "buffers outlive their device";
  }

  std::string description() const override {
    return absl::StrCat(info_.name, ", ", info_.memory_bytes >> 20, " MiB, compute capability ", info_.major, ".",
                        info_.minor);
  }

  absl::StatusOr<Buffer> Allocate(int64_t bytes, absl::string_view purpose) override {
    CHECK_GE(bytes, 0);
    RETURN_IF_ERROR(state_->Enter());
    RETURN_IF_ERROR(Reserve(bytes, purpose));
    void* data = nullptr;
    const size_t wanted = static_cast<size_t>(std::max<int64_t>(bytes, 1));
    if (const cudaError_t error = cudaMalloc(&data, wanted); error != cudaSuccess) {
      IgnoreError(cudaGetLastError());
      Return(bytes);
      size_t free_bytes = 0, total = 0;
      IgnoreError(cudaMemGetInfo(&free_bytes, &total));
      return CudaError(error, "cudaMalloc",
                       absl::StrCat(state_->name(), " for ", purpose, ": ", bytes, " bytes asked for, ", memory().bytes,
                                    " held, ", free_bytes, " of ", total, " free"));
    }
    Buffer buffer(this, static_cast<std::byte*>(data), bytes);
    RETURN_IF_ERROR(Zero(buffer));
    return buffer;
  }

  std::unique_ptr<Stream> NewStream(absl::string_view name) override {
    return std::make_unique<CudaStream>(state_.get(), this, name);
  }

  const Operations& operations() const override { return *operations_; }
  DeviceState* state() const { return state_.get(); }

  MemoryUse memory() const override {
    std::lock_guard lock(mutex_);
    return memory_;
  }

 private:
  absl::Status Reserve(int64_t bytes, absl::string_view purpose) {
    std::lock_guard lock(mutex_);
    const int64_t limit = options_.memory_limit_bytes;
    if (limit > 0 && bytes > limit - memory_.bytes) {
      return absl::ResourceExhaustedError(absl::StrCat("no memory for ", purpose, " on ", state_->name(), ": ", bytes,
                                                       " bytes asked for, ", memory_.bytes, " held, ", limit,
                                                       " allowed"));
    }
    memory_.bytes += bytes;
    memory_.peak_bytes = std::max(memory_.peak_bytes, memory_.bytes);
    ++memory_.allocations;
    return absl::OkStatus();
  }
  void Return(int64_t bytes) {
    std::lock_guard lock(mutex_);
    memory_.bytes -= bytes;
  }

  // On a stream of its own, and without waiting for the others.
  absl::Status Zero(const Buffer& buffer) {
    if (buffer.bytes() == 0) return absl::OkStatus();
    EventRef zeroed;
    {
      std::lock_guard lock(setup_mutex_);
      if (setup_stream_ == nullptr) setup_stream_ = std::make_unique<CudaStream>(state_.get(), this, "memory");
      const auto zero = [data = buffer.data(), bytes = buffer.bytes()](cudaStream_t stream, const Workspace&) {
        return cudaMemsetAsync(data, 0, bytes, stream);
      };
      setup_stream_->Issue("cudaMemsetAsync", zero);
      zeroed = setup_stream_->Record();
    }
    return state_->world()->Wait(zeroed);
  }

  void Free(std::byte* data, int64_t bytes) override {
    if (state_->Enter().ok()) IgnoreError(cudaFree(data));
    Return(bytes);
  }

  const CudaDeviceOptions options_;
  const CudaDeviceInfo info_;
  const std::unique_ptr<DeviceState> state_;
  const std::unique_ptr<Matmul> matmul_;
  const std::unique_ptr<Operations> operations_;
  std::mutex setup_mutex_;
  std::unique_ptr<CudaStream> setup_stream_;
  mutable std::mutex mutex_;
  MemoryUse memory_;
};

}  // namespace

DeviceState* StateOf(Device* device) {
  auto* const on_gpu = dynamic_cast<CudaDevice*>(device);
  return on_gpu != nullptr ? on_gpu->state() : nullptr;
}

absl::StatusOr<std::vector<CudaDeviceInfo>> FindCudaDevices() {
  int count = 0;
  if (const cudaError_t error = cudaGetDeviceCount(&count); error != cudaSuccess) {
    return CudaError(error, "cudaGetDeviceCount", "this machine");
  }
  if (count == 0) return CudaError(cudaErrorNoDevice, "cudaGetDeviceCount", "this machine");
  std::vector<CudaDeviceInfo> devices;
  for (int ordinal = 0; ordinal < count; ++ordinal) {
    ASSIGN_OR_RETURN(CudaDeviceInfo info, Describe(ordinal));
    devices.push_back(std::move(info));
  }
  return devices;
}

absl::StatusOr<int64_t> FreeCudaBytes(int ordinal) {
  size_t free_bytes = 0, bytes = 0;
  cudaError_t error = cudaSetDevice(ordinal);
  if (error == cudaSuccess) error = cudaMemGetInfo(&free_bytes, &bytes);
  if (error != cudaSuccess) return CudaError(error, "cudaMemGetInfo", absl::StrCat("GPU ", ordinal));
  return static_cast<int64_t>(free_bytes);
}

absl::StatusOr<std::unique_ptr<Device>> NewCudaDevice(World* world, const CudaDeviceOptions& options) {
  ASSIGN_OR_RETURN(CudaDeviceInfo info, Describe(options.ordinal));
  ASSIGN_OR_RETURN(auto state, DeviceState::Create(world, options.ordinal,
                                                   absl::StrCat("GPU ", options.ordinal, " (", info.name, ")")));
  RETURN_IF_ERROR(ReachPeers(options.ordinal, options.peers));
  MatmulChoices choices;
  if (!options.algorithms.empty()) {
    ASSIGN_OR_RETURN(choices, MatmulChoicesFromText(options.algorithms, options.algorithms_file));
  }
  ASSIGN_OR_RETURN(auto matmul, Matmul::Create(std::move(choices),
                                               options.measured != nullptr ? Unchosen::kMeasured : Unchosen::kGuessed));
  return std::make_unique<CudaDevice>(options, std::move(info), std::move(state), std::move(matmul));
}

}  // namespace sluice::cuda
