// What this program calls itself.
#pragma once

namespace sluice::tools {

inline constexpr char kProgram[] = "sluice 0.1.0";

}  // namespace sluice::tools
