// sluice plan JOB
#include <cstdio>
#include <memory>

#include "base/status.h"
#include "runtime/planner/plan.h"
#include "stages/graph_io.h"
#include "tools/job_verb.h"
#include "tools/verbs.h"

namespace sluice::tools {
namespace {

struct Arguments {
  JobArguments job;
  bool print_graph = false;
};

absl::Status RunPlan(const Arguments& arguments) {
  ASSIGN_OR_RETURN(const JobConfig job, LoadJob(arguments.job));
  if (arguments.print_graph) {
    std::printf("%s", GraphToText(job.graph).c_str());
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(const Plan plan, MakePlan(job));
  std::printf("%s", ToText(plan).c_str());
  return absl::OkStatus();
}

}  // namespace

Run AddPlan(CLI::App& verb) {
  auto arguments = std::make_shared<Arguments>();
  AddJobArguments(verb, &arguments->job);
  verb.add_flag("--print-graph", arguments->print_graph,
                "print the job's layer graph in the form that model.graph reads, and nothing else");
  return [arguments] { return RunPlan(*arguments); };
}

}  // namespace sluice::tools
