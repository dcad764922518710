// sluice devices: what this machine has to compute on, and why something is not used.
#include <sched.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/status.h"
#include "base/world.h"
#include "kernels/cpu/cpu_device.h"
#include "kernels/cuda/survey.h"
#include "nlohmann/json.hpp"
#include "runtime/planner/text_table.h"
#include "tools/job_verb.h"
#include "tools/transfer_check.h"
#include "tools/verbs.h"

namespace sluice::tools {
namespace {

// Of the kernels' interest, as Linux names them, and what they are used for.
struct Feature {
  const char* flag;
  const char* use;
};
constexpr Feature kFeatures[] = {{"avx2", "f32 and exact bf16"},
                                 {"avx512f", "f32, wider"},
                                 {"avx512_bf16", "bf16 products through oneDNN"},
                                 {"amx_bf16", "bf16 products on matrix registers"}};

struct CpuSurvey {
  std::string description;  // processor, threads, instruction set in use
  std::vector<int> processors;
  std::set<std::string> flags;  // of kFeatures
  int64_t memory_bytes = 0;
};

std::set<std::string> ReadFlags() {
  std::ifstream file("/proc/cpuinfo");
  std::set<std::string> flags;
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("flags", 0) != 0) continue;
    for (const absl::string_view word : absl::StrSplit(line, ' ')) flags.emplace(word);
    break;
  }
  return flags;
}

CpuSurvey SurveyCpu() {
  CpuSurvey survey{.processors = Processors()};
  const std::unique_ptr<World> world = NewRealWorld();
  survey.description =
      cpu::NewCpuDevice(world.get(), {.threads = static_cast<int>(survey.processors.size())})->description();
  const std::set<std::string> flags = ReadFlags();
  for (const Feature& feature : kFeatures) {
    if (flags.count(feature.flag) > 0) survey.flags.insert(feature.flag);
  }
  survey.memory_bytes = int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGE_SIZE);
  return survey;
}

std::string CpuText(const CpuSurvey& cpu) {
  std::string text = absl::StrCat("CPU  ", cpu.description, ", ", Grouped(cpu.memory_bytes >> 20), " MiB\n");
  for (const Feature& feature : kFeatures) {
    absl::StrAppendFormat(&text, "       %-12s %-4s %s\n", feature.flag,
                          cpu.flags.count(feature.flag) > 0 ? "yes" : "no", feature.use);
  }
  return text;
}

std::string GpuText(const cuda::GpuSurvey& survey) {
  if (!survey.found.ok()) return absl::StrCat("GPU  none: ", survey.found.message(), "\n");
  TextTable table({"GPU", "name", "capability", "SMs", "memory, MiB", "free", "bus", "reaches"});
  std::string not_used;
  for (size_t i = 0; i < survey.gpus.size(); ++i) {
    const cuda::GpuInfo& gpu = survey.gpus[i];
    table.Add({absl::StrCat(i), gpu.name, absl::StrCat(gpu.major, ".", gpu.minor), absl::StrCat(gpu.multiprocessors),
               Grouped(gpu.memory_bytes >> 20), Grouped(gpu.free_bytes >> 20), gpu.pci_bus,
               gpu.peers.empty() ? "-" : absl::StrJoin(gpu.peers, " ")});
    if (!gpu.usable.ok()) absl::StrAppend(&not_used, "GPU ", i, " is not used: ", gpu.usable.message(), "\n");
  }
  return absl::StrCat(table.ToString({1, 6, 7}), not_used);
}

std::string VersionText(const cuda::GpuSurvey& survey) {
  if (survey.runtime_version == 0) return "";
  return absl::StrCat("CUDA ", cuda::CudaVersion(survey.runtime_version), " built in, the driver runs ",
                      survey.driver_version == 0 ? "none" : cuda::CudaVersion(survey.driver_version), "; cuBLASLt ",
                      survey.cublaslt_version, "\n");
}

nlohmann::json GpuJson(const cuda::GpuInfo& gpu) {
  nlohmann::json json = {{"name", gpu.name},
                         {"compute_capability", absl::StrCat(gpu.major, ".", gpu.minor)},
                         {"multiprocessors", gpu.multiprocessors},
                         {"memory_bytes", gpu.memory_bytes},
                         {"free_bytes", gpu.free_bytes},
                         {"pci_bus", gpu.pci_bus},
                         {"peers", gpu.peers},
                         {"usable", gpu.usable.ok()}};
  if (!gpu.usable.ok()) json["why_not"] = std::string(gpu.usable.message());
  return json;
}

std::string Json(const CpuSurvey& cpu, const cuda::GpuSurvey& survey) {
  nlohmann::json json = {{"cpu",
                          {{"description", cpu.description},
                           {"processors", cpu.processors},
                           {"features", cpu.flags},
                           {"memory_bytes", cpu.memory_bytes}}},
                         {"cuda",
                          {{"runtime_version", survey.runtime_version},
                           {"driver_version", survey.driver_version},
                           {"cublaslt_version", survey.cublaslt_version}}},
                         {"gpus", nlohmann::json::array()}};
  for (const cuda::GpuInfo& gpu : survey.gpus) json["gpus"].push_back(GpuJson(gpu));
  if (!survey.found.ok()) json["cuda"]["why_not"] = std::string(survey.found.message());
  return json.dump(2) + "\n";
}

absl::Status RunDevices(const std::string& format, bool check) {
  const CpuSurvey cpu = SurveyCpu();
  const cuda::GpuSurvey gpus = cuda::SurveyGpus();
  const std::string text =
      format == "json" ? Json(cpu, gpus) : absl::StrCat(CpuText(cpu), GpuText(gpus), VersionText(gpus));
  std::printf("%s", text.c_str());
  if (!check) return absl::OkStatus();
  std::fflush(stdout);
  ASSIGN_OR_RETURN(const std::string transfers, CheckTransfers());
  std::printf("\n%s", transfers.c_str());
  return absl::OkStatus();
}

}  // namespace

Run AddDevices(CLI::App& verb) {
  auto format = std::make_shared<std::string>("text");
  verb.add_option("--format", *format, "of what is printed")->check(CLI::IsMember({"text", "json"}));
  auto check = std::make_shared<bool>(false);
  verb.add_flag("--check", *check, "try a transfer between every pair of GPUs, and print how fast it was");
  return [format, check] { return RunDevices(*format, *check); };
}

}  // namespace sluice::tools
