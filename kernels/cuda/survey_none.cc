// In builds without CUDA.
#include "kernels/cuda/survey.h"

namespace sluice::cuda {

GpuSurvey SurveyGpus() {
  return {.found = absl::FailedPreconditionError(
              "this program was built without CUDA: build it where a CUDA toolkit is found (tools/bazel/README.md)")};
}

}  // namespace sluice::cuda
