// The layers of a graph once more, forward only, in double precision and plain loops, for finite differences. Shares
// with stages/ the graph, the parameters' names and the random numbers' definition, and nothing else.
#pragma once

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "base/philox.h"
#include "stages/graph.h"
#include "stages/parameters.h"

namespace sluice {

using Doubles = std::vector<double>;
using ReferenceParameters = std::map<std::string, Doubles>;

struct ReferenceBatch {
  int64_t rows = 0;
  int64_t sequence = 0;
  std::vector<int32_t> tokens, targets, positions, first_key, samples;
  uint64_t seed = 0;
  int64_t step = 0;
};

class ReferenceModel {
 public:
  ReferenceModel(const LayerGraph& graph, const ReferenceBatch& batch) : graph_(graph), batch_(batch) {}

  // Output of one node; of the head, one element: the loss, summed over the valid targets.
  Doubles Apply(size_t node, const ReferenceParameters& all, const Doubles& x) const {
    const Node& n = graph_.nodes[node];
    std::vector<const Doubles*> p;
    for (const ParameterSpec& spec : Parameters(graph_, node)) p.push_back(&all.at(spec.name));
    switch (n.kind) {
      case LayerKind::kEmbedding:
        return Embedding(n, p);
      case LayerKind::kAttention:
        return Attention(n, p, x);
      case LayerKind::kMlp:
        return Mlp(n, p, x);
      case LayerKind::kNorm:
        return Norm(n, p, x);
      case LayerKind::kLinear:
        return Linear(x, n.channels, *p[0], n.width, n.bias ? p[1] : nullptr);
      case LayerKind::kActivation:
        return Gelu(x);
      case LayerKind::kHead:
        return CrossEntropy(n, Logits(n, p, x));
    }
    return {};
  }

  // Nodes begin ... end-1, one after another.
  Doubles Apply(size_t begin, size_t end, const ReferenceParameters& all, Doubles x) const {
    for (size_t node = begin; node < end; ++node) x = Apply(node, all, x);
    return x;
  }

  // [M, V], what the head makes the loss of.
  Doubles Logits(const ReferenceParameters& all) const {
    const size_t head = graph_.nodes.size() - 1;
    const Doubles x = Apply(0, head, all, {});
    return Logits(graph_.nodes[head], {&all.at(Parameters(graph_, head)[0].name)}, x);
  }

  double Loss(const ReferenceParameters& all) const { return Apply(0, graph_.nodes.size(), all, {})[0]; }

 private:
  using Views = std::vector<const Doubles*>;

  int64_t tokens() const { return batch_.rows * batch_.sequence; }

  Doubles Embedding(const Node& n, const Views& p) const {
    Doubles y(tokens() * n.channels);
    for (int64_t i = 0; i < tokens(); ++i) {
      for (int64_t c = 0; c < n.channels; ++c) {
        y[i * n.channels + c] = (*p[0])[batch_.tokens[i] * n.channels + c];
        if (n.positions > 0) y[i * n.channels + c] += (*p[1])[batch_.positions[i] * n.channels + c];
      }
    }
    return Dropout(n, y);
  }

  Doubles Norm(const Node& n, const Views& p, const Doubles& x) const {
    const int64_t columns = n.channels;
    const bool layer_norm = n.norm == Normalization::kLayerNorm;
    Doubles y(x.size());
    for (size_t row = 0; row < x.size() / columns; ++row) {
      const double* in = &x[row * columns];
      double mean = 0, variance = 0;
      for (int64_t c = 0; c < columns; ++c) mean += in[c] / columns;
      if (!layer_norm) mean = 0;
      for (int64_t c = 0; c < columns; ++c) variance += (in[c] - mean) * (in[c] - mean) / columns;
      for (int64_t c = 0; c < columns; ++c) {
        y[row * columns + c] = (in[c] - mean) / std::sqrt(variance + n.norm_epsilon) * (*p[0])[c];
        if (layer_norm) y[row * columns + c] += (*p[1])[c];
      }
    }
    return y;
  }

