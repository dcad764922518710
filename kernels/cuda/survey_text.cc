#include "absl/strings/str_cat.h"
#include "kernels/cuda/survey.h"

namespace sluice::cuda {

std::string CudaVersion(int version) { return absl::StrCat(version / 1000, ".", version % 1000 / 10); }

}  // namespace sluice::cuda
