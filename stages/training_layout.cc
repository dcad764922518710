#include "stages/training_layout.h"

#include <algorithm>
#include <limits>

#include "kernels/operations.h"

namespace sluice {
namespace {

int64_t Bytes(const ParameterPlace& place) { return 4 * place.spec.elements(); }
bool SharedByShards(const ParameterSpec& spec) {
  return std::any_of(spec.slices.begin(), spec.slices.end(), [](const Slice& slice) { return slice.partial_gradient; });
}
int64_t Largest(const std::vector<int64_t>& bytes) { return *std::max_element(bytes.begin(), bytes.end()); }

}  // namespace

FlatGradients::FlatGradients(const std::vector<StageParameter>& parameters, int members, int64_t bucket_bytes) {
  std::vector<GradientTensor> tensors;
  const auto add = [&](size_t p, size_t use, int group) {
    uses_.push_back({p, parameters[p].use_here[use], parameters[p].layers[use], use == 0});
    tensors.push_back({parameters[p].spec.elements(), group});
  };
  for (const bool shared : {false, true}) {
    for (size_t p = 0; p < parameters.size(); ++p) {
      if (parameters[p].uses == 1 && SharedByShards(parameters[p].spec) == shared) add(p, 0, shared ? 1 : 0);
    }
  }
  int group = 1;
  for (size_t p = 0; p < parameters.size(); ++p) {
    if (parameters[p].uses > 1) add(p, 0, ++group);
  }
  for (size_t p = 0; p < parameters.size(); ++p) {
    for (size_t use = 1; use < parameters[p].use_here.size(); ++use) add(p, use, ++group);
  }
  slices_ = SliceGradients(tensors, members, bucket_bytes);
}

std::vector<SliceRun> FlatGradients::RunsByParameter() const {
  std::vector<SliceRun> runs;
  std::copy_if(slices_.runs.begin(), slices_.runs.end(), std::back_inserter(runs),
               [&](const SliceRun& run) { return uses_[run.tensor].first; });
  std::stable_sort(runs.begin(), runs.end(), [&](const SliceRun& a, const SliceRun& b) {
    return uses_[a.tensor].parameter < uses_[b.tensor].parameter;
  });
  return runs;
}

int64_t FlatGradients::parameter_bytes() const {
  const auto further = std::find_if(uses_.begin(), uses_.end(), [](const Use& use) { return !use.first; });
  return further == uses_.end() ? slices_.bytes : slices_.tensor_begin[further - uses_.begin()];
}

TrainingPlanner::TrainingPlanner(const StageOptions& options, std::vector<ParameterPlace>* parameters, Packer* arena)
    : options_(options), parameters_(*parameters), arena_(*arena), gradients_(parameters->size()) {
  if (options.purpose == StagePurpose::kInference || options.members() == 1) return;
  flat_.emplace(std::vector<StageParameter>(parameters->begin(), parameters->end()), options.members(),
                options.bucket_bytes);
}

void TrainingPlanner::PlaceValues() {
  if (!flat_) {
    for (ParameterPlace& place : parameters_) place.value = arena_.Take(Bytes(place));
    return;
  }
  values_ = arena_.Take(flat_->parameter_bytes());
  for (size_t t = 0; t < flat_->uses().size(); ++t) {
    const FlatGradients::Use& use = flat_->uses()[t];
    if (use.first) parameters_[use.parameter].value = values_ + flat_->slices().tensor_begin[t];
  }
}

TrainingLayout TrainingPlanner::PlaceTraining(StageMemory* memory) {
  const int64_t begin = arena_.used();
  flat_ ? PlaceSliced() : PlaceWhole();
  memory->gradients = arena_.used() - begin;
  flat_&& options_.zero1 ? PlaceSliceUpdates() : PlaceUpdates();
  memory->optimizer = arena_.used() - begin - memory->gradients;
  if (options_.keeps_state) {
    const int64_t kept = arena_.used();
    for (UpdatePlace& update : layout_.updates) update.kept = arena_.Take(3 * 4 * update.count);
    memory->kept = arena_.used() - kept;
  }
  return std::move(layout_);
}

// [uses, G, elements] of each parameter. The sum comes where the first partial was.
void TrainingPlanner::PlaceWhole() {
  for (size_t p = 0; p < parameters_.size(); ++p) {
    ParameterPlace& place = parameters_[p];
    const int64_t partial = Bytes(place), groups = options_.gradient_groups;
    const int64_t all = arena_.Take(place.uses * groups * partial);
    place.partial_stride = partial;
    for (const int use : place.use_here) place.partials.push_back(all + use * groups * partial);
    gradients_[p] = all;
    layout_.sums.push_back({.parameter = static_cast<int>(p),
                            .count = place.spec.elements(),
                            .partials = all,
                            .use_stride = groups * partial,
                            .group_stride = partial,
                            .sum = all});
    if (static_cast<int>(place.use_here.size()) == place.uses) continue;
    for (const int64_t mine : place.partials) {
      layout_.tied.push_back({.parameter = static_cast<int>(p),
                              .gather = {{mine, groups * partial}, {}, {all, place.uses * groups * partial}}});
    }
  }
}

// This member's partials [share, flat order], then what it receives. The sum of its slice comes into its first partial,
// of which the others have got theirs by then.
void TrainingPlanner::PlaceSliced() {
  const GradientSlices& slices = flat_->slices();
  own_ = arena_.Take(share() * slices.bytes);
  for (size_t t = 0; t < flat_->uses().size(); ++t) {
    const FlatGradients::Use& use = flat_->uses()[t];
    ParameterPlace& place = parameters_[use.parameter];
    place.partial_stride = slices.bytes;
    place.partials.push_back(own_ + slices.tensor_begin[t]);
    if (use.first) gradients_[use.parameter] = place.partials.front();
  }
  layer_of_bucket_.assign(slices.buckets.size(), std::numeric_limits<int>::max());
  for (const SliceRun& run : slices.runs) {
    int& layer = layer_of_bucket_[run.bucket];
    layer = std::min(layer, flat_->uses()[run.tensor].layer);
  }
  size_t piece = 0;
  const SliceRun* before = nullptr;
  for (const SliceRun& run : slices.runs) {
    if (before == nullptr || run.bucket != before->bucket) {
      piece = before != nullptr && before->tensor == run.tensor ? piece + 1 : 0;
      PlaceBucket(run.bucket, flat_->uses()[run.tensor], piece);
    }
    before = &run;
  }
  // What is there first goes first.
  std::stable_sort(layout_.reductions.begin(), layout_.reductions.end(),
                   [](const ReductionPlace& a, const ReductionPlace& b) { return a.layer > b.layer; });
  PlaceSums();
}

// Receives [uses, share, members, slice]; all members take the room of the largest slice. The uses of a tied parameter
// have buckets of their own, cut alike, and come together. `piece` counts those of one use.
void TrainingPlanner::PlaceBucket(size_t b, const FlatGradients::Use& use, size_t piece) {
  const GradientBucket& bucket = flat_->slices().buckets[b];
  const ParameterPlace& place = parameters_[use.parameter];
  const int64_t members = options_.members(), groups = options_.gradient_groups;
  const int64_t slice = bucket.slice_bytes[options_.member()], largest = Largest(bucket.slice_bytes);
  const auto [at, added] = pieces_.try_emplace({use.parameter, piece}, 0);
  if (use.first) {
    at->second = arena_.Take(place.uses * groups * largest);
    const int64_t from = (options_.zero1 ? values_ : own_) + bucket.begin;
    layout_.gathers.push_back({.mine = {from + bucket.bytes_before(options_.member()), slice},
                               .parts = bucket.slice_bytes,
                               .all = {from, bucket.bytes()}});
  }
  const int64_t all = at->second, mine = all + (place.uses > 1 ? use.use : 0) * groups * slice;
  received_.push_back(all);
  for (int64_t j = 0; j < share(); ++j) {
    layout_.reductions.push_back({.layer = layer_of_bucket_[b],
                                  .mine = {own_ + j * flat_->slices().bytes + bucket.begin, bucket.bytes()},
                                  .parts = bucket.slice_bytes,
                                  .all = {mine + j * members * slice, members * slice}});
  }
  if (static_cast<int>(place.use_here.size()) < place.uses && slice > 0) {
    layout_.tied.push_back({.parameter = static_cast<int>(use.parameter),
                            .piece = static_cast<int>(piece),
                            .gather = {{mine, groups * slice}, {}, {all, place.uses * groups * slice}}});
  }
}

void TrainingPlanner::PlaceSums() {
  const GradientSlices& slices = flat_->slices();
  for (const SliceRun& run : flat_->RunsByParameter()) {
    if (run.member != options_.member()) continue;
    const int64_t slice = slices.buckets[run.bucket].slice_bytes[run.member];
    layout_.sums.push_back({.parameter = static_cast<int>(flat_->uses()[run.tensor].parameter),
                            .begin = run.begin,
                            .count = run.count,
                            .partials = received_[run.bucket] + run.offset,
                            .use_stride = options_.gradient_groups * slice,
                            .member_stride = slice,
                            .group_stride = options_.members() * slice,
                            .sum = own_ + slices.tensor_begin[run.tensor] + 4 * run.begin});
  }
}

void TrainingPlanner::PlaceUpdates() {
  for (size_t p = 0; p < parameters_.size(); ++p) {
    layout_.updates.push_back({.parameter = static_cast<int>(p),
                               .count = parameters_[p].spec.elements(),
                               .gradient = gradients_[p],
                               .m = arena_.Take(Bytes(parameters_[p])),
                               .v = arena_.Take(Bytes(parameters_[p]))});
  }
}

// ZeRO-1. All members take the room of the largest one's slices.
void TrainingPlanner::PlaceSliceUpdates() {
  std::vector<int64_t> bytes(options_.members());
  for (const SliceRun& run : flat_->RunsByParameter()) bytes[run.member] += RoundUpToPiece(4 * run.count);
  int64_t m = arena_.Take(Largest(bytes)), v = arena_.Take(Largest(bytes));
  for (const SumPlace& sum : layout_.sums) {
    layout_.updates.push_back(
        {.parameter = sum.parameter, .begin = sum.begin, .count = sum.count, .gradient = sum.sum, .m = m, .v = v});
    m += RoundUpToPiece(4 * sum.count);
    v += RoundUpToPiece(4 * sum.count);
  }
}

std::vector<std::vector<std::vector<NormRun>>> NormRunsByParameter(const LayerGraph& graph, NodeRange range,
                                                                   const StageOptions& options) {
  std::vector<std::vector<std::vector<NormRun>>> runs;
  TensorParallel tensor = options.tensor_parallel;
  for (tensor.index = 0; tensor.index < tensor.size; ++tensor.index) {
    const auto parameters = StageParameters(graph, range.begin, range.end, tensor);
    runs.resize(parameters.size());
    for (size_t p = 0; p < parameters.size(); ++p) {
      if (parameters[p].answers()) runs[p].emplace_back();
    }
    const auto add = [&](size_t p, int member, int64_t begin, int64_t count) {
      const int64_t end = std::min(begin + count, parameters[p].spec.elements_answered_for());
      if (parameters[p].answers() && begin < end) runs[p].back().push_back({member, NormBlocks(end - begin)});
    };
    if (options.members() == 1) {
      for (size_t p = 0; p < parameters.size(); ++p) add(p, 0, 0, parameters[p].spec.elements());
      continue;
    }
    const FlatGradients flat(parameters, options.members(), options.bucket_bytes);
    for (const SliceRun& run : flat.RunsByParameter()) {
      add(flat.uses()[run.tensor].parameter, run.member, run.begin, run.count);
    }
  }
  return runs;
}

std::vector<NormRun> NormRuns(const LayerGraph& graph, NodeRange range, const StageOptions& options) {
  std::vector<NormRun> all;
  for (const auto& of_parameter : NormRunsByParameter(graph, range, options)) {
    for (const auto& of_shard : of_parameter) {
      for (const NormRun& run : of_shard) {
        if (all.empty() || all.back().member != run.member) all.push_back({.member = run.member});
        all.back().count += run.count;
      }
    }
  }
  return all;
}

}  // namespace sluice
