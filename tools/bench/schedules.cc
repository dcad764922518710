// How fast the schedule laboratory is: actions per second of processor time in each phase, on one core.
//   bazel run -c opt //tools/bench:schedules -- [GENERATOR RANKS CHUNKS MICRO_BATCHES]
//
// An action is an entry of a lowered program: compute, both ends of each transfer, the end of the step. All rates are
// counted in them, also that of generating. "verify" proves progress under the queues assigned and under all
// communication merged into one queue per rank; "simulate" makes the whole timeline.
#include <sys/resource.h>
#include <time.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <utility>

#include "scheduler/csv.h"
#include "scheduler/generators.h"
#include "scheduler/lowering.h"
#include "scheduler/simulate.h"
#include "scheduler/verifier.h"

namespace sluice {
namespace {

struct Setting {
  const char* generator;
  GeneratorParams params;
};

double PeakGigabytes() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1e6;
}

// There is one thread; what others do on the machine does not count.
double ProcessorSeconds() {
  timespec time;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

template <class Value>
Value OrExit(absl::StatusOr<Value> value) {
  if (value.ok()) return *std::move(value);
  std::fprintf(stderr, "%s\n", std::string(value.status().message()).c_str());
  std::exit(1);
}

template <class Work>
auto Timed(double& seconds, Work work) {
  const double begin = ProcessorSeconds();
  auto result = work();
  seconds = ProcessorSeconds() - begin;
  return result;
}

size_t Count(const std::vector<std::vector<Action>>& ranks) {
  size_t count = 0;
  for (const auto& list : ranks) count += list.size();
  return count;
}

void PrintPhase(const char* name, double seconds, size_t actions) {
  std::printf("  %-10s %8.3f s  %8.2f M actions/s\n", name, seconds, static_cast<double>(actions) / seconds / 1e6);
  std::fflush(stdout);
}

void RunPhases(const Setting& setting) {
  double generate = 0, lower = 0, verify = 0, simulate = 0;
  std::printf("%s p=%d v=%d m=%d\n", setting.generator, setting.params.ranks, setting.params.chunks,
              setting.params.micro_batches);
  Schedule schedule = OrExit(Timed(generate, [&] { return Generate(setting.generator, setting.params); }));
  const Program program = OrExit(Timed(lower, [&] { return Lower(std::exchange(schedule, {})); }));
  const size_t actions = Count(program.ranks);
  PrintPhase("generate", generate, actions);
  PrintPhase("lower", lower, actions);
  OrExit(Timed(verify, [&] { return Verify(program); }));
  PrintPhase("verify", verify, actions);
  const Costs costs = UniformCosts(program.placement.stages(), {.forward_ns = 1000, .backward_ns = 2000});
  const Timeline timeline = OrExit(Timed(simulate, [&] { return Simulate(program, costs); }));
  PrintPhase("simulate", simulate, actions);
  PrintPhase("all", generate + lower + verify + simulate, actions);
  std::printf("  %zu actions, peak memory %.2f GB: %.0f bytes per action\n", actions, PeakGigabytes(),
              PeakGigabytes() * 1e9 / static_cast<double>(actions));
  std::printf("  makespan %.3f ms\n", static_cast<double>(Measure(timeline).makespan_ns) / 1e6);
}

void RunCsv(const Setting& setting) {
  const Schedule schedule = OrExit(Generate(setting.generator, setting.params));
  const Program program = OrExit(Lower(schedule));
  double write = 0, read = 0;
  const std::string text = Timed(write, [&] { return WriteCsv(program.ranks); });
  const Schedule again = OrExit(Timed(read, [&] { return ReadCsv(text, "bench.csv"); }));
  const size_t actions = Count(again.ranks);
  std::printf("CSV of %s p=%d v=%d m=%d: %zu actions, %.0f MB\n", setting.generator, setting.params.ranks,
              setting.params.chunks, setting.params.micro_batches, actions, static_cast<double>(text.size()) / 1e6);
  PrintPhase("write", write, actions);
  PrintPhase("read", read, actions);
}

}  // namespace
}  // namespace sluice

int main(int argc, char** argv) {
  using namespace sluice;
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  if (argc == 5) {
    RunPhases(
        {argv[1], {.ranks = std::atoi(argv[2]), .chunks = std::atoi(argv[3]), .micro_batches = std::atoi(argv[4])}});
    return 0;
  }
  if (argc != 1) {
    std::fprintf(stderr, "usage: schedules [GENERATOR RANKS CHUNKS MICRO_BATCHES]\n");
    return 1;
  }
  RunPhases({"interleaved_zb", {.ranks = 32, .chunks = 2, .micro_batches = 256}});
  RunPhases({"1f1b", {.ranks = 64, .chunks = 1, .micro_batches = 4096}});
  RunPhases({"interleaved_1f1b", {.ranks = 256, .chunks = 2, .micro_batches = 1024}});
  RunCsv({"interleaved_1f1b", {.ranks = 256, .chunks = 2, .micro_batches = 3328}});
}
