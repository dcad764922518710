// What every Stage promises, as one suite: include it, and instantiate StageConformance with a factory per
// implementation. Sees stages only through their interface; whether gradients are right is each implementation's own
// test.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "base/world.h"
#include "kernels/device.h"
#include "kernels/operations.h"
#include "stages/stage.h"

namespace sluice {

// Two consecutive stages that make a model, each with two stash and two gradient stash slots and two gradient groups,
// for up to two micro-batches of `rows` x `sequence` tokens below `vocabulary`. Their backward pass may be split.
struct StagesUnderTest {
  std::unique_ptr<World> world;
  std::unique_ptr<Device> device;
  std::unique_ptr<Stream> stream;
  std::vector<std::unique_ptr<Stage>> stages;
  int64_t message_bytes = 0;
  int64_t rows = 0, sequence = 0, vocabulary = 0;
};

struct StagesFactory {
  std::string name;
  std::function<StagesUnderTest()> make;
  friend void PrintTo(const StagesFactory& factory, std::ostream* out) { *out << factory.name; }
};

class StageConformance : public testing::TestWithParam<StagesFactory> {
 protected:
  // A model and everything that its passes need.
  class Model {
   public:
    explicit Model(StagesUnderTest under_test) : t(std::move(under_test)) {
      for (auto* slots : {&activations, &gradients}) {
        for (int i = 0; i < 2; ++i) slots->push_back({t.device->Allocate(t.message_bytes, "message").value()});
      }
      const int64_t tokens = t.rows * t.sequence;
      for (int64_t i = 0; i < tokens; ++i) {
        text.push_back(static_cast<int32_t>(i * i * 3 % t.vocabulary));
        targets.push_back(i % 6 == 5 ? -1 : static_cast<int32_t>((i * 7 + 1) % t.vocabulary));
        positions.push_back(static_cast<int32_t>(i % t.sequence));
      }
      for (int64_t row = 0; row < t.rows; ++row) samples.push_back(static_cast<int32_t>(row));
    }

    MicroBatchInfo Info(int index, Accumulate accumulate = Accumulate::kOverwrite) const {
      return {.index = MicroBatch(index),
              .rows = t.rows,
              .sequence = t.sequence,
              .tokens = text,
              .targets = targets,
              .positions = positions,
              .samples = samples,
              .loss_scale = 1.0f / static_cast<float>(targets.size()),
              .gradient_group = index,
              .accumulate = accumulate,
              .head_accumulate = accumulate};
    }
    StageSlots First(int i) {
      return {.output = &activations[i], .output_gradient = &gradients[i], .stash = i, .gradient_stash = i};
    }
    StageSlots Last(int i) {
      return {.input = &activations[i], .input_gradient = &gradients[i], .stash = i, .gradient_stash = i};
    }
    Stage& first() { return *t.stages[0]; }
    Stage& last() { return *t.stages[1]; }

