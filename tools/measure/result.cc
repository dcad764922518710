#include "tools/measure/result.h"

#include <algorithm>
#include <cmath>
#include <iterator>

#include "absl/algorithm/container.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "nlohmann/json.hpp"
#include "proto/text.h"

namespace sluice::tools {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kFormat[] = "sluice bench";
constexpr int kVersion = 1;
constexpr const char* kProducts[] = {"none", "forward", "input gradient", "weight gradient", "attention"};

Json OperationToJson(const BenchedOperation& from) {
  Json to = {{"operation", from.operation},
             {"calls", from.calls},
             {"ms", from.ms},
             {"read_bytes", from.read_bytes},
             {"written_bytes", from.written_bytes},
             {"floor_ms", from.floor.ms},
             {"floor_flops_ms", from.floor.flops_ms},
             {"floor_bytes_ms", from.floor.bytes_ms}};
  if (from.shape.products == Products::kNone) return to;
  to["products"] = kProducts[static_cast<size_t>(from.shape.products)];
  to["m"] = from.shape.m;
  to["n"] = from.shape.n;
  to["k"] = from.shape.k;
  to["compute"] = std::string(Name(from.shape.compute));
  to["flops"] = from.flops;
  to["own_flops_per_second"] = from.rates.own;
  to["library_packed_flops_per_second"] = from.rates.packed;
  to["library_plain_flops_per_second"] = from.rates.plain;
  return to;
}

BenchedOperation OperationFromJson(const Json& from) {
  BenchedOperation to;
  to.operation = from.at("operation").get<std::string>();
  to.calls = from.at("calls").get<int64_t>();
  to.ms = from.at("ms").get<std::vector<double>>();
  to.read_bytes = from.at("read_bytes").get<double>();
  to.written_bytes = from.at("written_bytes").get<double>();
  to.floor = {.flops_ms = from.at("floor_flops_ms").get<double>(),
              .bytes_ms = from.at("floor_bytes_ms").get<double>(),
              .ms = from.at("floor_ms").get<double>()};
  if (!from.contains("products")) return to;
  const std::string products = from.at("products").get<std::string>();
  for (size_t i = 0; i < std::size(kProducts); ++i) {
    if (products == kProducts[i]) to.shape.products = static_cast<Products>(i);
  }
  to.shape.m = from.at("m").get<int64_t>();
  to.shape.n = from.at("n").get<int64_t>();
  to.shape.k = from.at("k").get<int64_t>();
  to.shape.compute = from.at("compute").get<std::string>() == Name(DType::kBF16) ? DType::kBF16 : DType::kF32;
  to.flops = from.at("flops").get<double>();
  to.rates = {.own = from.at("own_flops_per_second").get<double>(),
              .packed = from.at("library_packed_flops_per_second").get<double>(),
              .plain = from.at("library_plain_flops_per_second").get<double>()};
  return to;
}

// Throws where something isn't there or of another type.
BenchResult FromJson(const Json& from) {
  BenchResult to;
  to.program = from.at("program").get<std::string>();
  to.processor = from.at("processor").get<std::string>();
  to.threads = static_cast<int>(std::clamp(from.at("threads").get<double>(), 0.0, 1e6));
  for (const auto& [name, value] : from.at("job").items()) to.job.emplace_back(name, value.get<std::string>());
  to.tokens = from.at("tokens").get<double>();
  to.step_ms = from.at("step_ms").get<std::vector<double>>();
  to.bubble = from.at("bubble").get<double>();
  to.planned_bubble = from.at("planned_bubble").get<double>();
  to.simulated_ms = from.at("simulated_ms").get<double>();
  to.traced_ms = from.at("traced_ms").get<double>();
  to.overhead_share = from.at("overhead_share").get<double>();
  to.planned_bytes = from.at("planned_bytes").get<int64_t>();
  to.base_bytes = from.at("base_bytes").get<int64_t>();
  to.peak_bytes = from.at("peak_bytes").get<int64_t>();
  to.first_step_seconds = from.at("first_step_seconds").get<double>();
  to.profiled_step_ms = from.at("profiled_step_ms").get<double>();
  const Json& memory = from.at("memory_bytes_per_second");
  to.memory = {memory.at("read").get<double>(), memory.at("write").get<double>(), memory.at("update").get<double>()};
  for (const Json& operation : from.at("operations")) to.operations.push_back(OperationFromJson(operation));
  return to;
}

absl::Status CannotRead(const std::string& file, absl::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat(file, ": ", why, "; `sluice bench JOB -o FILE` writes a result"));
}

