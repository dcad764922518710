#include "tools/launch/slurm_lists.h"

#include <cstdint>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace sluice::tools {
namespace {

absl::Status NoList(absl::string_view text, absl::string_view example) {
  return absl::InvalidArgumentError(absl::StrCat("\"", text, "\" is not of the form ", example));
}

// "4(x2)": 4 on two nodes; "4": on one.
bool ParseRun(absl::string_view run, int* count, int* nodes) {
  *nodes = 1;
  const size_t times = run.find("(x");
  if (times != absl::string_view::npos) {
    absl::string_view text = run.substr(times + 2);
    if (!absl::ConsumeSuffix(&text, ")") || !absl::SimpleAtoi(text, nodes)) return false;
  }
  return absl::SimpleAtoi(run.substr(0, times), count) && *count > 0 && *nodes > 0;
}

}  // namespace

absl::StatusOr<std::string> FirstOfNodeList(absl::string_view list) {
  constexpr absl::string_view kForm = "node[03-05,7],other";
  std::string host;
  for (absl::string_view rest = list; !rest.empty() && rest.front() != ',';) {
    if (rest.front() != '[') {
      const absl::string_view name = rest.substr(0, rest.find_first_of("[,"));
      if (name.find(']') != absl::string_view::npos) return NoList(list, kForm);
      absl::StrAppend(&host, name);
      rest.remove_prefix(name.size());
      continue;
    }
    const absl::string_view first = rest.substr(1, rest.find_first_of("-,]") - 1);
    const size_t end = rest.find(']');
    if (first.empty() || first.find_first_not_of("0123456789") != absl::string_view::npos ||
        end == absl::string_view::npos) {
      return NoList(list, kForm);
    }
    absl::StrAppend(&host, first);
    rest.remove_prefix(end + 1);
  }
  if (host.empty()) return NoList(list, kForm);
  return host;
}

absl::StatusOr<int> CountOfNode(absl::string_view counts, int node) {
  constexpr absl::string_view kForm = "4(x2),3";
  int64_t nodes_before = 0;
  for (const absl::string_view run : absl::StrSplit(counts, ',')) {
    int count = 0, nodes = 0;
    if (!ParseRun(run, &count, &nodes)) return NoList(counts, kForm);
    if (node - nodes_before < nodes) return count;
    nodes_before += nodes;
  }
  return absl::InvalidArgumentError(absl::StrCat("\"", counts, "\" has no node ", node));
}

}  // namespace sluice::tools
