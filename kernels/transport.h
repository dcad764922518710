// Transport moves messages between ranks: point-to-point over channels, and collectives over groups, on device memory.
//
// A channel is one directed rank-to-rank edge of one kind of message; messages have no tags and match in posting order, as
// on NCCL. Each channel belongs to a queue; operations of one rank in one queue start in posting order, and a send ends
// only together with its receive (rendezvous). All calls return at once.
// Threads: an endpoint is used by its rank's issuing thread; Abort() may be called from any.
// Errors: the first one is terminal and completes all pending and later operations of the endpoint with it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "base/event.h"
#include "base/ids.h"
#include "kernels/device.h"

namespace sluice {

using ChannelId = Id<struct ChannelTag>;
using GroupId = Id<struct GroupTag>;

// Agreed on by both ends before the first message; a difference is refused with both descriptions.
struct ChannelSpec {
  ChannelId id;
  WorldRank sender;
  WorldRank receiver;
  QueueId queue;
  int64_t bytes = 0;    // of every message
  std::string message;  // what it is, with shape and type: "activation 1->2 [8, 256, 384] f32"
  friend bool operator==(const ChannelSpec&, const ChannelSpec&) = default;
};

struct GroupSpec {
  GroupId id;
  std::vector<WorldRank> members;  // in the order of the group
  QueueId queue;
  std::string purpose;  // "gradient norm"
  friend bool operator==(const GroupSpec&, const GroupSpec&) = default;
};

// Memory that holds one message. A transport may exchange the buffer of a sent slot with that of a received one, so nobody
// keeps a slot's address across a transfer.
struct Slot {
  Buffer buffer;
};

// One rank's end of all its channels and groups.
class Transport {
 public:
  virtual ~Transport() = default;
  virtual WorldRank rank() const = 0;
  // True: a transfer may change its slot's address, which is settled only when the transfer has ended; an issuing
  // thread then waits for the event itself. False: work may be issued at once and wait on the device.
  virtual bool slots_move() const = 0;

  // Sends the slot's message once `after` is done; the slot may be written again when the event is done.
  virtual EventRef Send(ChannelId channel, Slot* slot, const EventRef& after) = 0;
  // Fills the slot, once `slot_free` is done, with the next message of the channel.
  virtual EventRef Recv(ChannelId channel, Slot* slot, const EventRef& slot_free) = 0;

  // Gathers `mine` of every member, in the group's order, into `all`. parts[k] is the bytes of member k's part, the same
  // list on every member; empty: all parts are of one size. `all` has the sum of them; `mine` may be its own place in
  // `all`. All stay as they are until the event is done.
  virtual EventRef AllGather(GroupId group, TensorView mine, absl::Span<const int64_t> parts, TensorView all,
                             const EventRef& after) = 0;
  // Gives part k of `mine` to member k and puts what member i gives to this rank at place i of `all`. parts[k] is the
  // bytes of the part for member k, the same list on every member; `mine` has the sum of them, `all` members x
  // parts[place of this rank], and they don't overlap. All three stay as they are until the event is done.
  virtual EventRef AllToAll(GroupId group, TensorView mine, absl::Span<const int64_t> parts, TensorView all,
                            const EventRef& after) = 0;

  // Bytes of messages that have moved between processes so far, in and out, piece by piece: whoever waits with a deadline
  // can tell slow from stuck. Stays 0 where messages move at once. Any thread.
  virtual int64_t bytes_moved() const { return 0; }

  // Completes everything pending and later with `cause`, on this end and, as far as they can be told, on all others.
  virtual void Abort(absl::Status cause) = 0;
};

}  // namespace sluice
