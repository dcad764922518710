// What LayerStage does beside the passes of its layers because it may be a shard: start values of its slices, gradients
// that several shards hold, and the norm of all.
#include <algorithm>
#include <array>

#include "base/check.h"
#include "base/philox.h"
#include "stages/layer_stage.h"

namespace sluice {

void LayerStage::InitializeNormal(const ParameterPlace& place) {
  const RandomKey key{.seed = options_.seed, .name = HashName(place.spec.name)};
  int64_t offset = place.value;
  for (const Slice& slice : place.spec.slices) {
    TensorView values = Floats(offset, slice.elements());
    values.shape = {slice.rows, slice.columns};
    operations_.InitNormal(*stream_, {.key = key,
                                      .deviation = place.spec.deviation,
                                      .target = values,
                                      .first = slice.row * place.spec.complete_columns + slice.column,
                                      .stride = place.spec.complete_columns});
    offset += 4 * slice.elements();
  }
}

// The slices whose holders have made parts of the gradient. All shards take part, and each picks its holders' parts.
void LayerStage::SumOverShards(const SumPlace& place) {
  std::array<TensorView, kMaxTensorParallel> parts;
  int64_t end = 0;  // of the slice's elements
  for (const Slice& slice : layout_.parameters[place.parameter].spec.slices) {
    int64_t begin = std::max(end, place.begin), count = 0;
    end += slice.elements();
    for (; slice.partial_gradient && begin < std::min(end, place.begin + place.count); begin += count) {
      count = std::min(layout_.shared_elements, std::min(end, place.begin + place.count) - begin);
      const TensorView mine = Floats(place.sum + 4 * (begin - place.begin), count);
      const int64_t gathered = layout_.scratch + layout_.shared_gradients;
      group_->AllGather(*stream_, mine, Floats(gathered, group_->size() * count));
      const int first = group_->index() - slice.holder;
      for (int i = 0; i < slice.holders; ++i) parts[i] = Floats(gathered + 4 * count * (first + i), count);
      operations_.SumInOrder(*stream_, {parts.data(), static_cast<size_t>(slice.holders)}, mine);
    }
  }
}

// Of what this member of this shard answers for, one parameter after another.
void LayerStage::WriteNormPartials(TensorView partials) {
  int64_t done = 0;
  for (const SumPlace& place : layout_.training.sums) {
    const ParameterPlace& parameter = layout_.parameters[place.parameter];
    const int64_t end = std::min(place.begin + place.count, parameter.spec.elements_answered_for());
    if (!parameter.answers() || end <= place.begin) continue;
    const int64_t blocks = NormBlocks(end - place.begin);
    operations_.SquaredNorm(*stream_, Floats(place.sum, end - place.begin),
                            {partials.data + 4 * done, DType::kF32, {blocks}});
    done += blocks;
  }
  CHECK_EQ(done, partials.elements());
}

// Shard after shard comes in; the global order is parameter after parameter, in which the cut doesn't show.
void LayerStage::GatherNormPartials(TensorView gathered, TensorView partials) {
  std::array<int64_t, kMaxTensorParallel + 1> begin{};  // of each shard's
  for (int shard = 0; shard < group_->size(); ++shard) {
    begin[shard + 1] = begin[shard];
    for (const ParameterPlace& place : layout_.parameters) {
      if (!place.norm_partials.empty()) begin[shard + 1] += place.norm_partials[shard];
    }
  }
  const auto part = [](const TensorView& all, int64_t first, int64_t count) {
    return TensorView{all.data + 4 * first, DType::kF32, {count}};
  };
  const int64_t first = begin[group_->index()];
  const TensorView mine = part(gathered, first, begin[group_->index() + 1] - first);
  WriteNormPartials(mine);
  if (norm_part_bytes_.empty()) {
    for (int shard = 0; shard < group_->size(); ++shard) {
      norm_part_bytes_.push_back(4 * (begin[shard + 1] - begin[shard]));
    }
  }
  group_->AllGather(*stream_, mine, norm_part_bytes_, gathered);
  int64_t done = 0;
  for (const ParameterPlace& place : layout_.parameters) {
    for (size_t shard = 0; shard < place.norm_partials.size(); ++shard) {
      const int64_t count = place.norm_partials[shard];
      if (count > 0) operations_.Copy(*stream_, part(gathered, begin[shard], count), part(partials, done, count));
      begin[shard] += count;
      done += count;
    }
  }
}

}  // namespace sluice
