#include "tests/gpu_sim/fibers.h"

#include <boost/context/detail/fcontext.hpp>

namespace gpu_sim {

using boost::context::detail::jump_fcontext;
using boost::context::detail::make_fcontext;
using boost::context::detail::transfer_t;

struct FiberEntry {
  static void Enter(transfer_t transfer) {
    auto* fibers = static_cast<Fibers*>(transfer.data);
    fibers->contexts_[fibers->from_] = transfer.fctx;
    fibers->body_(fibers->argument_, fibers->to_);
  }
};

void Fibers::Start(int fiber) {
  // Tops at different distances from a page's start: else those of all stacks would share a few lines of the cache.
  const uintptr_t shift = fiber % 32 * 192;
  std::byte* const top = Shadow::Get().arena() + Shadow::kStack + (fiber + 1) * Shadow::kStackBytes - shift;
  contexts_[fiber] = make_fcontext(top, Shadow::kStackBytes - shift, FiberEntry::Enter);
}

void Fibers::Switch(int from, int to) {
  from_ = from;
  to_ = to;
  const transfer_t transfer = jump_fcontext(contexts_[to], this);
  contexts_[from_] = transfer.fctx;
}

}  // namespace gpu_sim