// What a file may hold that no run writes.
absl::Status CheckValues(const BenchResult& result, const std::string& file) {
  const auto is_time = [](double ms) { return std::isfinite(ms) && ms >= 0 && ms < 1e12; };
  if (result.threads < 1) return CannotRead(file, absl::StrCat("threads is ", result.threads));
  if (result.step_ms.empty()) return CannotRead(file, "a result without steps");
  if (!absl::c_all_of(result.step_ms, [&](double ms) { return is_time(ms) && ms > 0; })) {
    return CannotRead(file, "step_ms holds what is no time");
  }
  for (const BenchedOperation& operation : result.operations) {
    if (!absl::c_all_of(operation.operation, [](char c) { return absl::ascii_isprint(c); })) {
      return CannotRead(file, "an operation's name isn't printable");
    }
    if (operation.ms.empty() || !absl::c_all_of(operation.ms, is_time)) {
      return CannotRead(file, absl::StrCat("ms of \"", operation.operation, "\" holds what is no time"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

double Median(std::vector<double> values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + static_cast<int64_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  if (values.size() % 2 == 1) return *middle;
  return (*middle + *std::max_element(values.begin(), middle)) / 2;
}

FloorTime FloorOfStep(const BenchResult& result) {
  FloorTime sum;
  for (const BenchedOperation& operation : result.operations) sum += operation.floor;
  return sum;
}

std::string ToJson(const BenchResult& from) {
  Json to = {{"format", kFormat},
             {"format_version", kVersion},
             {"program", from.program},
             {"processor", from.processor},
             {"threads", from.threads},
             {"job", Json::object()},
             {"tokens", from.tokens},
             {"step_ms", from.step_ms},
             {"bubble", from.bubble},
             {"planned_bubble", from.planned_bubble},
             {"simulated_ms", from.simulated_ms},
             {"traced_ms", from.traced_ms},
             {"overhead_share", from.overhead_share},
             {"planned_bytes", from.planned_bytes},
             {"base_bytes", from.base_bytes},
             {"peak_bytes", from.peak_bytes},
             {"first_step_seconds", from.first_step_seconds},
             {"profiled_step_ms", from.profiled_step_ms},
             {"memory_bytes_per_second",
              {{"read", from.memory.read}, {"write", from.memory.write}, {"update", from.memory.update}}},
             {"operations", Json::array()}};
  for (const auto& [name, value] : from.job) to["job"][name] = value;
  for (const BenchedOperation& operation : from.operations) to["operations"].push_back(OperationToJson(operation));
  return to.dump(1) + "\n";
}

absl::StatusOr<BenchResult> ResultFromJson(absl::string_view text, const std::string& file) {
  try {
    const Json json = Json::parse(text);
    if (!json.is_object() || json.value("format", "") != kFormat)
      return CannotRead(file, "not a result of sluice bench");
    if (const int version = json.value("format_version", 0); version != kVersion) {
      return CannotRead(file, absl::StrCat("a result in version ", version, " of the format, this program reads ",
                                           kVersion, ": measure again with this program"));
    }
    BenchResult result = FromJson(json);
    RETURN_IF_ERROR(CheckValues(result, file));
    return result;
  } catch (const Json::exception& error) {
    return CannotRead(file, error.what());
  }
}

absl::StatusOr<BenchResult> ReadResult(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(path));
  return ResultFromJson(text, path);
}

}  // namespace sluice::tools
