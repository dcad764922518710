#include "base/check.h"

#include <cstdio>
#include <cstdlib>
#include <string>

namespace sluice::internal {

CheckFailure::CheckFailure(const char* condition, const char* file, int line) {
  message_ << file << ":" << line << ": CHECK failed: " << condition << " ";
}

// Written straight to standard error: a broken invariant must not depend on the state of a logger.
CheckFailure::~CheckFailure() {
  std::fprintf(stderr, "%s\n", message_.str().c_str());
  std::fflush(stderr);
  std::abort();
}

}  // namespace sluice::internal
