#include "tools/measure/model_flops.h"

#include "stages/parameters.h"

namespace sluice::tools {

double FlopsPerToken(const JobConfig& job) {
  double flops = 6 * static_cast<double>(ParameterCount(job.graph));
  for (const Node& node : job.graph.nodes) {
    if (node.kind != LayerKind::kAttention) continue;
    flops += 12.0 * static_cast<double>(node.heads * node.head_size) * static_cast<double>(job.training.sequence);
  }
  return flops;
}

}  // namespace sluice::tools
