// What a browser sees of a job that runs: progress, the loss curve, the last step's timeline, memory and bubble of each
// rank; and the numbers in Prometheus' text format. Nothing is fetched from outside, no script runs.
//
// Threads: Update() by the training loop, the pages by the server's thread.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/world.h"
#include "runtime/control/http/page_server.h"
#include "runtime/trainer/progress.h"
#include "runtime/trainer/report.h"
#include "scheduler/timeline.h"

namespace sluice {

class StatusPage {
 public:
  // `title` names the job; `port` 0: any free one. Errors: as PageServer::Start.
  static absl::StatusOr<std::unique_ptr<StatusPage>> Start(World* world, std::string title, const std::string& bind,
                                                           int port);
  int port() const { return server_->port(); }

  void Update(const StepProgress& progress, const Timeline& timeline, const std::vector<RankMemory>& memory,
              int64_t tokens);
  void SetHeldOutLoss(int64_t step, double loss);

  std::string Html() const;
  std::string LossCurve() const;  // SVG, like the next; empty before the first step has ended
  std::string LastStep() const;
  std::string Metrics() const;

 private:
  struct LossPoint {
    int64_t step = 0;
    double loss = 0;
  };
  explicit StatusPage(std::string title) : title_(std::move(title)) {}
  std::string RankTable() const;

  const std::string title_;
  mutable std::mutex mutex_;
  StepProgress progress_;
  Timeline timeline_;
  std::vector<RankMemory> memory_;
  int64_t tokens_ = 0;
  // Every `stride_`-th step's, as many as a curve can show.
  std::vector<LossPoint> losses_, held_out_;
  int64_t stride_ = 1;
  std::unique_ptr<PageServer> server_;  // dies first: it reads the rest
};

}  // namespace sluice
