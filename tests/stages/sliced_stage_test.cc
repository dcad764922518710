// Stages with several holders, on one host and exchanged by hand: each sums and updates its slice of the gradients, and
// all have the bits of one holder that does everything.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <numeric>

#include "base/philox.h"
#include "stages/families/gpt2.h"
#include "stages/families/llama.h"
#include "tests/stages/test_pipeline.h"

namespace sluice {
namespace {

constexpr int64_t kVocabulary = 300, kSequence = 6;
constexpr int kMicroBatches = 4, kSteps = 3;

// Matrices of several norm blocks, and vectors of much less than one.
LayerGraph Gpt2() {
  return Gpt2Graph({.layers = 1, .channels = 96, .heads = 4, .vocabulary = kVocabulary, .positions = 8}).value();
}
LayerGraph Llama() {
  return LlamaGraph({.layers = 1,
                     .channels = 96,
                     .heads = 4,
                     .kv_heads = 2,
                     .width = 200,
                     .vocabulary = kVocabulary,
                     .max_sequence = 8,
                     .tied = false})
      .value();
}

std::vector<ReferenceBatch> Batches(int64_t step) {
  std::vector<ReferenceBatch> batches;
  uint64_t state = 7 + step;
  for (int b = 0; b < kMicroBatches; ++b) {
    ReferenceBatch batch{.rows = 1, .sequence = kSequence, .seed = 5, .step = step};
    for (int64_t i = 0; i < kSequence; ++i) {
      state = MixBits(state);
      batch.tokens.push_back(static_cast<int32_t>(state % kVocabulary));
      batch.targets.push_back(static_cast<int32_t>((state >> 20) % kVocabulary));
      batch.positions.push_back(static_cast<int32_t>(i));
    }
    batch.samples.push_back(static_cast<int32_t>(step * kMicroBatches + b));
    batches.push_back(batch);
  }
  return batches;
}

// What REDUCE_GRAD and the COLLECTIVEs do, by copying between members that are at rest.
class Members {
 public:
  Members(const LayerGraph& graph, const std::vector<size_t>& cuts, StageOptions stage) {
    stage.rows = 1;
    stage.sequence = kSequence;
    stage.gradient_groups = kMicroBatches;
    for (stage.replica = 0; stage.replica < stage.replicas; ++stage.replica) {
      for (stage.copy = 0; stage.copy < stage.copies; ++stage.copy) {
        members_.push_back(std::make_unique<TestPipeline>(
            graph,
            TestPipelineOptions{
                .cuts = cuts, .stage = stage, .micro_batches = kMicroBatches / stage.members(), .max_norm = 0.1f}));
      }
    }
    zero1_ = stage.zero1;
  }

  // Returns the losses of all micro-batches and the norm.
  std::vector<float> Step(int64_t step) {
    const std::vector<ReferenceBatch> batches = Batches(step);
    for (auto& member : members_) member->IssuePasses(batches);
    AtRest();
    for (size_t s = 0; s < stages(); ++s) Reduce(s);
    for (auto& member : members_) {
      member->GatherTied();
      member->model().FinishGradients({});
    }
    AtRest();
    GatherNorms();
    if (!zero1_) Gather();
    for (auto& member : members_) member->model().OptimizerStep(1e-2f, step + 1, {});
    AtRest();
    if (zero1_) Gather();
    std::vector<float> numbers;
    StepControl control;
    for (auto& member : members_) {
      for (size_t s = 0; s < stages() && zero1_; ++s) member->stage(s)->FinishParameters({});
      const std::vector<float> losses = member->ReadLosses();
      numbers.insert(numbers.end(), losses.begin(), losses.end());
      std::memcpy(&control, member->model().control().data, sizeof(control));
      EXPECT_LT(control.scale, 1) << "clipping is part of the test";
    }
    numbers.push_back(control.norm);
    return numbers;
  }

