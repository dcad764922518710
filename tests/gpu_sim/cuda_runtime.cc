// The runtime's calls: each hands its arguments to the driver.
#include "tests/gpu_sim/include/cuda_runtime.h"

#include <cstdio>
#include <cstring>
#include <utility>

#include "tests/gpu_sim/driver.h"

using gpu_sim::Caller;
using gpu_sim::Driver;
using gpu_sim::LiveMemory;
using Site = std::source_location;

// Runs `expression`, in which `driver` and `caller` are known, as the call that this function is.
#define GPU_SIM_CALL(expression)                                       \
  Driver& driver = Driver::Get();                                      \
  const Caller caller = {__func__, site, __builtin_return_address(0)}; \
  return driver.Call(caller, [&]() -> cudaError_t { return expression; })

namespace {

cudaError_t Give(int* to, int value) {
  if (to == nullptr) return cudaErrorInvalidValue;
  *to = value;
  return cudaSuccess;
}

cudaError_t CheckDevice(const Driver& driver, int device) {
  return device >= 0 && device < driver.devices() ? cudaSuccess : cudaErrorInvalidDevice;
}

constexpr int kVersion = CUDART_VERSION;

}  // namespace

cudaError_t cudaGetDeviceCount(int* count, Site site) {
  GPU_SIM_CALL(driver.devices() > 0 ? Give(count, driver.devices()) : cudaErrorNoDevice);
}
cudaError_t cudaSetDevice(int device, Site site) { GPU_SIM_CALL(driver.SetDevice(device)); }
cudaError_t cudaGetDevice(int* device, Site site) { GPU_SIM_CALL(Give(device, Driver::CurrentDevice())); }
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device, Site site) {
  GPU_SIM_CALL(driver.Properties(properties, device));
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device, Site site) {
  GPU_SIM_CALL(driver.Attribute(value, attribute, device));
}
cudaError_t cudaDeviceGetPCIBusId(char* bus_id, int length, int device, Site site) {
  GPU_SIM_CALL(CheckDevice(driver, device) != cudaSuccess || length < 13
                   ? cudaErrorInvalidValue
                   : (snprintf(bus_id, length, "0000:%02x:00.0", device + 1), cudaSuccess));
}
cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest, Site site) {
  GPU_SIM_CALL(driver.PriorityRange(least, greatest));
}
cudaError_t cudaDeviceSynchronize(Site site) { GPU_SIM_CALL(driver.SynchronizeDevice()); }
cudaError_t cudaDeviceCanAccessPeer(int* can, int device, int peer, Site site) {
  GPU_SIM_CALL(driver.CanAccessPeer(can, device, peer));
}
cudaError_t cudaDeviceEnablePeerAccess(int peer, unsigned int flags, Site site) {
  GPU_SIM_CALL(flags != 0 ? cudaErrorInvalidValue : driver.EnablePeerAccess(peer, true));
}
cudaError_t cudaDeviceDisablePeerAccess(int peer, Site site) { GPU_SIM_CALL(driver.EnablePeerAccess(peer, false)); }
cudaError_t cudaDriverGetVersion(int* version, Site site) { GPU_SIM_CALL(Give(version, kVersion)); }
cudaError_t cudaRuntimeGetVersion(int* version, Site site) { GPU_SIM_CALL(Give(version, kVersion)); }

cudaError_t cudaGetLastError(Site) { return Driver::Get().LastError(/*clear=*/true); }
cudaError_t cudaPeekAtLastError(Site) { return Driver::Get().LastError(/*clear=*/false); }

cudaError_t cudaMalloc(void** data, size_t bytes, Site site) {
  GPU_SIM_CALL(driver.Allocate(caller, Driver::CurrentDevice(), data, bytes));
}
cudaError_t cudaFree(void* data, Site site) { GPU_SIM_CALL(driver.Free(caller, data, /*pinned=*/false)); }
cudaError_t cudaMallocHost(void** data, size_t bytes, Site site) {
  GPU_SIM_CALL(driver.Allocate(caller, LiveMemory::kPinned, data, bytes));
}
cudaError_t cudaHostAlloc(void** data, size_t bytes, unsigned int flags, Site site) {
  GPU_SIM_CALL(flags > 7 ? cudaErrorInvalidValue : driver.Allocate(caller, LiveMemory::kPinned, data, bytes));
}
cudaError_t cudaFreeHost(void* data, Site site) { GPU_SIM_CALL(driver.Free(caller, data, /*pinned=*/true)); }
cudaError_t cudaMemGetInfo(size_t* free, size_t* total, Site site) { GPU_SIM_CALL(driver.MemoryInfo(free, total)); }
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* data, Site site) {
  GPU_SIM_CALL(driver.PointerAttributes(attributes, data));
}

