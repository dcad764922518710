// GELU, SwiGLU and rotary embedding in double precision, written from their definitions.
#pragma once

#include <cmath>
#include <cstdint>
#include <numbers>
#include <vector>

#include "kernels/operations.h"

namespace sluice::reference {

inline std::vector<double> Map(std::vector<double> x, double (*function)(double)) {
  for (double& value : x) value = function(value);
  return x;
}

inline double GeluInner(double x) { return std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x); }

// 0.5 x (1 + tanh(u)) with 1 + tanh(u) = 2 / (1 + e^-2u), which doesn't cancel for negative u.
inline double Gelu(double x) { return x / (1 + std::exp(-2 * GeluInner(x))); }

inline double GeluDerivative(double x) {
  const double tanh = std::tanh(GeluInner(x));
  return 0.5 * (1 + tanh) + 0.5 * x * (1 - tanh * tanh) * std::sqrt(2 / M_PI) * (1 + 3 * 0.044715 * x * x);
}

inline double Silu(double x) { return x / (1 + std::exp(-x)); }

inline double SiluDerivative(double x) {
  const double s = 1 / (1 + std::exp(-x));
  return s * (1 + x * (1 - s));
}

inline std::vector<double> Swiglu(const std::vector<double>& gate_up, int64_t rows) {
  const int64_t width = static_cast<int64_t>(gate_up.size()) / rows / 2;
  std::vector<double> y(rows * width);
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t i = 0; i < width; ++i) {
      y[row * width + i] = Silu(gate_up[row * 2 * width + i]) * gate_up[row * 2 * width + width + i];
    }
  }
  return y;
}

inline std::vector<double> SwigluGradient(const std::vector<double>& gate_up, const std::vector<double>& dy,
                                          int64_t rows) {
  const int64_t width = static_cast<int64_t>(gate_up.size()) / rows / 2;
  std::vector<double> gradient(gate_up.size());
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t i = 0; i < width; ++i) {
      const int64_t gate = row * 2 * width + i, up = gate + width;
      gradient[gate] = dy[row * width + i] * gate_up[up] * SiluDerivative(gate_up[gate]);
      gradient[up] = dy[row * width + i] * Silu(gate_up[gate]);
    }
  }
  return gradient;
}

// Positions to a radian, told in wavelengths as Llama 3.1's own code does.
inline double SlowedTurn(double positions, const RopeScaling& scaling) {
  const double wavelength = 2 * std::numbers::pi * positions;
  if (scaling.factor == 1 || wavelength < scaling.positions / scaling.high_turns) return positions;
  if (wavelength > scaling.positions / scaling.low_turns) return positions * scaling.factor;
  const double smooth = (scaling.positions / wavelength - scaling.low_turns) / (scaling.high_turns - scaling.low_turns);
  return 1 / ((1 - smooth) / (scaling.factor * positions) + smooth / positions);
}

// Each pair (i, i + D/2) as a complex number, turned by direction * position * theta^(-2i/D).
inline std::vector<double> Rope(std::vector<double> qkv, const AttentionShape& shape, double theta, double direction,
                                const std::vector<int32_t>& positions, const RopeScaling& scaling = {}) {
  const int64_t size = shape.head_size, width = (shape.heads + 2 * shape.kv_heads) * size;
  for (size_t token = 0; token < positions.size(); ++token) {
    for (int64_t head = 0; head < shape.heads + shape.kv_heads; ++head) {
      for (int64_t i = 0; i < size / 2; ++i) {
        const double angle = direction * positions[token] / SlowedTurn(std::pow(theta, 2.0 * i / size), scaling);
        double& first = qkv[token * width + head * size + i];
        double& second = qkv[token * width + head * size + i + size / 2];
        const double turned = first * std::cos(angle) - second * std::sin(angle);
        second = first * std::sin(angle) + second * std::cos(angle);
        first = turned;
      }
    }
  }
  return qkv;
}

}  // namespace sluice::reference
