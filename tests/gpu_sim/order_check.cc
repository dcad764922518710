#include "tests/gpu_sim/order_check.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "base/check.h"

namespace gpu_sim {

void Clock::Set(int agent, uint32_t index) {
  if (agent >= static_cast<int>(index_.size())) index_.resize(agent + 1);
  index_[agent] = index;
}

void Clock::Join(const Clock& other) {
  if (index_.size() < other.index_.size()) index_.resize(other.index_.size());
  for (size_t i = 0; i < other.index_.size(); ++i) index_[i] = std::max(index_[i], other.index_[i]);
}

int OrderCheck::NewStream() {
  clocks_.emplace_back();
  return static_cast<int>(clocks_.size()) - 1;
}

OrderCheck::Segments::iterator OrderCheck::SplitAt(uintptr_t at) {
  auto next = segments_.upper_bound(at);
  if (next == segments_.begin()) return next;
  auto before = std::prev(next);
  if (before->first == at) return before;
  if (before->second.end <= at) return next;
  Segment rest = before->second;
  before->second.end = at;
  return segments_.emplace_hint(next, at, std::move(rest));
}

void OrderCheck::Allocate(Bytes bytes, Content content) {
  CHECK(SplitAt(bytes.begin) == SplitAt(bytes.end)) << "memory given out twice";
  segments_[bytes.begin] = {.end = bytes.end, .written = content == Content::kWritten};
}

std::vector<OrderCheck::Finding> OrderCheck::Free(Bytes bytes) {
  std::vector<Finding> findings = HostAccess(bytes, /*writes=*/true);
  const auto first = SplitAt(bytes.begin);
  segments_.erase(first, SplitAt(bytes.end));
  return findings;
}

std::vector<OrderCheck::Finding> OrderCheck::HostAccess(Bytes bytes, bool writes) const {
  std::vector<Finding> findings;
  auto segment = segments_.upper_bound(bytes.begin);
  if (segment != segments_.begin() && std::prev(segment)->second.end > bytes.begin) --segment;
  for (; segment != segments_.end() && segment->first < bytes.end; ++segment) {
    Check(kHost, *segment, bytes, writes, &findings);
  }
  return findings;
}

void OrderCheck::Check(int agent, const Segments::value_type& segment, Bytes bytes, bool writes,
                       std::vector<Finding>* findings) const {
  const Segment& state = segment.second;
  Finding finding = {.bytes = {std::max(bytes.begin, segment.first), std::min(bytes.end, state.end)},
                     .later_writes = writes};
  if (!state.written && !writes && agent != kHost) {
    finding.kind = Finding::Kind::kNeverWritten;
    findings->push_back(finding);
    return;
  }
  if (!Knows(agent, state.write)) {
    finding.earlier = state.write.call;
    finding.earlier_writes = true;
    findings->push_back(finding);
  }
  if (!writes) return;
  finding.earlier_writes = false;
  for (const Touch& read : state.reads) {
    if (Knows(agent, read)) continue;
    finding.earlier = read.call;
    findings->push_back(finding);
  }
}

void OrderCheck::Begin(int stream) {
  Clock& clock = clocks_[stream];
  clock.Join(clocks_[kHost]);
  clock.Set(stream, clock.Of(stream) + 1);
}

void OrderCheck::Access(int stream, Bytes bytes, bool writes, uint32_t call, std::vector<Finding>* findings) {
  if (bytes.begin == bytes.end) return;
  const Touch touch = {.agent = stream, .index = clocks_[stream].Of(stream), .call = call};
  const auto first = SplitAt(bytes.begin);
  const auto end = SplitAt(bytes.end);
  CHECK(first != segments_.end() && first->first == bytes.begin) << "access outside of memory";
  for (auto segment = first; segment != end; ++segment) {
    Check(stream, *segment, bytes, writes, findings);
    if (writes) continue;
    // Whatever is ordered after this read is ordered after those that it is ordered after.
    std::vector<Touch>& reads = segment->second.reads;
    std::erase_if(reads, [&](const Touch& read) { return Knows(stream, read); });
    reads.push_back(touch);
  }
  if (!writes) return;
  segments_.erase(std::next(first), end);
  first->second = {.end = bytes.end, .written = true, .write = touch};
}

}  // namespace gpu_sim
