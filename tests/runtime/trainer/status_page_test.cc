#include "runtime/trainer/status_page.h"

#include <limits>
#include <memory>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sluice {
namespace {

using testing::HasSubstr;
using testing::Not;

class StatusPageTest : public testing::Test {
 protected:
  void Step(int64_t step, double loss) {
    Timeline timeline{.name = "1f1b", .source = TimelineSource::kMeasured, .ranks = 1, .stages = 1, .micro_batches = 1};
    timeline.spans = {{.rank = PipelineRank(0), .action = Forward(StageId(0), MicroBatch(0)), .end_ns = 1000000}};
    page_->Update({.step = step, .steps = 5000, .loss = loss, .learning_rate = 0.5, .tokens_per_second = 7}, timeline,
                  {{.planned_bytes = 3 << 20, .peak_bytes = 2 << 20}}, 10 * step);
  }

  const std::unique_ptr<World> world_ = NewRealWorld();
  const std::unique_ptr<StatusPage> page_ = StatusPage::Start(world_.get(), "a<b>.textproto", "127.0.0.1", 0).value();
};

TEST_F(StatusPageTest, SaysThatNothingHasHappenedYet) {
  EXPECT_THAT(page_->Html(), HasSubstr("No step has ended yet."));
  EXPECT_THAT(page_->Html(), Not(HasSubstr("a<b>"))) << "names are text";
  EXPECT_THAT(page_->Metrics(), HasSubstr("\nsluice_step 0\n"));
  EXPECT_EQ(page_->LossCurve(), "");
  EXPECT_EQ(page_->LastStep(), "");
}

TEST_F(StatusPageTest, ShowsProgressRanksAndPictures) {
  Step(1, 2.5);
  page_->SetHeldOutLoss(1, 2.75);
  for (const char* part : {"step 1/5000", "loss 2.5000", "<td>2.0<td>3.0</tr>", "/loss.svg", "/timeline.svg"}) {
    EXPECT_THAT(page_->Html(), HasSubstr(part));
  }
  EXPECT_THAT(page_->LossCurve(), HasSubstr("held-out"));
  EXPECT_THAT(page_->LastStep(), HasSubstr("<svg"));
  for (const char* line : {"# TYPE sluice_loss gauge\nsluice_loss 2.5\n", "sluice_held_out_loss 2.75\n", "sluice_step 1\n",
                           "sluice_tokens_total 10\n", "sluice_memory_peak_bytes{rank=\"0\"} 2097152\n"}) {
    EXPECT_THAT(page_->Metrics(), HasSubstr(line));
  }
}

TEST_F(StatusPageTest, ALongRunAndALossThatIsNoneAreDrawnToo) {
  for (int64_t step = 1; step <= 5000; ++step) Step(step, 3.0);
  const size_t size = page_->LossCurve().size();
  EXPECT_LT(size, 100000u) << "a curve has as many points as can be seen";
  Step(5000, std::numeric_limits<double>::quiet_NaN());
  EXPECT_EQ(page_->LossCurve().size(), size);
  EXPECT_THAT(page_->Metrics(), HasSubstr("sluice_loss nan\n"));
}

TEST_F(StatusPageTest, ATakenPortIsAnError) {
  const auto second = StatusPage::Start(world_.get(), "b", "127.0.0.1", page_->port());
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable) << second.status();
}

}  // namespace
}  // namespace sluice
