// CHECK for broken invariants: prints the condition, the values streamed into it and the place, then aborts.
// What can be expected to happen (bad input, a full disk, a dead peer) is an absl::Status instead.
#pragma once

#include <sstream>

namespace sluice::internal {

class CheckFailure {
 public:
  CheckFailure(const char* condition, const char* file, int line);
  [[noreturn]] ~CheckFailure();
  std::ostream& stream() { return message_; }

 private:
  std::ostringstream message_;
};

// Gives the failing branch of CHECK's conditional the type void, so that `CHECK(x) << y;` is one expression.
struct Voidify {
  void operator&(std::ostream&) const {}
};

}  // namespace sluice::internal

#define CHECK(condition)                            \
  (condition) ? (void)0                             \
              : ::sluice::internal::Voidify() &     \
                    ::sluice::internal::CheckFailure(#condition, __FILE__, __LINE__).stream()

#define CHECK_OP_(a, b, op) CHECK((a)op(b)) << " (" << (a) << " against " << (b) << ") "
#define CHECK_EQ(a, b) CHECK_OP_(a, b, ==)
#define CHECK_NE(a, b) CHECK_OP_(a, b, !=)
#define CHECK_LT(a, b) CHECK_OP_(a, b, <)
#define CHECK_LE(a, b) CHECK_OP_(a, b, <=)
#define CHECK_GT(a, b) CHECK_OP_(a, b, >)
#define CHECK_GE(a, b) CHECK_OP_(a, b, >=)
// Fails with the status' message; for what must not fail here.
#define CHECK_OK(expression) \
  do {                       \
    const auto check_status_ = (expression); \
    CHECK(check_status_.ok()) << check_status_; \
  } while (false)