    void Forward(int i) {
      first().Forward(Info(i), First(i), {});
      last().Forward(Info(i), Last(i), {});
    }
    void Backward(int i) {
      last().Backward(Info(i), Last(i), {});
      first().Backward(Info(i), First(i), {});
    }
    void SplitBackward(int i) {
      last().InputGradient(Info(i), Last(i), {});
      first().InputGradient(Info(i), First(i), {});
      last().WeightGradient(Info(i), Last(i), {});
      first().WeightGradient(Info(i), First(i), {});
    }
    // Gathers, finishes and returns the norm partials of both stages.
    std::vector<float> Finish() {
      for (const auto& holder : t.stages) {
        for (const TiedGradient& target : holder->tied()) Gather(target);
      }
      const int64_t counts[2] = {first().norm_partials(), last().norm_partials()};
      partials = t.device->Allocate(4 * (counts[0] + counts[1] + 1), "partials").value();
      const TensorView all{partials.data(), DType::kF32, {counts[0] + counts[1] + 1}};
      t.device->operations().Fill(*t.stream, all, -1);
      first().FinishGradients({partials.data(), DType::kF32, {counts[0]}}, {});
      last().FinishGradients({partials.data() + 4 * counts[0], DType::kF32, {counts[1]}}, {});
      return ToHost(all);
    }
    void Gather(const TiedGradient& target) {
      for (const auto& holder : t.stages) {
        for (const TiedGradient& source : holder->tied()) {
          TensorView part = source.mine;
          part.data = target.all.data + source.use * source.mine.bytes();
          if (source.name == target.name) t.device->operations().Copy(*t.stream, source.mine, part);
        }
      }
    }
    void Optimize(StepControl decision) {
      control = t.device->Allocate(sizeof(decision), "control").value();
      const TensorView view{control.data(), DType::kF32, {4}};
      t.stream->CopyToDevice(&decision, view);
      for (const auto& stage : t.stages) stage->OptimizerStep({view, 0.01f, 1}, {});
      EXPECT_TRUE(t.world->Wait(t.stream->Record()).ok());
    }
    std::vector<float> ToHost(TensorView view) {
      std::vector<float> host(view.elements());
      t.stream->CopyToHost(view, host.data());
      EXPECT_TRUE(t.world->Wait(t.stream->Record()).ok());
      return host;
    }
    std::vector<float> Losses() { return ToHost(last().losses()); }

