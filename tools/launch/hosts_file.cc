#include "tools/launch/hosts_file.h"

#include <map>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/status.h"

namespace sluice::tools {
namespace {

constexpr int kProcessesMax = 4096;

absl::StatusOr<HostLine> ParseWords(const std::vector<absl::string_view>& words) {
  HostLine line{.host = std::string(words[0])};
  // It becomes a word of ssh's command line.
  if (line.host[0] == '-' || line.host.find('=') != std::string::npos) {
    return absl::InvalidArgumentError(absl::StrCat("\"", line.host, "\" is no host; a line is HOST [processes=N]"));
  }
  for (size_t i = 1; i < words.size(); ++i) {
    absl::string_view value = words[i];
    if (i > 1 || !absl::ConsumePrefix(&value, "processes=") || !absl::SimpleAtoi(value, &line.processes) ||
        line.processes < 1 || line.processes > kProcessesMax) {
      return absl::InvalidArgumentError(absl::StrCat(
          "\"", words[i], "\" isn't understood; a line is HOST [processes=N], N from 1 to ", kProcessesMax));
    }
  }
  return line;
}

}  // namespace

absl::StatusOr<std::vector<HostLine>> ParseHosts(absl::string_view text, absl::string_view file) {
  std::vector<HostLine> hosts;
  std::map<std::string, int> line_of;
  int number = 0;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    ++number;
    const std::vector<absl::string_view> words =
        absl::StrSplit(line.substr(0, line.find('#')), absl::ByAnyChar(" \t\r"), absl::SkipEmpty());
    if (words.empty()) continue;
    absl::StatusOr<HostLine> host = ParseWords(words);
    if (!host.ok()) return Annotate(host.status(), absl::StrCat(file, ":", number));
    const auto [before, is_new] = line_of.emplace(host->host, number);
    if (!is_new) {
      return absl::InvalidArgumentError(absl::StrCat(file, ":", number, ": ", host->host, " is on line ",
                                                     before->second, " already; write processes=N there"));
    }
    hosts.push_back(*std::move(host));
  }
  if (hosts.empty())
    return absl::InvalidArgumentError(absl::StrCat(file, " names no host; a line is HOST [processes=N]"));
  return hosts;
}

}  // namespace sluice::tools
