#include "tools/launch/host_order.h"

#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "nlohmann/json.hpp"

namespace sluice::tools {
namespace {

constexpr int kFormatVersion = 1;
constexpr char kListening[] = "sluice-process-0-listens";

nlohmann::json Parse(absl::string_view line) {
  return nlohmann::json::parse(line.begin(), line.end(), nullptr, /*allow_exceptions=*/false);
}

}  // namespace

std::string ToLine(const HostOrder& order) {
  return nlohmann::json{
             {"format_version", kFormatVersion}, {"command", order.job.command},     {"first", order.job.first},
             {"count", order.job.count},         {"processes", order.job.processes}, {"address", order.job.address},
             {"port", order.job.port},           {"token", order.job.token},         {"directory", order.directory},
             {"job_file", order.job_file},       {"interface", order.interface},     {"peer", order.peer}}
             .dump(-1, ' ', /*ensure_ascii=*/true, nlohmann::json::error_handler_t::replace) +
         "\n";
}

absl::StatusOr<HostOrder> ParseOrder(absl::string_view line) {
  const nlohmann::json from = Parse(line);
  const auto version = from.is_object() ? from.find("format_version") : from.end();
  if (!from.is_object() || version == from.end() || *version != kFormatVersion) {
    return absl::InvalidArgumentError(
        "standard input has no job for this version of the program; only `sluice launch --hosts` of the same version "
        "starts this");
  }
  try {
    return HostOrder{.job = {.command = from.at("command"),
                             .first = from.at("first"),
                             .count = from.at("count"),
                             .processes = from.at("processes"),
                             .address = from.at("address"),
                             .port = from.at("port"),
                             .token = from.at("token")},
                     .directory = from.at("directory"),
                     .job_file = from.at("job_file"),
                     .interface = from.at("interface"),
                     .peer = from.at("peer")};
  } catch (const nlohmann::json::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat("the job on standard input: ", error.what()));
  }
}

std::string SignalLine(int signal) { return nlohmann::json{{"signal", signal}}.dump() + "\n"; }

int ParseSignal(absl::string_view line) {
  const nlohmann::json from = Parse(line);
  const auto signal = from.is_object() ? from.find("signal") : from.end();
  if (!from.is_object() || signal == from.end() || !signal->is_number_integer()) return 0;
  return signal->get<int>();
}

std::string ToLine(const Listening& listening) {
  return absl::StrCat(kListening, " ", listening.address, " ", listening.port);
}

bool ParseListening(absl::string_view line, Listening* listening) {
  const std::vector<std::string> words = absl::StrSplit(line, ' ');
  if (words.size() != 3 || words[0] != kListening) return false;
  listening->address = words[1];
  return absl::SimpleAtoi(words[2], &listening->port);
}

}  // namespace sluice::tools
