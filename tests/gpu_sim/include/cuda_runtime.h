// The toolkit in miniature: CUDA's runtime as the simulated GPU (tests/gpu_sim) answers it. Names, values, arguments
// and errors are the toolkit's; only the calls that Sluice makes are here, so that one more is a decision. Each call
// has one argument more, which nobody gives: the line that calls, for reports.
#pragma once

#include <source_location>

#include "driver_types.h"
#include "vector_types.h"

#define CUDART_VERSION 13000
#define GPU_SIM_SITE std::source_location site = std::source_location::current()

// Device.
cudaError_t cudaGetDeviceCount(int* count, GPU_SIM_SITE);
cudaError_t cudaSetDevice(int device, GPU_SIM_SITE);
cudaError_t cudaGetDevice(int* device, GPU_SIM_SITE);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device, GPU_SIM_SITE);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device, GPU_SIM_SITE);
cudaError_t cudaDeviceGetPCIBusId(char* bus_id, int length, int device, GPU_SIM_SITE);
cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest, GPU_SIM_SITE);
cudaError_t cudaDeviceSynchronize(GPU_SIM_SITE);
cudaError_t cudaDeviceCanAccessPeer(int* can, int device, int peer, GPU_SIM_SITE);
cudaError_t cudaDeviceEnablePeerAccess(int peer, unsigned int flags, GPU_SIM_SITE);
cudaError_t cudaDeviceDisablePeerAccess(int peer, GPU_SIM_SITE);
cudaError_t cudaDriverGetVersion(int* version, GPU_SIM_SITE);
cudaError_t cudaRuntimeGetVersion(int* version, GPU_SIM_SITE);

// Errors of the calling thread.
cudaError_t cudaGetLastError(GPU_SIM_SITE);
cudaError_t cudaPeekAtLastError(GPU_SIM_SITE);
const char* cudaGetErrorName(cudaError_t error);
const char* cudaGetErrorString(cudaError_t error);

// Memory.
cudaError_t cudaMalloc(void** data, size_t bytes, GPU_SIM_SITE);
cudaError_t cudaFree(void* data, GPU_SIM_SITE);
cudaError_t cudaMallocHost(void** data, size_t bytes, GPU_SIM_SITE);
cudaError_t cudaHostAlloc(void** data, size_t bytes, unsigned int flags, GPU_SIM_SITE);
cudaError_t cudaFreeHost(void* data, GPU_SIM_SITE);
cudaError_t cudaMemGetInfo(size_t* free, size_t* total, GPU_SIM_SITE);
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* data, GPU_SIM_SITE);

// Copies. Those without Async wait for their end; all are refused on stream 0.
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, GPU_SIM_SITE);
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream = nullptr, GPU_SIM_SITE);
cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width,
                              size_t height, cudaMemcpyKind kind, cudaStream_t stream = nullptr, GPU_SIM_SITE);
cudaError_t cudaMemcpyPeerAsync(void* to, int to_device, const void* from, int from_device, size_t bytes,
                                cudaStream_t stream = nullptr, GPU_SIM_SITE);
cudaError_t cudaMemset(void* data, int value, size_t bytes, GPU_SIM_SITE);
cudaError_t cudaMemsetAsync(void* data, int value, size_t bytes, cudaStream_t stream = nullptr, GPU_SIM_SITE);

// Streams.
cudaError_t cudaStreamCreate(cudaStream_t* stream, GPU_SIM_SITE);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned int flags, GPU_SIM_SITE);
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned int flags, int priority, GPU_SIM_SITE);
cudaError_t cudaStreamGetPriority(cudaStream_t stream, int* priority, GPU_SIM_SITE);
cudaError_t cudaStreamDestroy(cudaStream_t stream, GPU_SIM_SITE);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned int flags = 0, GPU_SIM_SITE);
cudaError_t cudaStreamQuery(cudaStream_t stream, GPU_SIM_SITE);
cudaError_t cudaStreamSynchronize(cudaStream_t stream, GPU_SIM_SITE);

// Events.
cudaError_t cudaEventCreate(cudaEvent_t* event, GPU_SIM_SITE);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned int flags, GPU_SIM_SITE);
cudaError_t cudaEventDestroy(cudaEvent_t event, GPU_SIM_SITE);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream = nullptr, GPU_SIM_SITE);
cudaError_t cudaEventQuery(cudaEvent_t event, GPU_SIM_SITE);
cudaError_t cudaEventSynchronize(cudaEvent_t event, GPU_SIM_SITE);
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end, GPU_SIM_SITE);

// Kernels.
cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value, GPU_SIM_SITE);

#undef GPU_SIM_SITE

// As the toolkit's C++ side: typed pointers.
template <class T>
cudaError_t cudaMalloc(T** data, size_t bytes, std::source_location site = std::source_location::current()) {
  return cudaMalloc(reinterpret_cast<void**>(data), bytes, site);
}
template <class T>
cudaError_t cudaMallocHost(T** data, size_t bytes, unsigned int flags = 0,
                           std::source_location site = std::source_location::current()) {
  return cudaHostAlloc(reinterpret_cast<void**>(data), bytes, flags, site);
}
template <class T>
cudaError_t cudaHostAlloc(T** data, size_t bytes, unsigned int flags,
                          std::source_location site = std::source_location::current()) {
  return cudaHostAlloc(reinterpret_cast<void**>(data), bytes, flags, site);
}
template <class... Arguments>
cudaError_t cudaFuncSetAttribute(void (*kernel)(Arguments...), cudaFuncAttribute attribute, int value,
                                 std::source_location site = std::source_location::current()) {
  return cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), attribute, value, site);
}

#if __has_include("device_side.h")
#include "device_side.h"
#endif