  static Doubles Linear(const Doubles& x, int64_t inputs, const Doubles& weight, int64_t outputs, const Doubles* bias) {
    const int64_t rows = static_cast<int64_t>(x.size()) / inputs;
    Doubles y(rows * outputs);
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t out = 0; out < outputs; ++out) {
        double sum = bias ? (*bias)[out] : 0;
        for (int64_t in = 0; in < inputs; ++in) sum += x[row * inputs + in] * weight[out * inputs + in];
        y[row * outputs + out] = sum;
      }
    }
    return y;
  }

  static Doubles Gelu(Doubles x) {
    for (double& v : x) v = 0.5 * v * (1 + std::tanh(std::sqrt(2 / M_PI) * (v + 0.044715 * v * v * v)));
    return x;
  }

  Doubles Residual(const Node& n, const Doubles& x, const Doubles& branch) const {
    Doubles y = Dropout(n, branch);
    for (size_t i = 0; i < y.size(); ++i) y[i] += x[i];
    return y;
  }

  Doubles Mlp(const Node& n, const Views& p, const Doubles& x) const {
    const size_t fc = n.norm == Normalization::kLayerNorm ? 2 : 1, projection = fc + (n.bias ? 2 : 1);
    const bool gated = n.activation == Activation::kSwiglu;
    const Doubles hidden =
        Linear(Norm(n, p, x), n.channels, *p[fc], (gated ? 2 : 1) * n.width, n.bias ? p[fc + 1] : nullptr);
    Doubles activated(tokens() * n.width);
    for (int64_t i = 0; gated && i < tokens(); ++i) {
      for (int64_t f = 0; f < n.width; ++f) {
        const double gate = hidden[i * 2 * n.width + f], up = hidden[i * 2 * n.width + n.width + f];
        activated[i * n.width + f] = gate / (1 + std::exp(-gate)) * up;
      }
    }
    if (!gated) activated = Gelu(hidden);
    return Residual(n, x, Linear(activated, n.width, *p[projection], n.channels, n.bias ? p[projection + 1] : nullptr));
  }

  // Rotates the first `heads` heads of each token's `columns` numbers.
  void Rope(const Node& n, int64_t heads, int64_t columns, Doubles* qkv) const {
    const int64_t half = n.head_size / 2;
    for (int64_t i = 0; i < tokens(); ++i) {
      for (int64_t head = 0; head < heads; ++head) {
        for (int64_t pair = 0; pair < half; ++pair) {
          const double angle = batch_.positions[i] * std::pow(n.rope_theta, -2.0 * pair / n.head_size);
          double& a = (*qkv)[i * columns + head * n.head_size + pair];
          double& b = (*qkv)[i * columns + head * n.head_size + half + pair];
          const double first = a * std::cos(angle) - b * std::sin(angle);
          b = b * std::cos(angle) + a * std::sin(angle);
          a = first;
        }
      }
    }
  }

  Doubles Attention(const Node& n, const Views& p, const Doubles& x) const {
    const size_t in = n.norm == Normalization::kLayerNorm ? 2 : 1, projection = in + (n.bias ? 2 : 1);
    const int64_t size = n.head_size, columns = (n.heads + 2 * n.kv_heads) * size, inner = n.heads * size;
    Doubles qkv = Linear(Norm(n, p, x), n.channels, *p[in], columns, n.bias ? p[in + 1] : nullptr);
    if (n.rope_theta > 0) Rope(n, n.heads + n.kv_heads, columns, &qkv);
    Doubles mixed(tokens() * inner);
    for (int64_t row = 0; row < batch_.rows; ++row) {
      for (int64_t head = 0; head < n.heads; ++head) {
        for (int64_t t = 0; t < batch_.sequence; ++t) MixOne(n, qkv, columns, row, head, t, &mixed);
      }
    }
    return Residual(n, x, Linear(mixed, inner, *p[projection], n.channels, n.bias ? p[projection + 1] : nullptr));
  }

  void MixOne(const Node& n, const Doubles& qkv, int64_t columns, int64_t row, int64_t head, int64_t t,
              Doubles* mixed) const {
    const int64_t size = n.head_size, kv = head / (n.heads / n.kv_heads), query = row * batch_.sequence + t;
    const int64_t first = batch_.first_key.empty() ? 0 : batch_.first_key[query];
    Doubles weights;
    double total = 0;
    for (int64_t s = first; s <= t; ++s) {
      double score = 0;
      for (int64_t d = 0; d < size; ++d) {
        score += qkv[query * columns + head * size + d] *
                 qkv[(row * batch_.sequence + s) * columns + (n.heads + kv) * size + d];
      }
      weights.push_back(std::exp(score / std::sqrt(static_cast<double>(size))));
      total += weights.back();
    }
    for (int64_t s = first; s <= t; ++s) {
      for (int64_t d = 0; d < size; ++d) {
        (*mixed)[query * n.heads * size + head * size + d] +=
            weights[s - first] / total *
            qkv[(row * batch_.sequence + s) * columns + (n.heads + n.kv_heads + kv) * size + d];
      }
    }
  }

  static Doubles Logits(const Node& n, const Views& p, const Doubles& x) {
    return Linear(x, n.channels, *p[0], n.vocabulary, nullptr);
  }

  Doubles CrossEntropy(const Node& n, const Doubles& logits) const {
    double sum = 0;
    for (int64_t i = 0; i < tokens(); ++i) {
      if (batch_.targets[i] < 0) continue;
      const double* row = &logits[i * n.vocabulary];
      const double top = *std::max_element(row, row + n.vocabulary);
      double total = 0;
      for (int64_t v = 0; v < n.vocabulary; ++v) total += std::exp(row[v] - top);
      sum += std::log(total) + top - row[batch_.targets[i]];
    }
    return {sum};
  }

  // An element stays where its 24 random bits, as a number in [0, 1), reach the rate.
  Doubles Dropout(const Node& n, Doubles x) const {
    if (n.dropout == 0) return x;
    const uint64_t name = HashName(n.name + ".dropout");
    const int64_t elements = batch_.sequence * n.channels;
    for (int64_t row = 0; row < batch_.rows; ++row) {
      for (int64_t e = 0; e < elements; ++e) {
        const PhiloxBlock words = RandomWords(batch_.seed, name, static_cast<uint32_t>(batch_.step),
                                              static_cast<uint32_t>(batch_.samples[row]), e / 4);
        const bool kept = UnitFloat(words[e % 4]) >= n.dropout;
        x[row * elements + e] *= kept ? 1.0 / (1.0 - n.dropout) : 0.0;
      }
    }
    return x;
  }

  const LayerGraph& graph_;
  const ReferenceBatch& batch_;
};

}  // namespace sluice
