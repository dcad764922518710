// What the bodies of kernels share: the functions of kernels/cpu on the kernels' buffers, by one thread.
#pragma once

#include "kernels/cpu/team.h"
#include "kernels/tensor.h"
#include "tests/gpu_sim/bodies.h"

namespace sluice::cuda {

template <class Params, void (*kBody)(const Params&)>
bool Register(const char* kernel) {
  return gpu_sim::RegisterBody(kernel, [](const void* arguments) { kBody(*static_cast<const Params*>(arguments)); });
}

inline cpu::Team& OneThread() {
  static cpu::Team team(1, {});
  return team;
}

// Null: absent.
inline TensorView Matrix(const void* data, DType type, int64_t rows, int64_t columns) {
  if (data == nullptr) return {};
  return {const_cast<std::byte*>(static_cast<const std::byte*>(data)), type, {rows, columns}};
}
inline TensorView Vector(const void* data, DType type, int64_t elements) {
  if (data == nullptr) return {};
  return {const_cast<std::byte*>(static_cast<const std::byte*>(data)), type, {elements}};
}

}  // namespace sluice::cuda
