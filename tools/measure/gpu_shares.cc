#include "tools/measure/gpu_shares.h"

#include <algorithm>

#include "absl/strings/str_format.h"
#include "runtime/config/device_file.h"
#include "tools/measure/model_flops.h"

namespace sluice::tools {
namespace {

// FLOPs a second of the products with weights, on one GPU.
double RateOfProducts(const BenchResult& result) {
  double flops = 0, ms = 0;
  for (const BenchedOperation& operation : result.operations) {
    const Products products = operation.shape.products;
    if (products == Products::kNone || products == Products::kAttention) continue;
    flops += operation.flops;
    ms += Median(operation.ms);
  }
  return ms > 0 ? 1e3 * flops / ms : 0;
}

}  // namespace

GpuShares SharesOf(const BenchResult& result, const JobConfig& job, const std::string& gpu) {
  GpuShares shares{.gpu = gpu, .flops_per_token = FlopsPerToken(job)};
  shares.tokens_per_second = 1e3 * result.tokens / std::max(1e-9, Median(result.step_ms));
  if (const auto device = FindDeviceOfGpu(gpu); device.ok()) {
    shares.peak_flops = job.training.precision == Precision::kBF16 ? device->peak_flops_bf16 : device->peak_flops_f32;
  }
  shares.products_per_second = RateOfProducts(result);
  const double each = shares.tokens_per_second * shares.flops_per_token / job.layout.grid().ranks();
  if (shares.peak_flops > 0) shares.model_flops_share = each / shares.peak_flops;
  if (shares.products_per_second > 0) shares.products_share = each / shares.products_per_second;
  return shares;
}

std::string ToText(const GpuShares& shares) {
  const std::string mfu = shares.peak_flops > 0
                              ? absl::StrFormat("MFU %.1f %% of %.1f TFLOPS a GPU", 100 * shares.model_flops_share,
                                                shares.peak_flops / 1e12)
                              : absl::StrFormat("no MFU, since no data sheet of %s is known here", shares.gpu);
  return absl::StrFormat(
      "\n%s: %.0f tokens/s; %s (6N + 12LdT = %.4g FLOPs a token)\nProducts with weights: %.1f TFLOPS; the whole step "
      "has "
      "%.1f %% of that rate\n",
      shares.gpu, shares.tokens_per_second, mfu, shares.flops_per_token, shares.products_per_second / 1e12,
      100 * shares.products_share);
}

}  // namespace sluice::tools
