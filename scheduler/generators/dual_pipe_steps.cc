#include "scheduler/generators/dual_pipe_steps.h"

#include <deque>

namespace sluice {
namespace {

class Emitter {
 public:
  Emitter(const DualPipeSide& near, const DualPipeSide& far, std::vector<Action>& actions)
      : sides_{{near}, {far}}, actions_(actions) {}

  enum Side { kNear, kFar };

  void F(Side side) { actions_.push_back(Forward(Stage(side), Next(side, sides_[side].forwards), Copy(side))); }
  void B(Side side) { actions_.push_back(Backward(Stage(side), Next(side, sides_[side].backwards), Copy(side))); }
  void I(Side side) {
    actions_.push_back(InputGradient(Stage(side), Next(side, sides_[side].backwards), Copy(side)));
    Action weight = actions_.back();
    weight.kind = ActionKind::kWeightGradient;
    weights_.push_back(weight);
  }
  void W() {
    actions_.push_back(weights_.front());
    weights_.pop_front();
  }
  void Pair(Side forward, Side backward) {
    F(forward);
    actions_.back().flags = kOverlapsNext;
    B(backward);
  }

 private:
  struct State {
    DualPipeSide side;
    int forwards = 0, backwards = 0;
  };
  StageId Stage(Side side) const { return sides_[side].side.stage; }
  int Copy(Side side) const { return sides_[side].side.copy; }
  MicroBatch Next(Side side, int& counter) { return MicroBatch(sides_[side].side.first + counter++); }

  State sides_[2];
  std::vector<Action>& actions_;
  std::deque<Action> weights_;  // not yet emitted, first in first out
};

}  // namespace

void DualPipeSteps(const DualPipeShape& shape, const DualPipeSide& near, const DualPipeSide& far,
                   std::vector<Action>& actions) {
  constexpr auto kNear = Emitter::kNear, kFar = Emitter::kFar;
  Emitter emit(near, far, actions);
  const int outer = shape.half - shape.distance - 1, inner = shape.distance + 1;
  for (int i = 0; i < 2 * outer; ++i) emit.F(kNear);                        // 1
  for (int i = 0; i < inner; ++i) emit.F(kNear), emit.F(kFar);              // 2
  for (int i = 0; i < outer; ++i) emit.I(kFar), emit.W(), emit.F(kFar);     // 3
  for (int i = 0; i < shape.micro_batches - 2 * shape.half + inner; ++i) {  // 4
    if (i == 0 && shape.split_first_pair) {
      emit.F(kNear), emit.B(kFar);
    } else {
      emit.Pair(kNear, kFar);
    }
    emit.Pair(kFar, kNear);
  }
  for (int i = 0; i < outer; ++i) emit.B(kFar), emit.Pair(kFar, kNear);  // 5
  // 6. From the middle on the backward passes are split: before B(far) on odd ranks, after it on even ones.
  bool split = false;
  for (int i = 0; i < inner; ++i) {
    const bool now = i == inner / 2;
    if (now && shape.distance % 2 == 1) split = true;
    split ? emit.I(kFar) : emit.B(kFar);
    if (now && shape.distance % 2 == 0) split = true;
    split ? emit.I(kNear) : emit.B(kNear);
  }
  for (int i = 0; i < outer; ++i) emit.W(), emit.I(kNear);  // 7
  for (int i = 0; i < inner; ++i) emit.W();                 // 8
}

}  // namespace sluice