  TestPipeline& member(size_t i) { return *members_[i]; }
  size_t size() const { return members_.size(); }

 private:
  size_t stages() const { return members_[0]->stages(); }
  void AtRest() {
    for (auto& member : members_) member->stream().Drain();
  }

  void Reduce(size_t s) {
    for (size_t e = 0; e < members_[0]->stage(s)->reductions().size(); ++e) {
      int64_t begin = 0;
      for (size_t to = 0; to < members_.size(); ++to) {
        const GradientReduction& target = members_[to]->stage(s)->reductions()[e];
        const int64_t bytes = target.parts[to];
        for (size_t from = 0; from < members_.size(); ++from) {
          const GradientReduction& source = members_[from]->stage(s)->reductions()[e];
          ASSERT_EQ(source.parts, target.parts);
          std::memcpy(target.all.data + from * bytes, source.mine.data + begin, bytes);
        }
        begin += bytes;
      }
    }
  }

  void Gather() {
    for (size_t s = 0; s < stages(); ++s) {
      for (size_t g = 0; g < members_[0]->stage(s)->gathers().size(); ++g) {
        int64_t begin = 0;
        for (auto& from : members_) {
          const SliceGather& source = from->stage(s)->gathers()[g];
          for (auto& to : members_) {
            std::memmove(to->stage(s)->gathers()[g].all.data + begin, source.mine.data, source.mine.bytes());
          }
          begin += source.mine.bytes();
        }
        ASSERT_EQ(begin, members_[0]->stage(s)->gathers()[g].all.bytes());
      }
    }
  }

  void GatherNorms() {
    int64_t begin = 0;
    for (auto& from : members_) {
      const TensorView mine = from->model().norm_mine();
      for (auto& to : members_) std::memcpy(to->model().norm_all().data + begin, mine.data, mine.bytes());
      begin += mine.bytes();
    }
    ASSERT_EQ(begin, members_[0]->model().norm_all().bytes());
  }

