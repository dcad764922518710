#include "kernels/cpu/onednn.h"

#include <array>
#include <dnnl.hpp>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "base/check.h"
#include "kernels/cpu/team.h"

namespace sluice::cpu {
namespace {

using Dims = dnnl::memory::dims;
using LibraryType = dnnl::memory::data_type;
using Tag = dnnl::memory::format_tag;

// The layout of a packed matrix is the one that the library chooses for this number of rows.
constexpr int64_t kTypicalRows = 128;

LibraryType TypeOf(DType type) {
  CHECK(type != DType::kI32);
  return type == DType::kBF16 ? LibraryType::bf16 : LibraryType::f32;
}

const dnnl::engine& Engine() {
  static const dnnl::engine* const engine = new dnnl::engine(dnnl::engine::kind::cpu, 0);
  return *engine;
}

// One stream per thread; a CPU stream of oneDNN only runs what it is given.
dnnl::stream& LibraryStream() {
  thread_local dnnl::stream stream(Engine());
  return stream;
}

dnnl::memory::desc Strided(int64_t rows, int64_t columns, DType type, int64_t row_stride, int64_t column_stride) {
  return {Dims{rows, columns}, TypeOf(type), Dims{row_stride, column_stride}};
}

dnnl::primitive_attr Attributes(Result result) {
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  if (result == Result::kAddTo) {
    dnnl::post_ops operations;
    operations.append_sum(1.0f);
    attributes.set_post_ops(operations);
  }
  return attributes;
}

dnnl::memory::desc ChooseLayout(const RightMatrix& matrix) {
  const DType type = matrix.type;
  if (matrix.layout == RightLayout::kRowMajor) return Strided(matrix.depth, matrix.columns, type, matrix.columns, 1);
  if (matrix.layout == RightLayout::kColumnMajor) return Strided(matrix.depth, matrix.columns, type, 1, matrix.depth);
  const dnnl::matmul::desc wish(Strided(kTypicalRows, matrix.depth, type, matrix.depth, 1),
                                dnnl::memory::desc(Dims{matrix.depth, matrix.columns}, TypeOf(type), Tag::any),
                                Strided(kTypicalRows, matrix.columns, type, matrix.columns, 1));
  return dnnl::matmul::primitive_desc(wish, Attributes(Result::kWrite), Engine()).weights_desc();
}

// A matmul with its memory objects, whose addresses are set anew for each call.
class Matmul {
 public:
  Matmul(const dnnl::memory::desc& x, const dnnl::memory::desc& w, const dnnl::memory::desc& y,
         const dnnl::memory::desc* bias, Result result)
      : Matmul(bias == nullptr ? dnnl::matmul::primitive_desc({x, w, y}, Attributes(result), Engine())
                               : dnnl::matmul::primitive_desc({x, w, *bias, y}, Attributes(result), Engine()),
               bias != nullptr) {}

  const std::string& implementation() const { return implementation_; }

  void Run(const void* x, const void* w, const float* bias, void* y) {
    Set(DNNL_ARG_SRC, x);
    Set(DNNL_ARG_WEIGHTS, w);
    Set(DNNL_ARG_DST, y);
    if (has_bias_) Set(DNNL_ARG_BIAS, bias);
    if (scratch_bytes_ > 0) Set(DNNL_ARG_SCRATCHPAD, ThreadScratch(ScratchSlot::kLibrary, scratch_bytes_));
    primitive_.execute(LibraryStream(), arguments_);
  }

 private:
  Matmul(const dnnl::matmul::primitive_desc& choice, bool has_bias)
      : primitive_(choice),
        implementation_(choice.impl_info_str()),
        has_bias_(has_bias),
        scratch_bytes_(choice.scratchpad_desc().get_size()) {
    Add(DNNL_ARG_SRC, choice.src_desc());
    Add(DNNL_ARG_WEIGHTS, choice.weights_desc());
    Add(DNNL_ARG_DST, choice.dst_desc());
    if (has_bias) Add(DNNL_ARG_BIAS, choice.bias_desc());
    if (scratch_bytes_ > 0) Add(DNNL_ARG_SCRATCHPAD, choice.scratchpad_desc());
  }
  void Add(int argument, const dnnl::memory::desc& description) {
    arguments_.emplace(argument, dnnl::memory(description, Engine(), nullptr));
  }
  // The library takes addresses of what it only reads as void* too.
  void Set(int argument, const void* data) { arguments_.at(argument).set_data_handle(const_cast<void*>(data)); }

