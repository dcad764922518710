#include <cstdio>
#include <map>
#include <utility>

#include "tests/gpu_sim/driver.h"

namespace gpu_sim {
namespace {

thread_local int current_device = 0;

}  // namespace

int Driver::CurrentDevice() { return current_device; }

int64_t Driver::memory_bytes() const {
  return options_.memory_limit > 0 ? options_.memory_limit : options_.device.memory_bytes;
}

cudaError_t Driver::Properties(cudaDeviceProp* properties, int device) const {
  if (properties == nullptr) return cudaErrorInvalidValue;
  if (device < 0 || device >= devices()) return cudaErrorInvalidDevice;
  const DeviceDescription& is = options_.device;
  *properties = {.totalGlobalMem = static_cast<size_t>(memory_bytes()),
                 .sharedMemPerBlock = 48 * 1024,
                 .regsPerBlock = 65536,
                 .warpSize = 32,
                 .maxThreadsPerBlock = 1024,
                 .maxThreadsDim = {1024, 1024, 64},
                 .maxGridSize = {0x7FFFFFFF, 65535, 65535},
                 .major = is.compute_capability_major,
                 .minor = is.compute_capability_minor,
                 .multiProcessorCount = is.multiprocessors,
                 .concurrentKernels = 1,
                 .ECCEnabled = 1,
                 .pciBusID = device + 1,
                 .asyncEngineCount = 3,
                 .unifiedAddressing = 1,
                 .memoryBusWidth = 5120,
                 .l2CacheSize = 50 << 20,
                 .maxThreadsPerMultiProcessor = 2048,
                 .streamPrioritiesSupported = 1,
                 .sharedMemPerMultiprocessor = 228 * 1024,
                 .regsPerMultiprocessor = 65536,
                 .managedMemory = 1,
                 .sharedMemPerBlockOptin = static_cast<size_t>(is.shared_bytes_per_block_max),
                 .maxBlocksPerMultiProcessor = 32};
  std::snprintf(properties->name, sizeof(properties->name), "%s", is.name.c_str());
  return cudaSuccess;
}

cudaError_t Driver::Attribute(int* value, cudaDeviceAttr attribute, int device) const {
  cudaDeviceProp is;
  const cudaError_t error = value != nullptr ? Properties(&is, device) : cudaErrorInvalidValue;
  if (error != cudaSuccess) return error;
  const std::map<cudaDeviceAttr, int64_t> values = {
      {cudaDevAttrMaxThreadsPerBlock, is.maxThreadsPerBlock},
      {cudaDevAttrMaxSharedMemoryPerBlock, is.sharedMemPerBlock},
      {cudaDevAttrWarpSize, is.warpSize},
      {cudaDevAttrClockRate, 1980000},
      {cudaDevAttrMultiProcessorCount, is.multiProcessorCount},
      {cudaDevAttrIntegrated, is.integrated},
      {cudaDevAttrComputeMode, 0},
      {cudaDevAttrConcurrentKernels, is.concurrentKernels},
      {cudaDevAttrEccEnabled, is.ECCEnabled},
      {cudaDevAttrPciBusId, is.pciBusID},
      {cudaDevAttrPciDeviceId, is.pciDeviceID},
      {cudaDevAttrPciDomainId, is.pciDomainID},
      // Of two transfers a clock and the bus.
      {cudaDevAttrMemoryClockRate,
       static_cast<int64_t>(options_.device.memory_bytes_per_second * 8 / is.memoryBusWidth / 2e3)},
      {cudaDevAttrGlobalMemoryBusWidth, is.memoryBusWidth},
      {cudaDevAttrL2CacheSize, is.l2CacheSize},
      {cudaDevAttrMaxThreadsPerMultiProcessor, is.maxThreadsPerMultiProcessor},
      {cudaDevAttrAsyncEngineCount, is.asyncEngineCount},
      {cudaDevAttrUnifiedAddressing, is.unifiedAddressing},
      {cudaDevAttrComputeCapabilityMajor, is.major},
      {cudaDevAttrComputeCapabilityMinor, is.minor},
      {cudaDevAttrStreamPrioritiesSupported, is.streamPrioritiesSupported},
      {cudaDevAttrMaxSharedMemoryPerMultiprocessor, is.sharedMemPerMultiprocessor},
      {cudaDevAttrMaxRegistersPerMultiprocessor, is.regsPerMultiprocessor},
      {cudaDevAttrManagedMemory, is.managedMemory},
      {cudaDevAttrPageableMemoryAccess, is.pageableMemoryAccess},
      {cudaDevAttrMaxSharedMemoryPerBlockOptin, is.sharedMemPerBlockOptin},
      {cudaDevAttrMaxBlocksPerMultiprocessor, is.maxBlocksPerMultiProcessor},
  };
  const auto found = values.find(attribute);
  if (found == values.end()) return cudaErrorInvalidValue;
  *value = static_cast<int>(found->second);
  return cudaSuccess;
}

cudaError_t Driver::SetDevice(int device) {
  if (device < 0 || device >= devices()) return cudaErrorInvalidDevice;
  current_device = device;
  return cudaSuccess;
}

cudaError_t Driver::MemoryInfo(size_t* free, size_t* total) const {
  std::lock_guard lock(mutex_);
  *total = memory_bytes();
  *free = memory_bytes() - devices_[CurrentDevice()].bytes;
  return cudaSuccess;
}

cudaError_t Driver::CanAccessPeer(int* can, int device, int peer) const {
  for (int named : {device, peer}) {
    if (named < 0 || named >= devices()) return cudaErrorInvalidDevice;
  }
  *can = device != peer && options_.peer_access ? 1 : 0;
  return cudaSuccess;
}

cudaError_t Driver::EnablePeerAccess(int peer, bool enable) {
  int can = 0;
  const cudaError_t error = CanAccessPeer(&can, CurrentDevice(), peer);
  if (error != cudaSuccess) return error;
  if (peer == CurrentDevice()) return cudaErrorInvalidDevice;
  if (can == 0) return cudaErrorPeerAccessUnsupported;
  std::lock_guard lock(mutex_);
  std::set<int>& peers = devices_[CurrentDevice()].peers;
  if (!enable) return peers.erase(peer) == 1 ? cudaSuccess : cudaErrorPeerAccessNotEnabled;
  return peers.insert(peer).second ? cudaSuccess : cudaErrorPeerAccessAlreadyEnabled;
}

cudaError_t Driver::SynchronizeDevice() {
  std::vector<std::pair<CompletionRef, Clock>> ends;
  {
    std::lock_guard lock(mutex_);
    ++counters_.synchronisations;
    for (const Stream& stream : streams_) {
      if (stream.device == CurrentDevice())
        ends.emplace_back(execution_->EndOf(stream.number), order_.Of(AgentOf(stream)));
    }
  }
  cudaError_t first = cudaSuccess;
  for (const auto& [end, clock] : ends) {
    const cudaError_t error = WaitFor(end, clock);
    if (first == cudaSuccess) first = error;
  }
  return first;
}

}  // namespace gpu_sim
