// What a run's numbers follow from, as plain names and values: kept in a checkpoint, and compared by who goes on from
// it. Layout doesn't count: stages, schedule, processes, threads, ZeRO, replicas with the same gradient groups.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "runtime/data/dataset.h"
#include "runtime/planner/plan.h"

namespace sluice {

using RunFacts = std::vector<std::pair<std::string, std::string>>;
inline constexpr char kProgramFact[] = "program";  // its name and version
inline constexpr char kDataFact[] = "training data";

// Of the job as it was completed: what it leaves out has the value that it got.
RunFacts FactsOf(const Plan& plan, const Dataset& dataset, const std::string& program);

// What is different in a run that goes on from another one, in words: "optimizer.learning_rate was 0.001, is 0.002".
struct RunChanges {
  std::vector<std::string> training;  // from here on it is another training: data, batch, optimizer ...
  std::vector<std::string> rounding;  // sums are added in another order, or by other instructions: last bits differ
  bool empty() const { return training.empty() && rounding.empty(); }
};
// Facts that only one of them has don't count: another version wrote them.
RunChanges Compare(const RunFacts& was, const RunFacts& is);

}  // namespace sluice
