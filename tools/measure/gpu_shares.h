// Steps on GPUs, beside the data sheet and beside the products of the same run. Pure functions.
//
// *MFU*: tokens a second x FLOPs of a token (model_flops.h) / (ranks x the data sheet's dense rate).
// *Rate of products*: the FLOPs of all matrix products with weights in profiled steps / the time they took on the
// device. *Share of products' rate*: the same FLOPs as MFU / (ranks x rate of products): what a step loses to
// everything else.
#pragma once

#include <string>

#include "runtime/config/job.h"
#include "tools/measure/result.h"

namespace sluice::tools {

struct GpuShares {
  std::string gpu;  // as CUDA calls it
  double flops_per_token = 0;
  double tokens_per_second = 0;    // of the median step, not profiled
  double peak_flops = 0;           // of the data sheet, in the job's precision; 0: not known
  double model_flops_share = 0;    // MFU; 0: not known
  double products_per_second = 0;  // FLOPs
  double products_share = 0;
};

// Of GPUs that are all alike.
GpuShares SharesOf(const BenchResult& result, const JobConfig& job, const std::string& gpu);
std::string ToText(const GpuShares& shares);

}  // namespace sluice::tools
