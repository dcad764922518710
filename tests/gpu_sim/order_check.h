// Which accesses to memory are ordered: by the order of a stream, by an event that another stream waits for, or because
// the host saw the earlier one end before it issued the later one. Two accesses to the same bytes of which one writes,
// and which none of these orders, are a race, whatever order this run takes.
//
// Vector clocks, an agent for each stream and one for the host (all its threads: they order themselves by means that
// are not seen here); for every byte its last write and the reads since (FastTrack: Flanagan and Freund, PLDI 2009).
// Everything is checked when it is issued, so that findings don't depend on the order of execution.
//
// Threads: one at a time.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

namespace gpu_sim {

// What of each agent's accesses has happened: all up to this index.
class Clock {
 public:
  uint32_t Of(int agent) const { return agent < static_cast<int>(index_.size()) ? index_[agent] : 0; }
  void Set(int agent, uint32_t index);
  void Join(const Clock& other);

 private:
  std::vector<uint32_t> index_;
};

class OrderCheck {
 public:
  static constexpr int kHost = 0;
  static constexpr uint32_t kNoCall = ~0u;

  struct Bytes {
    uintptr_t begin = 0, end = 0;
  };
  struct Finding {
    enum class Kind : uint8_t { kUnordered, kNeverWritten } kind = Kind::kUnordered;
    Bytes bytes;
    uint32_t earlier = kNoCall;  // the call that made the earlier access
    bool earlier_writes = false, later_writes = false;
  };

  OrderCheck() : clocks_(1) {}
  int NewStream();

  // Memory begins (content: none, unless the host has written it) and ends. REQUIRES: not there yet; there.
  enum class Content : uint8_t { kNone, kWritten };
  void Allocate(Bytes bytes, Content content);
  // What was issued on these bytes and has not ended as far as the host knows.
  std::vector<Finding> Free(Bytes bytes);
  // The same without freeing: the host accesses them.
  std::vector<Finding> HostAccess(Bytes bytes, bool writes) const;

  // A command of the stream follows; its accesses after that. `call` comes back in findings.
  void Begin(int stream);
  void Access(int stream, Bytes bytes, bool writes, uint32_t call, std::vector<Finding>* findings);

  // An event's record is a copy of the stream's clock; a wait joins it.
  const Clock& Of(int stream) const { return clocks_[stream]; }
  void Wait(int stream, const Clock& recorded) { clocks_[stream].Join(recorded); }
  void HostSaw(const Clock& recorded) { clocks_[kHost].Join(recorded); }
  bool HostKnows(int stream, uint32_t index) const { return clocks_[kHost].Of(stream) >= index; }

 private:
  struct Touch {
    int agent = kHost;
    uint32_t index = 0;
    uint32_t call = kNoCall;
  };
  struct Segment {
    uintptr_t end = 0;
    bool written = false;
    Touch write;
    std::vector<Touch> reads;
  };
  using Segments = std::map<uintptr_t, Segment>;

  bool Knows(int agent, const Touch& touch) const { return clocks_[agent].Of(touch.agent) >= touch.index; }
  // Adds what conflicts with an access of `agent` to the segment.
  void Check(int agent, const Segments::value_type& segment, Bytes bytes, bool writes,
             std::vector<Finding>* findings) const;
  // The first segment that begins at or after `at`, once none lies across it.
  Segments::iterator SplitAt(uintptr_t at);

  std::vector<Clock> clocks_;  // by agent
  Segments segments_;
};

}  // namespace gpu_sim
