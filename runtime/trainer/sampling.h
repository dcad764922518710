// Choosing the next token from logits.
#pragma once

#include <cstdint>

#include "absl/types/span.h"

namespace sluice {

// Temperature 0: the likeliest token (the lowest of equals). Else draws from softmax(logits / temperature) with `uniform` in
// [0, 1). REQUIRES: logits is not empty.
int32_t SampleToken(absl::Span<const float> logits, double temperature, double uniform);

}  // namespace sluice