// The forms without a stream use stream 0, and are refused with it.
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, Site site) {
  const int64_t width = static_cast<int64_t>(bytes);
  GPU_SIM_CALL(driver.Copy(caller, {to, width}, {from, width}, width, 1, kind, nullptr));
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream,
                            Site site) {
  const int64_t width = static_cast<int64_t>(bytes);
  GPU_SIM_CALL(driver.Copy(caller, {to, width}, {from, width}, width, 1, kind, stream));
}
cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width,
                              size_t height, cudaMemcpyKind kind, cudaStream_t stream, Site site) {
  GPU_SIM_CALL(driver.Copy(caller, {to, static_cast<int64_t>(to_pitch)}, {from, static_cast<int64_t>(from_pitch)},
                           static_cast<int64_t>(width), static_cast<int64_t>(height), kind, stream));
}
cudaError_t cudaMemcpyPeerAsync(void* to, int to_device, const void* from, int from_device, size_t bytes,
                                cudaStream_t stream, Site site) {
  GPU_SIM_CALL(driver.CopyPeer(caller, to, to_device, from, from_device, static_cast<int64_t>(bytes), stream));
}
cudaError_t cudaMemset(void* data, int value, size_t bytes, Site site) {
  GPU_SIM_CALL(driver.Set(caller, data, value, static_cast<int64_t>(bytes), nullptr));
}
cudaError_t cudaMemsetAsync(void* data, int value, size_t bytes, cudaStream_t stream, Site site) {
  GPU_SIM_CALL(driver.Set(caller, data, value, static_cast<int64_t>(bytes), stream));
}

cudaError_t cudaStreamCreate(cudaStream_t* stream, Site site) { GPU_SIM_CALL(driver.NewStream(stream, 0, 0)); }
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned int flags, Site site) {
  GPU_SIM_CALL(driver.NewStream(stream, flags, 0));
}
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned int flags, int priority, Site site) {
  GPU_SIM_CALL(driver.NewStream(stream, flags, priority));
}
cudaError_t cudaStreamGetPriority(cudaStream_t stream, int* priority, Site site) {
  GPU_SIM_CALL(driver.StreamPriority(caller, stream, priority));
}
cudaError_t cudaStreamDestroy(cudaStream_t stream, Site site) { GPU_SIM_CALL(driver.DestroyStream(caller, stream)); }
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned int flags, Site site) {
  GPU_SIM_CALL(flags != 0 ? cudaErrorInvalidValue : driver.Wait(caller, stream, event));
}
cudaError_t cudaStreamQuery(cudaStream_t stream, Site site) { GPU_SIM_CALL(driver.QueryStream(caller, stream)); }
cudaError_t cudaStreamSynchronize(cudaStream_t stream, Site site) {
  GPU_SIM_CALL(driver.SynchronizeStream(caller, stream));
}

cudaError_t cudaEventCreate(cudaEvent_t* event, Site site) { GPU_SIM_CALL(driver.NewEvent(event, 0)); }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned int flags, Site site) {
  GPU_SIM_CALL(driver.NewEvent(event, flags));
}
cudaError_t cudaEventDestroy(cudaEvent_t event, Site site) { GPU_SIM_CALL(driver.DestroyEvent(caller, event)); }
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream, Site site) {
  GPU_SIM_CALL(driver.Record(caller, event, stream));
}
cudaError_t cudaEventQuery(cudaEvent_t event, Site site) { GPU_SIM_CALL(driver.QueryEvent(caller, event)); }
cudaError_t cudaEventSynchronize(cudaEvent_t event, Site site) { GPU_SIM_CALL(driver.SynchronizeEvent(caller, event)); }
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end, Site site) {
  GPU_SIM_CALL(driver.ElapsedTime(caller, milliseconds, start, end));
}

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value, Site site) {
  GPU_SIM_CALL(attribute == cudaFuncAttributeMaxDynamicSharedMemorySize ? driver.SetSharedBytes(kernel, value)
                                                                        : cudaSuccess);
}

cudaError_t gpu_sim::Launch(KernelLaunch launch) {
  Driver& driver = Driver::Get();
  const Caller caller = {launch.name, launch.site, __builtin_return_address(0)};
  return driver.Call(caller, [&] { return driver.LaunchKernel(caller, std::move(launch)); });
}
