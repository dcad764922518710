#include "runtime/transport/specs.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace sluice {

std::string ToString(const ChannelSpec& spec) {
  return absl::StrCat("channel ", spec.id.value(), ", queue ", spec.queue.value(), ", rank ", spec.sender.value(),
                      " to rank ", spec.receiver.value(), ", ", spec.bytes, " bytes: ", spec.message);
}

std::string ToString(const GroupSpec& spec) {
  const std::string members =
      absl::StrJoin(spec.members, ", ", [](std::string* out, WorldRank rank) { absl::StrAppend(out, rank.value()); });
  return absl::StrCat("group ", spec.id.value(), ", queue ", spec.queue.value(), ", ranks ", members, ": ",
                      spec.purpose);
}

}  // namespace sluice
