#include "tests/equivalence/run_job.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "base/world.h"
#include "runtime/config/job.h"
#include "runtime/data/batch.h"
#include "runtime/data/dataset.h"
#include "runtime/planner/plan.h"
#include "runtime/trainer/pipeline.h"
#include "runtime/transport/nccl_hub.h"
#include "runtime/transport/peer_hub.h"
#include "stages/parameters.h"

namespace sluice {
namespace {

std::string FirstDifference(const std::string& what, const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return absl::StrCat(what, ": ", a.size(), " against ", b.size(), " numbers");
  for (size_t i = 0; i < a.size(); ++i) {
    if (std::memcmp(&a[i], &b[i], sizeof(float)) != 0)
      return absl::StrCat(what, "[", i, "]: ", a[i], " against ", b[i]);
  }
  return "";
}

absl::StatusOr<std::vector<std::string>> OfOneProcess(const std::string&, std::string mine) {
  return std::vector<std::string>{std::move(mine)};
}

// All of them, which are the same in every replica.
absl::Status ReadParameters(const JobConfig& job, Pipeline* pipeline, JobNumbers* numbers) {
  ASSIGN_OR_RETURN(const std::vector<TensorHash> hashes, pipeline->HashParameters());
  RETURN_IF_ERROR(CompareReplicas(job.layout.grid(), hashes));
  for (size_t node = 0; node < job.graph.nodes.size(); ++node) {
    for (const ParameterSpec& spec : Parameters(job.graph, node)) {
      ASSIGN_OR_RETURN(numbers->parameters[spec.name], pipeline->ReadParameter(spec.name));
      for (int replica = 1; replica < job.layout.dp; ++replica) {
        ASSIGN_OR_RETURN(const std::vector<float> theirs, pipeline->ReadParameter(spec.name, replica));
        const std::string what = absl::StrCat("replica ", replica, " has another ", spec.name);
        if (auto text = FirstDifference(what, theirs, numbers->parameters[spec.name]); !text.empty()) {
          return absl::InternalError(text);
        }
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status SavedRun::Add(const RankSnapshot& snapshot) {
  const float* values = snapshot.values.data();
  for (const Piece& part : snapshot.pieces) {
    Tensor& tensor = tensors_[{part.kind, part.name}];
    tensor.columns = part.complete_columns;
    tensor.values.resize(part.complete_rows * part.complete_columns);
    tensor.there.resize(tensor.values.size());
    for (int64_t i = part.begin; i < part.begin + part.count; ++i) {
      const int64_t row = part.block.row + i / part.block.columns, column = part.block.column + i % part.block.columns;
      const size_t at = row * tensor.columns + column;
      if (row >= part.complete_rows || column >= tensor.columns || tensor.there[at]) {
        return absl::InternalError(
            absl::StrCat(part.name, "[", row, ", ", column, "] is there twice, or isn't its own"));
      }
      tensor.there[at] = true;
      tensor.values[at] = *values++;
    }
  }
  return absl::OkStatus();
}

absl::Status SavedRun::CheckComplete() const {
  for (const auto& [key, tensor] : tensors_) {
    const auto missing = std::find(tensor.there.begin(), tensor.there.end(), false);
    if (missing == tensor.there.end()) continue;
    return absl::InternalError(absl::StrCat(key.second, "[", missing - tensor.there.begin(), "] isn't there"));
  }
  return absl::OkStatus();
}

absl::Status SavedRun::Check(const LayerGraph& graph) const {
  for (size_t node = 0; node < graph.nodes.size(); ++node) {
    for (const ParameterSpec& spec : Parameters(graph, node)) {
      for (const StateKind kind : {StateKind::kParameter, StateKind::kFirstMoment, StateKind::kSecondMoment}) {
        if (!tensors_.contains({kind, spec.name})) return absl::NotFoundError(spec.name);
      }
    }
  }
  return absl::OkStatus();
}

absl::Status SavedRun::Read(StateKind kind, absl::string_view name, const Slice& block, absl::Span<float> out) const {
  const Tensor& tensor = tensors_.at({kind, std::string(name)});
  for (int64_t row = 0; row < block.rows; ++row) {
    const auto from = tensor.values.begin() + (block.row + row) * tensor.columns + block.column;
    std::copy_n(from, block.columns, out.begin() + row * block.columns);
  }
  return absl::OkStatus();
}

absl::StatusOr<JobNumbers> RunJob(const std::string& text, const std::string& folder, const RunOptions& how) {
  ASSIGN_OR_RETURN(const JobConfig job, ParseJob(text, folder + "/job.textproto", {.user_directory = folder}));
  ASSIGN_OR_RETURN(const Dataset dataset, Dataset::Open(job.data, job.graph.vocabulary, job.training.sequence));
  ASSIGN_OR_RETURN(const Plan plan, MakePlan(job));
  const auto real_world = how.world == nullptr ? NewRealWorld() : nullptr;
  World* const world = how.world == nullptr ? real_world.get() : how.world;
  const int ranks = job.layout.grid().ranks();
  PeerHub hub(world, ranks);
  std::unique_ptr<NcclHub> nccl;
  PipelineOptions options{.threads_per_rank = job.layout.threads_per_rank};
  if (how.messages != Messages::kExchanged) {
    for (int rank = 0; rank < ranks; ++rank) options.ranks.push_back(WorldRank(rank));
  }
  if (how.messages == Messages::kCopied) {
    options.open_transport = [&hub](WorldRank rank, Device* device, const auto& channels, const auto& groups) {
      return hub.Open(rank, device, channels, groups);
    };
  } else if (how.messages == Messages::kNccl) {
    nccl = std::make_unique<NcclHub>(
        world, NcclHubOptions{.process_of = std::vector<int>(ranks, 0), .exchange = OfOneProcess});
    options.open_transport = [&nccl](WorldRank rank, Device* device, const auto& channels, const auto& groups) {
      return nccl->Open(rank, device, channels, groups);
    };
    options.connect_transport = [&nccl] { return nccl->Connect(); };
  }
  ASSIGN_OR_RETURN(const auto pipeline, Pipeline::Create(world, plan, options));
  const BatchShape shape = ShapeOf(job.training);
  Batch batch(shape), other(shape);
  const BatchMaker batches(&dataset, shape, RulesOf(job.data), job.training.seed);
  JobNumbers numbers;
  if (how.resumed != nullptr) RETURN_IF_ERROR(pipeline->Restore(*how.resumed, RestoredState::kAll));
  const int64_t first = how.resumed != nullptr ? how.resumed->step : 0;
  int64_t updates = how.resumed != nullptr ? how.resumed->updates : 0;
  std::vector<RankSnapshot> snapshots;
  const auto finish = [&]() -> absl::Status {
    ASSIGN_OR_RETURN(const TrainingOutcome outcome, pipeline->FinishStep());
    numbers.losses.insert(numbers.losses.end(), outcome.loss_sums.begin(), outcome.loss_sums.end());
    numbers.norms.push_back(outcome.control.norm);
    updates += outcome.control.skip == 0;
    if (how.on_step != nullptr) how.on_step(plan, outcome);
    return absl::OkStatus();
  };
  const size_t ahead = plan.post_validation.has_value() ? 1 : 0;
  for (int64_t step = first; step < job.training.steps; ++step) {
    if (how.saved != nullptr && step == how.saved->step) {
      while (pipeline->steps_running() > 0) RETURN_IF_ERROR(finish());
      how.saved->updates = updates;
      ASSIGN_OR_RETURN(snapshots, pipeline->Snapshot());
    }
    Batch* const current = step % 2 == 0 ? &batch : &other;
    batches.Training(step, current);
    pipeline->StartStep({.micro_batches = current->micro_batches,
                         .learning_rate = static_cast<float>(LearningRate(job.optimizer, step)),
                         .update = updates + 1});
    while (pipeline->steps_running() > ahead) RETURN_IF_ERROR(finish());
  }
  while (pipeline->steps_running() > 0) RETURN_IF_ERROR(finish());
  for (const RankSnapshot& snapshot : snapshots) {
    RETURN_IF_ERROR(world->Wait(snapshot.copied));
    RETURN_IF_ERROR(how.saved->Add(snapshot));
  }
  if (how.saved != nullptr) RETURN_IF_ERROR(how.saved->CheckComplete());
  if (dataset.held_out().size() > 0) {
    batches.Evaluation(0, 0, &batch);
    ASSIGN_OR_RETURN(numbers.held_out, pipeline->Evaluate(batch.micro_batches));
  }
  RETURN_IF_ERROR(ReadParameters(job, pipeline.get(), &numbers));
  return numbers;
}

JobNumbers After(int64_t steps, const JobNumbers& numbers) {
  JobNumbers after = numbers;
  const size_t micro_batches = numbers.losses.size() / numbers.norms.size();
  after.losses.erase(after.losses.begin(), after.losses.begin() + steps * micro_batches);
  after.norms.erase(after.norms.begin(), after.norms.begin() + steps);
  return after;
}

std::string Difference(const JobNumbers& a, const JobNumbers& b) {
  if (auto text = FirstDifference("loss", a.losses, b.losses); !text.empty()) return text;
  if (auto text = FirstDifference("norm", a.norms, b.norms); !text.empty()) return text;
  if (auto text = FirstDifference("held-out loss", a.held_out, b.held_out); !text.empty()) return text;
  if (a.parameters.size() != b.parameters.size()) return "different parameters";
  for (const auto& [name, values] : a.parameters) {
    const auto other = b.parameters.find(name);
    if (other == b.parameters.end()) return absl::StrCat("no ", name);
    if (auto text = FirstDifference(name, values, other->second); !text.empty()) return text;
  }
  return "";
}

}  // namespace sluice
