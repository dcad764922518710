#include "tools/launch/restarts.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/sim/sim_world.h"

namespace sluice::tools {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A job that ends as it is told, each attempt after having saved up to a step.
class Restarts : public ::testing::Test {
 protected:
  struct Attempt {
    int64_t saves = 0;
    SupervisionResult result;
  };

  SupervisionResult Run(int most, const std::vector<Attempt>& attempts) {
    size_t next = 0;
    const auto result = RunWithRestarts(&world_, {.most = most,
                                                  .run = [&]() -> absl::StatusOr<SupervisionResult> {
                                                    began_.push_back(world_.Now() / kSecond);
                                                    const Attempt& attempt =
                                                        attempts[next < attempts.size() ? next++ : next - 1];
                                                    saved_ = std::max(saved_, attempt.saves);
                                                    return attempt.result;
                                                  },
                                                  .saved_step = [&] { return saved_; },
                                                  .say = [&](const std::string& line) { said_.push_back(line); },
                                                  .date = [] { return "now"; }});
    EXPECT_TRUE(result.ok()) << result.status();
    return *result;
  }

  const SupervisionResult killed_{.code = 137, .cause = "process 1 was ended by signal 9"};
  SimWorld world_{{}};
  int64_t saved_ = 0;
  std::vector<Nanoseconds> began_;  // seconds, of each attempt
  std::vector<std::string> said_;
};

TEST_F(Restarts, NoneIsNeededOrWanted) {
  EXPECT_EQ(Run(3, {{}}).code, 0);
  EXPECT_EQ(Run(0, {{0, killed_}}).code, 137);
  EXPECT_EQ(began_.size(), 2u);
  EXPECT_THAT(said_, ElementsAre());
}

TEST_F(Restarts, EachIsSaidWithCauseAndStep) {
  EXPECT_EQ(Run(3, {{0, killed_}, {40, killed_}, {}}).code, 0);
  EXPECT_THAT(said_, ElementsAre("restart 1 of 3 in 1 s, from the beginning: process 1 was ended by signal 9",
                                 "restart 1 of 3 in 1 s, after step 40: process 1 was ended by signal 9",
                                 "2 restarts:", "  now, from the beginning: process 1 was ended by signal 9",
                                 "  now, after step 40: process 1 was ended by signal 9"));
}

TEST_F(Restarts, PausesGrowAndEndWhereNothingIsGained) {
  const SupervisionResult result = Run(8, {{0, killed_}});
  EXPECT_EQ(result.code, 137);
  EXPECT_THAT(result.cause, HasSubstr("given up after 8 restarts without progress"));
  EXPECT_THAT(began_, ElementsAre(0, 1, 3, 7, 15, 31, 63, 123, 183));
}

TEST_F(Restarts, ProgressBeginsToCountAnew) {
  EXPECT_EQ(Run(2, {{0, killed_}, {0, killed_}, {5, killed_}, {5, killed_}, {5, killed_}}).code, 137);
  EXPECT_THAT(began_, ElementsAre(0, 1, 3, 4, 6));
}

TEST_F(Restarts, APersonIsNotContradicted) {
  EXPECT_EQ(Run(3, {{0, {.code = 130, .cause = "ended at once by signal 2", .was_signalled = true}}}).code, 130);
  EXPECT_EQ(began_.size(), 1u);
}

}  // namespace
}  // namespace sluice::tools
