#include "scheduler/action_costs.h"

namespace sluice {

int64_t TransferNs(int64_t bytes, const Costs& costs) {
  if (costs.transfer_bytes_per_second <= 0) return costs.transfer_latency_ns;
  return costs.transfer_latency_ns +
         static_cast<int64_t>(1e9 * static_cast<double>(bytes) / costs.transfer_bytes_per_second);
}

int64_t CollectiveBytes(const Program& program, const Collective& collective, const Costs& costs) {
  const int64_t holders = static_cast<int64_t>(program.placement.copies()) * program.replicas;
  switch (collective.kind) {
    case CollectiveKind::kStageGradients:
      return costs.stages[collective.stage.index()].reduce_bytes * (holders - 1) / holders;
    case CollectiveKind::kSummedGradients:
    case CollectiveKind::kParameters:
      return costs.stages[collective.stage.index()].gather_bytes * (holders - 1) / holders;
    case CollectiveKind::kTiedGradients: {
      const auto tensor = static_cast<size_t>(collective.tensor);
      if (tensor >= costs.tied_bytes.size()) return 0;
      return costs.tied_bytes[tensor] * static_cast<int64_t>(collective.members.size() - 1) / holders;
    }
    case CollectiveKind::kNorm:
      return costs.norm_bytes;
  }
  return 0;
}

int64_t CollectiveNs(int64_t bytes, const Costs& costs) {
  if (costs.collective_bytes_per_second <= 0) return costs.collective_ns;
  return costs.collective_ns +
         static_cast<int64_t>(1e9 * static_cast<double>(bytes) / costs.collective_bytes_per_second);
}

ActionCosts::ActionCosts(const Costs& costs) : entries_(costs.stages.size()), latency_ns_(costs.transfer_latency_ns) {
  const size_t stages = costs.stages.size();
  for (size_t s = 0; s < stages; ++s) {
    const StageCosts& stage = costs.stages[s];
    const auto entry = [&](ActionKind kind) -> Entry& { return entries_[s][static_cast<size_t>(kind)]; };
    const auto message = [&](int64_t bytes) { return Entry{TransferNs(bytes, costs), bytes}; };
    entry(ActionKind::kForward).ns = stage.forward_ns;
    entry(ActionKind::kBackward).ns = stage.backward_ns;
    entry(ActionKind::kInputGradient).ns = stage.input_gradient_ns;
    entry(ActionKind::kWeightGradient).ns = stage.weight_gradient_ns;
    // The sender's stage says how large its message is.
    entry(ActionKind::kSendForward) = message(stage.activation_bytes);
    entry(ActionKind::kSendBackward) = message(stage.gradient_bytes);
    // The last stage's, at the first: tokens, in generation.
    entry(ActionKind::kRecvForward) = message(costs.stages[s > 0 ? s - 1 : stages - 1].activation_bytes);
    if (s + 1 < stages) entry(ActionKind::kRecvBackward) = message(costs.stages[s + 1].gradient_bytes);
  }
}

}  // namespace sluice
