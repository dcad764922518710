// Times that no order of a layout can beat. All bounds hold for any order and any timing that keeps the dependencies,
// so they also bound what other methods could find.
//
// Let e be the start of rank r's first F (the same in all orders: it is F of micro-batch 0 at the rank's first stage,
// behind the same F of all stages before), C_r its end, a = e - origin the part of the objective before it (0 for the
// span), m micro-batches, u(r) the work of one micro-batch on r (F and the cheaper of B and I + W, over its stages).
//
// 1. Work. C_r - e >= m u(r) + idle(r). Before the rank's first I or B it can only do forwards. That first gradient
//    comes no sooner than D after e: the forward way of a micro-batch from the rank's first stage to the model's end
//    and the gradient's way back to the rank's last stage, since that micro-batch's first F on r is not before e. The
//    forwards done before D must all lie in memory, so their time is at most K: the best choice of forwards of which
//    the cap holds (each at most m times). So idle(r) >= D - K. (Zero-bubble paper, appendix B, for one stage per
//    rank.)
// 2. Cool-down, by the mirror image. After the rank's last F of its first stage has ended at time L, the way of that
//    micro-batch to the end of its W on r takes at least D'. Work left at L belongs to micro-batches in memory: those
//    whose first stage's I is to come hold its forward_bytes, the others hold weight_bytes for each W that is left. So
//    that work is at most K', a knapsack under the cap, and idle >= D' - K' after L. If the cap can't hold m forwards
//    of the first stage, L is after the first gradient's start, so that both idle times add up.
// 3. Residence (Little's law). A micro-batch occupies forward_bytes of each stage s on r from F's start to I's end, at
//    least the way there and back, then weight_bytes until its W has ended. The sum over m, plus what can't be used
//    while memory fills (at most one forward_bytes more per forward) and drains, is at most cap x (C_r - e).
// 4. Chains. After the last I of stage s on r the gradient has to pass the stages t = s-1 ... 0, and a rank of stage t
//    ends no sooner than that gradient's W there. Before it, r has done all of its forwards and gradients of s and all
//    W but those that the cap lets wait, and idled as in 1.
#pragma once

#include "scheduler/search/layout.h"

namespace sluice::search {

// Of both objectives, the layout's own is of no matter.
Times LowerBound(const Layout& layout);

// Of any schedule that SimulateSchedule times, two-copy ones too, at these costs: the work of the busiest rank, and the
// way of one micro-batch through the model.
Times WorkBound(const Placement& placement, int micro_batches, const Costs& costs);

}  // namespace sluice::search
