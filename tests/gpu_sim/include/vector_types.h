// The toolkit in miniature: what CUDA C++ adds to the language for both sides: qualifiers, and vectors with the
// alignment that lets a thread load one of them at once.
#pragma once

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(bytes) alignas(bytes)

#define GPU_SIM_VECTORS(type, name, small, large)                                       \
  struct name##1 {                                                                      \
    type x;                                                                             \
  };                                                                                    \
  struct alignas(small) name##2 {                                                       \
    type x, y;                                                                          \
  };                                                                                    \
  struct name##3 {                                                                      \
    type x, y, z;                                                                       \
  };                                                                                    \
  struct alignas(large) name##4 {                                                       \
    type x, y, z, w;                                                                    \
  };                                                                                    \
  inline constexpr name##1 make_##name##1(type x) { return {x}; }                       \
  inline constexpr name##2 make_##name##2(type x, type y) { return {x, y}; }            \
  inline constexpr name##3 make_##name##3(type x, type y, type z) { return {x, y, z}; } \
  inline constexpr name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }

GPU_SIM_VECTORS(unsigned char, uchar, 2, 4)
GPU_SIM_VECTORS(short, short, 4, 8)
GPU_SIM_VECTORS(unsigned short, ushort, 4, 8)
GPU_SIM_VECTORS(int, int, 8, 16)
GPU_SIM_VECTORS(unsigned int, uint, 8, 16)
GPU_SIM_VECTORS(float, float, 8, 16)
GPU_SIM_VECTORS(double, double, 16, 16)
GPU_SIM_VECTORS(long long, longlong, 16, 16)
GPU_SIM_VECTORS(unsigned long long, ulonglong, 16, 16)

#undef GPU_SIM_VECTORS

struct dim3 {
  constexpr dim3(unsigned int x_ = 1, unsigned int y_ = 1, unsigned int z_ = 1) : x(x_), y(y_), z(z_) {}
  unsigned int x, y, z;
};
