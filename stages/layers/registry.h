// One function per kind of layer; each is defined in the file of its name.
#pragma once

#include <memory>

#include "stages/layer.h"

namespace sluice {

std::unique_ptr<Layer> NewEmbedding(const Node& node, DType compute, const TensorParallel& tensor);
std::unique_ptr<Layer> NewAttention(const Node& node, DType compute, const TensorParallel& tensor);
std::unique_ptr<Layer> NewMlp(const Node& node, DType compute, const TensorParallel& tensor);
std::unique_ptr<Layer> NewNorm(const Node& node, DType compute, const TensorParallel& tensor);
std::unique_ptr<Layer> NewLinear(const Node& node, DType compute, const TensorParallel& tensor);
std::unique_ptr<Layer> NewActivation(const Node& node, DType compute, const TensorParallel& tensor);
std::unique_ptr<Layer> NewHead(const Node& node, DType compute, const TensorParallel& tensor);

}  // namespace sluice