    StagesUnderTest t;
    std::vector<Slot> activations, gradients;
    std::vector<int32_t> text, targets, positions, samples;
    Buffer partials, control;
  };
};

TEST_P(StageConformance, AnActionReturnsAtOnceAndWaitsForWhatItIsGiven) {
  Model m(GetParam().make());
  auto gate = MakeRef<Signal>();
  const EventRef held = m.first().Forward(m.Info(0), m.First(0), {EventRef(gate)});
  const EventRef next = m.last().Forward(m.Info(0), m.Last(0), {});
  EXPECT_FALSE(held->Done());
  EXPECT_FALSE(next->Done());
  gate->Set(absl::OkStatus(), m.t.world->Now());
  EXPECT_TRUE(m.t.world->Wait(held).ok());
  EXPECT_TRUE(m.t.world->Wait(next).ok());
  EXPECT_LE(gate->ended(), held->began());
  EXPECT_LE(held->began(), held->ended());
  EXPECT_LE(held->ended(), next->began());
}

TEST_P(StageConformance, AnErrorItWaitsForBecomesItsOwnAndThatOfAllLater) {
  Model m(GetParam().make());
  auto broken = MakeRef<Signal>();
  broken->Set(absl::UnavailableError("peer is gone"), 0);
  const EventRef first = m.first().Forward(m.Info(0), m.First(0), {EventRef(broken)});
  const EventRef second = m.first().Backward(m.Info(0), m.First(0), {});
  EXPECT_EQ(m.t.world->Wait(first).message(), "peer is gone");
  EXPECT_EQ(m.t.world->Wait(second).message(), "peer is gone");
}

TEST_P(StageConformance, OnlyTheStageThatEndsInTheLossHasLosses) {
  Model m(GetParam().make());
  for (int i = 0; i < 2; ++i) {
    m.Forward(i);
    m.Backward(i);
  }
  EXPECT_FALSE(m.first().losses());
  EXPECT_FALSE(m.first().logits());
  EXPECT_FALSE(m.last().logits());
  const std::vector<float> losses = m.Losses();
  ASSERT_EQ(losses.size(), 2u);
  EXPECT_GT(losses[0], 0);
  EXPECT_EQ(losses[0], losses[1]) << "the same text in another slot";
}

TEST_P(StageConformance, InputAndWeightGradientGiveTheBitsOfBackward) {
  Model whole(GetParam().make()), split(GetParam().make());
  for (Model* m : {&whole, &split}) {
    m->Forward(0);
    m->Forward(1);
  }
  whole.Backward(0);
  whole.Backward(1);
  split.SplitBackward(0);
  split.SplitBackward(1);
  const TensorView message{whole.gradients[1].buffer.data(), DType::kF32, {whole.t.message_bytes / 4}};
  const TensorView other{split.gradients[1].buffer.data(), DType::kF32, {split.t.message_bytes / 4}};
  const std::vector<float> a = whole.ToHost(message), b = split.ToHost(other);
  EXPECT_EQ(std::memcmp(a.data(), b.data(), 4 * a.size()), 0);
  EXPECT_EQ(whole.Finish(), split.Finish());
}

TEST_P(StageConformance, FinishWritesItsPartialsAndNoMore) {
  Model m(GetParam().make());
  for (int i = 0; i < 2; ++i) {
    m.Forward(i);
    m.Backward(i);
  }
  const std::vector<float> partials = m.Finish();
  for (size_t i = 0; i + 1 < partials.size(); ++i) EXPECT_GE(partials[i], 0) << i;
  EXPECT_EQ(partials.back(), -1);
}

TEST_P(StageConformance, OverwritingForgetsTheStepBefore) {
  Model once(GetParam().make()), twice(GetParam().make());
  for (int repeat = 0; repeat < 2; ++repeat) {
    for (Model* m : {&once, &twice}) {
      if (m == &once && repeat == 1) continue;
      for (int i = 0; i < 2; ++i) {
        m->Forward(i);
        m->Backward(i);
      }
    }
  }
  EXPECT_EQ(once.Finish(), twice.Finish());
}

TEST_P(StageConformance, AddingDoublesWhatIsThere) {
  Model once(GetParam().make()), added(GetParam().make());
  for (Model* m : {&once, &added}) {
    for (int i = 0; i < 2; ++i) {
      m->Forward(i);
      m->Backward(i);
    }
  }
  for (int i = 0; i < 2; ++i) {
    added.Forward(i);
    added.last().Backward(added.Info(i, Accumulate::kAdd), added.Last(i), {});
    added.first().Backward(added.Info(i, Accumulate::kAdd), added.First(i), {});
  }
  const std::vector<float> one = once.Finish(), two = added.Finish();
  // x + x is exact, a sum of several tokens' contributions to what is there nearly so.
  for (size_t i = 0; i + 1 < one.size(); ++i) EXPECT_NEAR(two[i], 4 * one[i], 1e-4f * two[i]) << i;
}

TEST_P(StageConformance, SlotsMayMoveBetweenActions) {
  Model still(GetParam().make()), moving(GetParam().make());
  for (Model* m : {&still, &moving}) {
    const auto swap = [&](std::vector<Slot>* slots) {
      if (m == &moving) std::swap((*slots)[0].buffer, (*slots)[1].buffer);
    };
    m->Forward(0);
    // The message of micro-batch 0 moves on to slot 1's memory, as a transport may make it.
    const TensorView from{m->activations[0].buffer.data(), DType::kF32, {m->t.message_bytes / 4}};
    const TensorView to{m->activations[1].buffer.data(), DType::kF32, {m->t.message_bytes / 4}};
    m->t.device->operations().Copy(*m->t.stream, from, to);
    swap(&m->activations);
    swap(&m->gradients);
    m->Backward(0);
    m->Forward(1);
    m->Backward(1);
  }
  EXPECT_EQ(still.Finish(), moving.Finish());
}

TEST_P(StageConformance, TheOptimizerLowersTheLossUnlessToldToSkip) {
  Model m(GetParam().make());
  const auto pass = [&] {
    for (int i = 0; i < 2; ++i) {
      m.Forward(i);
      m.Backward(i);
    }
    m.Finish();
    return m.Losses()[0];
  };
  const float before = pass();
  m.Optimize({.scale = 1, .skip = 1});
  EXPECT_EQ(pass(), before);
  m.Optimize({.scale = 1});
  EXPECT_LT(pass(), before);
}

}  // namespace sluice