  dnnl::matmul primitive_;
  std::string implementation_;
  bool has_bias_;
  int64_t scratch_bytes_;
  std::unordered_map<int, dnnl::memory> arguments_;
};

using Key = std::array<int64_t, 7>;

// This thread's primitives. A training job has some dozens of shapes.
template <class Make>
Matmul& Cached(const Key& key, Make make) {
  thread_local absl::flat_hash_map<Key, std::unique_ptr<Matmul>> cache;
  std::unique_ptr<Matmul>& entry = cache[key];
  if (entry == nullptr) entry = std::make_unique<Matmul>(make());
  return *entry;
}

const dnnl::memory::desc& Layout(const RightMatrix& matrix) {
  thread_local absl::flat_hash_map<std::array<int64_t, 4>, dnnl::memory::desc> cache;
  const std::array<int64_t, 4> key = {matrix.depth, matrix.columns, static_cast<int64_t>(matrix.type),
                                      static_cast<int64_t>(matrix.layout)};
  auto found = cache.find(key);
  if (found == cache.end()) found = cache.emplace(key, ChooseLayout(matrix)).first;
  return found->second;
}

int64_t Flags(int64_t kind, DType a, DType b, Result result, bool bias) {
  return kind | static_cast<int64_t>(a) << 8 | static_cast<int64_t>(b) << 16 | static_cast<int64_t>(result) << 24 |
         int64_t{bias} << 32;
}

Matmul& MatmulOf(const RightProduct& p) {
  const Key key = {p.right.depth,
                   p.right.columns,
                   p.rows,
                   p.x_stride,
                   p.y_stride,
                   static_cast<int64_t>(p.right.layout),
                   Flags(0, p.right.type, p.y_type, p.result, p.has_bias)};
  return Cached(key, [&] {
    const dnnl::memory::desc bias_layout(Dims{1, p.right.columns}, LibraryType::f32, Tag::ab);
    return Matmul(Strided(p.rows, p.right.depth, p.right.type, p.x_stride, 1), Layout(p.right),
                  Strided(p.rows, p.right.columns, p.y_type, p.y_stride, 1), p.has_bias ? &bias_layout : nullptr,
                  p.result);
  });
}

Matmul& MatmulOf(const TransposedProduct& p) {
  const bool library = p.b_layout == RightLayout::kLibrary;
  const Key key = {p.rows,
                   p.columns,
                   p.depth,
                   p.a_stride,
                   p.b_stride,
                   p.y_stride,
                   Flags(library ? 2 : 1, p.type, DType::kF32, p.result, false)};
  return Cached(key, [&] {
    return Matmul(Strided(p.rows, p.depth, p.type, 1, p.a_stride),
                  library ? Layout({p.depth, p.columns, p.type}) : Strided(p.depth, p.columns, p.type, p.b_stride, 1),
                  Strided(p.rows, p.columns, DType::kF32, p.y_stride, 1), nullptr, p.result);
  });
}

}  // namespace

std::string InstructionSet() {
  switch (dnnl::get_effective_cpu_isa()) {
    case dnnl::cpu_isa::sse41:
      return "SSE4.1";
    case dnnl::cpu_isa::avx:
      return "AVX";
    case dnnl::cpu_isa::avx2:
      return "AVX2";
    case dnnl::cpu_isa::avx2_vnni:
      return "AVX2 with VNNI";
    case dnnl::cpu_isa::avx512_core:
      return "AVX-512";
    case dnnl::cpu_isa::avx512_core_vnni:
      return "AVX-512 with VNNI";
    case dnnl::cpu_isa::avx512_core_bf16:
      return "AVX-512 with bf16";
    case dnnl::cpu_isa::avx512_core_amx:
      return "AVX-512 with AMX and bf16";
    default:
      return "an instruction set without a name here";
  }
}

bool HasFastBFloat16() {
  static const bool has = [] {
    const dnnl::cpu_isa isa = dnnl::get_effective_cpu_isa();
    return isa == dnnl::cpu_isa::avx512_core_bf16 || isa == dnnl::cpu_isa::avx512_core_amx;
  }();
  return has;
}

bool HasTiles() { return dnnl::get_effective_cpu_isa() == dnnl::cpu_isa::avx512_core_amx; }

int64_t PackedBytes(const RightMatrix& matrix) { return static_cast<int64_t>(Layout(matrix).get_size()); }

void Pack(const RightMatrix& matrix, const float* source, SourceStrides strides, std::byte* packed) {
  Pack(matrix, source, DType::kF32, strides, packed);
}

void Pack(const RightMatrix& matrix, const void* source, DType source_type, SourceStrides strides, std::byte* packed) {
  dnnl::memory from(Strided(matrix.depth, matrix.columns, source_type, strides.depth, strides.column), Engine(),
                    const_cast<void*>(source));
  dnnl::memory to(Layout(matrix), Engine(), packed);
  dnnl::reorder(from, to).execute(LibraryStream(), from, to);
}

std::string ImplementationOf(const RightProduct& product) { return MatmulOf(product).implementation(); }

void Multiply(const RightProduct& p, const void* x, const void* right, const float* bias, void* y) {
  MatmulOf(p).Run(x, right, bias, y);
}

std::string ImplementationOf(const TransposedProduct& product) { return MatmulOf(product).implementation(); }

void Multiply(const TransposedProduct& p, const void* a, const void* b, float* y) { MatmulOf(p).Run(a, b, nullptr, y); }

}  // namespace sluice::cpu
