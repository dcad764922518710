#include "kernels/cuda/survey.h"

#include "absl/strings/str_cat.h"
#include "cublasLt.h"
#include "cuda_runtime.h"

namespace sluice::cuda {
namespace {

absl::Status WhyNone(const GpuSurvey& survey, cudaError_t error) {
  if (survey.driver_version == 0) {
    return absl::UnavailableError(
        "no NVIDIA driver is installed, or this user or container can't reach it (nvidia-smi should list the GPUs)");
  }
  if (survey.driver_version < survey.runtime_version || error == cudaErrorInsufficientDriver) {
    return absl::UnavailableError(absl::StrCat("the NVIDIA driver is too old: it runs CUDA ",
                                               CudaVersion(survey.driver_version), ", and this program was built with ",
                                               CudaVersion(survey.runtime_version), "; update the driver"));
  }
  if (error == cudaSuccess || error == cudaErrorNoDevice) {
    return absl::UnavailableError("the NVIDIA driver finds no GPU; is CUDA_VISIBLE_DEVICES set to something else?");
  }
  return absl::UnavailableError(
      absl::StrCat("cudaGetDeviceCount: ", cudaGetErrorName(error), ": ", cudaGetErrorString(error)));
}

// Everything but its peers.
absl::Status Describe(int gpu, GpuInfo* info) {
  cudaDeviceProp properties;
  char bus[32] = "";
  size_t free_bytes = 0, bytes = 0;
  cudaError_t error = cudaGetDeviceProperties(&properties, gpu);
  if (error == cudaSuccess) {
    info->name = properties.name;
    info->major = properties.major, info->minor = properties.minor;
    info->multiprocessors = properties.multiProcessorCount;
    error = cudaDeviceGetPCIBusId(bus, sizeof(bus), gpu);
  }
  if (error == cudaSuccess) error = cudaSetDevice(gpu);
  if (error == cudaSuccess) error = cudaMemGetInfo(&free_bytes, &bytes);
  info->pci_bus = bus;
  info->free_bytes = static_cast<int64_t>(free_bytes), info->memory_bytes = static_cast<int64_t>(bytes);
  if (error != cudaSuccess) {
    return absl::UnavailableError(absl::StrCat(cudaGetErrorName(error), ": ", cudaGetErrorString(error)));
  }
  if (info->major >= kComputeCapabilityMin) return absl::OkStatus();
  return absl::UnimplementedError(absl::StrCat("compute capability ", info->major, ".", info->minor,
                                               ": the kernels need ", kComputeCapabilityMin, ".0 or newer"));
}

}  // namespace

GpuSurvey SurveyGpus() {
  GpuSurvey survey;
  if (cudaDriverGetVersion(&survey.driver_version) != cudaSuccess) survey.driver_version = 0;
  if (cudaRuntimeGetVersion(&survey.runtime_version) != cudaSuccess) survey.runtime_version = CUDART_VERSION;
  survey.cublaslt_version = static_cast<int64_t>(cublasLtGetVersion());
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess || count == 0) {
    survey.found = WhyNone(survey, error);
    return survey;
  }
  for (int gpu = 0; gpu < count; ++gpu) {
    GpuInfo& info = survey.gpus.emplace_back();
    info.usable = Describe(gpu, &info);
    for (int peer = 0; peer < count; ++peer) {
      int reaches = 0;
      if (peer != gpu && cudaDeviceCanAccessPeer(&reaches, gpu, peer) == cudaSuccess && reaches != 0) {
        info.peers.push_back(peer);
      }
    }
  }
  return survey;
}

}  // namespace sluice::cuda