  std::vector<std::unique_ptr<TestPipeline>> members_;
  bool zero1_ = false;
};

struct SliceCase {
  std::string name;
  LayerGraph graph;
  std::vector<size_t> cuts;
  int replicas = 2;
  int copies = 1;
  int64_t bucket_bytes = kBucketBytes;
  Precision precision = Precision::kF32;
  friend void PrintTo(const SliceCase& c, std::ostream* out) { *out << c.name; }
};

class SlicedStages : public testing::TestWithParam<SliceCase> {
 protected:
  StageOptions Options(bool zero1, bool one = false) const {
    const SliceCase& c = GetParam();
    return {.precision = c.precision,
            .copies = one ? 1 : c.copies,
            .replicas = one ? 1 : c.replicas,
            .zero1 = zero1,
            .bucket_bytes = c.bucket_bytes,
            .seed = 5};
  }
};

TEST_P(SlicedStages, TrainWithTheBitsOfOneHolder) {
  const SliceCase& c = GetParam();
  Members one(c.graph, c.cuts, Options(false, true)), whole(c.graph, c.cuts, Options(false)),
      slices(c.graph, c.cuts, Options(true));
  for (int step = 0; step < kSteps; ++step) {
    const std::vector<float> numbers = one.Step(step);
    EXPECT_EQ(whole.Step(step), numbers) << "step " << step;
    EXPECT_EQ(slices.Step(step), numbers) << "step " << step << " with ZeRO-1";
  }
  const NamedFloats parameters = one.member(0).Read(StateKind::kParameter);
  for (size_t i = 0; i < whole.size(); ++i) {
    EXPECT_EQ(whole.member(i).Read(StateKind::kParameter), parameters);
    EXPECT_EQ(slices.member(i).Read(StateKind::kParameter), parameters);
    EXPECT_EQ(whole.member(i).Read(StateKind::kGradient), one.member(0).Read(StateKind::kGradient));
  }
}

TEST_P(SlicedStages, HashesTellWhoIsDifferentInWhat) {
  Members members(GetParam().graph, GetParam().cuts, Options(true));
  members.Step(0);
  const auto hashes = [&](size_t i) {
    LayerStage* const stage = members.member(i).stage(0);
    std::vector<uint64_t> all(stage->parameters().size());
    stage->HashParameters(absl::MakeSpan(all));
    members.member(i).stream().Drain();
    return all;
  };
  std::vector<uint64_t> expected = hashes(0);
  for (size_t i = 1; i < members.size(); ++i) EXPECT_EQ(hashes(i), expected);
  LayerStage* const stage = members.member(1).stage(0);
  const ParameterSpec spec = stage->parameters().back();
  std::vector<float> values(spec.elements());
  ASSERT_TRUE(stage->Read(StateKind::kParameter, spec.name, absl::MakeSpan(values)).ok());
  members.member(1).stream().Drain();
  values.back() = std::nextafter(values.back(), 1.0f);
  ASSERT_TRUE(stage->Write(StateKind::kParameter, spec.name, values).ok());
  const std::vector<uint64_t> other = hashes(1);
  EXPECT_NE(other.back(), expected.back());
  expected.back() = other.back();
  EXPECT_EQ(other, expected) << "of the others nothing has changed";
}

// Each has its elements of m and v, and together they have all of them.
TEST_P(SlicedStages, WithZeRO1TheOptimizersStateIsInOnePlaceOnly) {
  const SliceCase& c = GetParam();
  Members one(c.graph, c.cuts, Options(false, true)), slices(c.graph, c.cuts, Options(true));
  one.Step(0);
  slices.Step(0);
  int64_t bytes = 0;
  for (size_t s = 0; s < one.member(0).stages(); ++s) {
    LayerStage* const reference = one.member(0).stage(s);
    bytes += reference->memory().optimizer -
             static_cast<int64_t>(slices.size()) * slices.member(0).stage(s)->memory().optimizer;
    for (const ParameterSpec& spec : reference->parameters()) {
      std::vector<float> expected(spec.elements()), all(spec.elements(), -1), seen(spec.elements());
      ASSERT_TRUE(reference->Read(StateKind::kSecondMoment, spec.name, absl::MakeSpan(expected)).ok());
      one.member(0).stream().Drain();
      for (size_t i = 0; i < slices.size(); ++i) {
        LayerStage* const stage = slices.member(i).stage(s);
        ASSERT_TRUE(stage->Read(StateKind::kSecondMoment, spec.name, absl::MakeSpan(all)).ok());
        slices.member(i).stream().Drain();
        for (const LayerStage::Elements& held : stage->HeldState(spec.name)) {
          for (int64_t e = held.begin; e < held.begin + held.count; ++e) ++seen[e];
        }
      }
      EXPECT_EQ(all, expected) << spec.name;
      EXPECT_EQ(seen, std::vector<float>(seen.size(), 1)) << spec.name;
    }
  }
  // The largest slice is what all have room for.
  EXPECT_LE(bytes, 0);
  EXPECT_LT(slices.member(0).stage(0)->memory().optimizer, one.member(0).stage(0)->memory().optimizer);
}

INSTANTIATE_TEST_SUITE_P(, SlicedStages,
                         testing::Values(SliceCase{"TwoReplicas", Gpt2(), {}},
                                         SliceCase{"TwoCopies", Gpt2(), {2}, 1, 2},
                                         SliceCase{"FourMembers", Gpt2(), {2}, 2, 2, 4 * kNormBlock},
                                         SliceCase{"SmallBuckets", Gpt2(), {1, 3}, 2, 1, 8 * kNormBlock},
                                         SliceCase{"Untied", Llama(), {2}, 4, 1, 100000},
                                         SliceCase{"BF16", Gpt2(), {}, 4, 1, kBucketBytes, Precision::kBF16}),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace sluice
