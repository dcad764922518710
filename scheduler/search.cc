#include "scheduler/search.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/philox.h"
#include "base/status.h"
#include "scheduler/search/candidates.h"
#include "scheduler/search/evaluator.h"
#include "scheduler/search/exact.h"
#include "scheduler/search/layout.h"
#include "scheduler/search/list_schedule.h"
#include "scheduler/search/local_search.h"
#include "scheduler/search/lower_bound.h"

namespace sluice {
namespace {

using search::Layout;
using search::Order;

constexpr int64_t kTimeMax = int64_t{1} << 50;  // ns of one action; sums over a step must not overflow
constexpr int kStagesMax = 1 << 14;
constexpr int64_t kRoundEvaluations = 20'000;
constexpr int kSeedsPerLayout = 3;

absl::Status CheckCut(const ModelCut& cut, int ranks) {
  const size_t stages = static_cast<size_t>(ranks) * cut.chunks;
  if (cut.chunks < 1 || stages > kStagesMax || cut.costs.stages.size() != stages) {
    return absl::InvalidArgumentError(absl::StrCat("a cut into ", cut.chunks, " stage(s) on each of ", ranks,
                                                   " ranks needs the costs of ", stages, " stages, at most ",
                                                   kStagesMax, "; there are ", cut.costs.stages.size()));
  }
  if (!cut.memory.empty() && cut.memory.size() != stages) {
    return absl::InvalidArgumentError(
        absl::StrCat("give the memory of all ", stages, " stages or of none, not of ", cut.memory.size()));
  }
  for (size_t s = 0; s < stages; ++s) {
    const StageCosts& c = cut.costs.stages[s];
    for (int64_t time :
         {c.forward_ns, c.input_gradient_ns, c.weight_gradient_ns, c.backward_ns, cut.costs.transfer_latency_ns}) {
      if (time < 0 || time > kTimeMax)
        return absl::InvalidArgumentError(
            absl::StrCat("stage ", s, " has a time of ", time, " ns; give 0 ... ", kTimeMax));
    }
    const MicroBatchMemory memory = cut.memory.empty() ? MicroBatchMemory{} : cut.memory[s];
    if (memory.forward_bytes < 0 || memory.weight_bytes < 0) {
      return absl::InvalidArgumentError(absl::StrCat("stage ", s, " has negative memory: ", memory.forward_bytes,
                                                     " and ", memory.weight_bytes, " bytes"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckProblem(const SearchProblem& problem) {
  if (problem.ranks < 1 || problem.micro_batches < 1 || problem.cuts.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("a search needs at least one rank, one micro-batch and one cut, not ", problem.ranks, ", ",
                     problem.micro_batches, " and ", problem.cuts.size()));
  }
  if (problem.in_flight_cap < 0 || problem.rank_bytes_cap < 0) {
    return absl::InvalidArgumentError("a memory cap can't be negative; 0 is none");
  }
  for (const ModelCut& cut : problem.cuts) {
    RETURN_IF_ERROR(CheckCut(cut, problem.ranks));
    if (problem.rank_bytes_cap > 0 && cut.memory.empty()) {
      return absl::InvalidArgumentError(
          "a cap in bytes needs the bytes of each stage: give them, or a cap in micro-batches");
    }
  }
  return absl::OkStatus();
}

// One placement of one cut, and what no order of it can beat.
struct Space {
  Layout layout;
  Times bound;
};

// An order that runs to its end and fits its layout's caps.
struct Found {
  const Space* space = nullptr;
  Order order;
  int64_t objective_ns = search::kNoCap;
  std::string method;
};

bool Shorter(const Found& a, const Found& b) { return a.objective_ns < b.objective_ns; }

class Searcher {
 public:
  Searcher(const SearchProblem& problem, const SearchOptions& options) : problem_(problem), options_(options) {}

  absl::StatusOr<SearchResult> Run() {
    TryGenerators();
    MakeSpaces();
    for (const auto& space : spaces_) PlantSeeds(*space);
    std::stable_sort(seeds_.begin(), seeds_.end(), Shorter);
    for (const Found& seed : seeds_) Offer(seed);
    if (!SolveExactly()) Anneal();
    return Result();
  }

 private:
  void TryGenerators() {
    timed_ = search::TimeGenerators(problem_, options_.copies);
    for (const search::TimedGenerator& timed : timed_) {
      if (timed.candidate.refusal.empty() &&
          (best_generator_ == nullptr || Objective(timed) < Objective(*best_generator_)))
        best_generator_ = &timed;
    }
  }
  int64_t Objective(const search::TimedGenerator& timed) const { return timed.candidate.times.Of(problem_.objective); }
  int64_t GeneratorNs() const { return best_generator_ == nullptr ? search::kNoCap : Objective(*best_generator_); }
  int64_t BestNs() const { return std::min(GeneratorNs(), best_.objective_ns); }

  // And the lower bounds of all placements, those that only generators bring too.
  void MakeSpaces() {
    lower_bound_ = {search::kNoCap, search::kNoCap};
    const auto lower = [&](const Times& times) {
      lower_bound_.makespan_ns = std::min(lower_bound_.makespan_ns, times.makespan_ns);
      lower_bound_.span_ns = std::min(lower_bound_.span_ns, times.span_ns);
    };
    for (const ModelCut& cut : problem_.cuts) {
      for (const Placement& placement : search::PlacementsOf(problem_.ranks, cut.chunks)) {
        spaces_.push_back(std::make_unique<Space>(Space{search::MakeLayout(problem_, cut, placement), {}}));
        spaces_.back()->bound = search::LowerBound(spaces_.back()->layout);
        lower(spaces_.back()->bound);
      }
    }
    for (const search::TimedGenerator& timed : timed_) {
      if (!timed.candidate.refusal.empty() || SpaceOf(timed) != nullptr) continue;
      lower(search::WorkBound(timed.schedule.placement, problem_.micro_batches, timed.cut->costs));
    }
  }
  const Space* SpaceOf(const search::TimedGenerator& timed) const {
    for (const auto& space : spaces_) {
      if (space->layout.cut == timed.cut && space->layout.placement == timed.schedule.placement) return space.get();
    }
    return nullptr;
  }
  int64_t BoundOf(const Space& space) const { return space.bound.Of(problem_.objective); }

  bool Stop() const {
    return BestNs() <= lower_bound_.Of(problem_.objective) || evaluations_ >= options_.evaluations || OutOfTime();
  }
  bool OutOfTime() const { return options_.out_of_time && options_.out_of_time(); }

  // The best few orders of the generators and of list scheduling on one layout.
  void PlantSeeds(const Space& space) {
    const Layout& layout = space.layout;
    std::vector<Found> seeds;
    search::Evaluator evaluator(layout);
    const auto plant = [&](Order order, std::string method) {
      ++evaluations_;
      if (order.empty() || !Fits(layout, order) || !evaluator.Run(order)) return;
      seeds.push_back({&space, std::move(order), evaluator.objective_ns(), std::move(method)});
    };
    for (const search::TimedGenerator& timed : timed_) {
      if (!timed.candidate.refusal.empty() || SpaceOf(timed) != &space) continue;
      plant(ToOrder(layout, timed.schedule),
            absl::StrCat("generator ", timed.candidate.name, ", micro-batches in order"));
    }
    for (const search::ListRule& rule : search::ListRules(layout)) {
      if (OutOfTime()) break;
      plant(search::ListSchedule(layout, rule), "list scheduling");
    }
    std::stable_sort(seeds.begin(), seeds.end(), Shorter);
    // Equal lengths are nearly always equal orders.
    const auto same = [](const Found& a, const Found& b) { return a.objective_ns == b.objective_ns; };
    seeds.erase(std::unique(seeds.begin(), seeds.end(), same), seeds.end());
    if (seeds.size() > kSeedsPerLayout) seeds.resize(kSeedsPerLayout);
    std::move(seeds.begin(), seeds.end(), std::back_inserter(seeds_));
  }
  static bool Fits(const Layout& layout, const Order& order) {
    for (int r = 0; r < layout.ranks(); ++r) {
      const int64_t peak = search::PeakBytes(layout, order[r]);
      if (peak == search::kNoCap || peak > layout.cap_bytes[r]) return false;
    }
    return true;
  }

  void Offer(const Found& found) {
    if (found.objective_ns < best_.objective_ns) best_ = found;
  }

  // True if all layouts were solved to the end.
  bool SolveExactly() {
    if (options_.exact_labels <= 0 || Stop()) return false;
    for (const auto& space : spaces_) {
      if (BoundOf(*space) >= BestNs()) continue;
      search::ExactResult exact =
          search::SearchExactly(space->layout, BestNs(), options_.exact_labels, options_.out_of_time);
      if (!exact.finished) return false;
      if (!exact.order.has_value()) continue;
      search::Evaluator evaluator(space->layout);
      CHECK(evaluator.Run(*exact.order));
      Offer({space.get(), *std::move(exact.order), evaluator.objective_ns(), "exact"});
    }
    return solved_ = true;
  }

  // Rounds of local search, by turns from the best order and from the other seeds, as long as their layouts can win.
  void Anneal() {
    for (uint64_t round = 0; !seeds_.empty() && !Stop(); ++round) {
      Found& from = round % 2 == 0 || seeds_.size() == 1 ? seeds_[BestSeed()] : seeds_[round / 2 % seeds_.size()];
      const int64_t bound = BoundOf(*from.space);
      if (bound >= BestNs()) {
        seeds_.erase(seeds_.begin() + (&from - seeds_.data()));
        continue;
      }
      search::LocalSearchResult result =
          search::Improve(from.space->layout, from.order, MixBits(options_.seed) + round,
                          {.evaluations = std::min(kRoundEvaluations, options_.evaluations - evaluations_),
                           .target_ns = bound,
                           .heat = kHeats[round / 2 % std::size(kHeats)],
                           .out_of_time = options_.out_of_time});
      evaluations_ += std::max<int64_t>(1, result.evaluations);
      if (result.objective_ns >= from.objective_ns) continue;
      from = {from.space, std::move(result.order), result.objective_ns, "local search"};
      Offer(from);
    }
  }
  size_t BestSeed() const { return std::min_element(seeds_.begin(), seeds_.end(), Shorter) - seeds_.begin(); }

  absl::StatusOr<SearchResult> Result() {
    if (BestNs() == search::kNoCap) {
      return absl::ResourceExhaustedError(absl::StrCat(
          "no order was found that fits the memory cap: raise it (a rank holds at least one micro-batch of one of its "
          "stages; deeper ones need room to go on)"));
    }
    SearchResult result{.lower_bound = lower_bound_, .evaluations = evaluations_};
    if (best_.objective_ns < GeneratorNs()) {
      search::Evaluator evaluator(best_.space->layout);
      CHECK(evaluator.Run(best_.order));
      result.schedule = ToSchedule(best_.space->layout, best_.order);
      result.cut = *best_.space->layout.cut;
      result.method = best_.method;
      result.found = {
          .name = "found", .chunks = result.cut.chunks, .times = evaluator.times(), .memory_share_max = MemoryShare()};
    } else {
      result.schedule = best_generator_->schedule;
      result.cut = *best_generator_->cut;
      result.method = absl::StrCat("generator ", best_generator_->candidate.name);
      result.found = best_generator_->candidate;
      result.found.name = "found";
    }
    result.optimal = solved_ || BestNs() <= lower_bound_.Of(problem_.objective);
    for (const search::TimedGenerator& timed : timed_) result.generators.push_back(timed.candidate);
    std::stable_sort(result.generators.begin(), result.generators.end(), [&](const Candidate& a, const Candidate& b) {
      if (a.refusal.empty() != b.refusal.empty()) return a.refusal.empty();
      return a.refusal.empty() && a.times.Of(problem_.objective) < b.times.Of(problem_.objective);
    });
    return result;
  }
  double MemoryShare() const {
    double share = 0;
    for (int r = 0; r < best_.space->layout.ranks(); ++r) {
      int64_t micro_batch = 0;
      for (int s : best_.space->layout.stages_of_rank[r]) micro_batch += best_.space->layout.stages[s].forward_bytes;
      const auto peak = static_cast<double>(search::PeakBytes(best_.space->layout, best_.order[r]));
      share = std::max(share, peak / static_cast<double>(std::max<int64_t>(1, micro_batch)));
    }
    return share;
  }

  static constexpr double kHeats[] = {0.1, 0.3, 0.03, 1.0};

  const SearchProblem& problem_;
  const SearchOptions& options_;
  std::vector<search::TimedGenerator> timed_;
  const search::TimedGenerator* best_generator_ = nullptr;
  std::vector<std::unique_ptr<Space>> spaces_;
  Times lower_bound_;
  std::vector<Found> seeds_;
  Found best_;
  bool solved_ = false;
  int64_t evaluations_ = 0;
};

}  // namespace

const char* ObjectiveName(Objective objective) { return objective == Objective::kSpan ? "span" : "makespan"; }

ModelCut CutModel(const CostProfile& profile, int ranks, int chunks, double weight_share) {
  constexpr int64_t kUnits = 1'000'000;  // of a stage, where the profile has no bytes
  const CostProfile divided = Redivide(profile, ranks * chunks);
  const auto any = [](const StageProfile& stage) { return stage.stash_bytes > 0; };
  const bool bytes = std::any_of(divided.stages.begin(), divided.stages.end(), any);
  ModelCut cut{.chunks = chunks, .costs = CostsOf(divided)};
  for (const StageProfile& stage : divided.stages) {
    if (bytes) {
      cut.memory.push_back({stage.stash_bytes, stage.stash_bytes + stage.gradient_stash_bytes});
    } else {
      cut.memory.push_back({kUnits, static_cast<int64_t>(weight_share * kUnits)});
    }
  }
  return cut;
}

absl::StatusOr<SearchResult> Search(const SearchProblem& problem, const SearchOptions& options) {
  RETURN_IF_ERROR(CheckProblem(problem));
  return Searcher(problem, options).Run();
}

}  // namespace sluice
