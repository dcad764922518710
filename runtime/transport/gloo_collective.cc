#include "runtime/transport/gloo_collective.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "runtime/transport/gloo_stream.h"

namespace sluice::internal {
namespace {

// Data up to this size travels behind the header.
constexpr int64_t kInlineBytes = 4096;
constexpr int kSendPieces = 4;
constexpr int kReceivePieces = 1 << 20;  // all at once: they only say that memory is there

// What a member has brought; its parts follow.
struct Entry {
  int64_t kind = 0;
  int64_t mine_bytes = 0;
  int64_t all_bytes = 0;
  int64_t parts = 0;
};

class Exchange {
 public:
  Exchange(World* world, RemoteCollective* collective) : world_(world), collective_(*collective) {}

  absl::Status Run() {
    PlanSends(collective_.kind, collective_.members, collective_.self, &sends_);
    ListPeers();
    RETURN_IF_ERROR(ExchangeHeaders());
    for (auto& [process, peer] : peers_) RETURN_IF_ERROR(ReadHeader(process, peer));
    RETURN_IF_ERROR(CheckSizes(collective_.kind, collective_.members));
    collective_.began = world_->Now();
    PlanRest(collective_.kind, collective_.members, collective_.self, &plan_);
    RETURN_IF_ERROR(ExchangeParts());
    MakeCopies(plan_.received);
    return absl::OkStatus();
  }

 private:
  struct Peer {
    int64_t header_bytes = 0;  // of what it brings
    std::vector<std::byte> header, peer_header;
    GlooStream sends{kSendPieces};
    GlooStream receives{kReceivePieces};
  };

  int64_t EntryBytes() const { return sizeof(Entry) + 8 * static_cast<int64_t>(collective_.members.size()); }
  GlooLink* link(int process) const { return collective_.links[process]; }
  void Send(int process, Peer& peer, std::byte* data, int64_t bytes) {
    peer.sends.Push(std::make_unique<GlooMessage>(link(process), Direction::kSend, collective_.tag, data, bytes));
  }
  void Receive(int process, Peer& peer, std::byte* data, int64_t bytes) {
    peer.receives.Push(std::make_unique<GlooMessage>(link(process), Direction::kReceive, collective_.tag, data, bytes));
  }

  void ListPeers();
  std::vector<std::byte> Header() const;
  absl::Status ExchangeHeaders();
  absl::Status ReadHeader(int process, const Peer& peer);
  absl::Status ExchangeParts();
  void Post() {
    for (auto& [process, peer] : peers_) {
      peer.receives.Post();
      peer.sends.Post();
    }
  }
  absl::Status Finish();
  static int64_t BytesOf(const std::vector<Part>& parts, int process);

  World* const world_;
  RemoteCollective& collective_;
  std::vector<Part> sends_;
  CollectivePlan plan_;
  std::map<int, Peer> peers_;  // by process
};

void Exchange::ListPeers() {
  for (const Member& member : collective_.members) {
    if (member.process != collective_.self) peers_[member.process].header_bytes += EntryBytes();
  }
}

std::vector<std::byte> Exchange::Header() const {
  std::vector<std::byte> header;
  for (const Member& member : collective_.members) {
    if (member.process != collective_.self) continue;
    header.resize(header.size() + EntryBytes());
    std::byte* to = &header[header.size() - EntryBytes()];
    const Entry entry{.kind = static_cast<int64_t>(collective_.kind),
                      .mine_bytes = member.mine_bytes,
                      .all_bytes = member.all_bytes,
                      .parts = static_cast<int64_t>(member.parts.size())};
    std::memcpy(to, &entry, sizeof(entry));
    const size_t parts = std::min(member.parts.size(), collective_.members.size());
    if (parts > 0) std::memcpy(to + sizeof(entry), member.parts.data(), 8 * parts);
  }
  return header;
}

int64_t Exchange::BytesOf(const std::vector<Part>& parts, int process) {
  int64_t bytes = 0;
  for (const Part& part : parts) bytes += part.process == process ? part.bytes : 0;
  return bytes;
}

absl::Status Exchange::ExchangeHeaders() {
  const std::vector<std::byte> header = Header();
  for (auto& [process, peer] : peers_) {
    peer.peer_header.resize(peer.header_bytes + kInlineBytes);
    Receive(process, peer, peer.peer_header.data(), peer.peer_header.size());
    peer.header = header;
    if (BytesOf(sends_, process) <= kInlineBytes) {
      for (const Part& part : sends_) {
        if (part.process == process) peer.header.insert(peer.header.end(), part.data, part.data + part.bytes);
      }
    }
    Send(process, peer, peer.header.data(), peer.header.size());
  }
  return Finish();
}

absl::Status Exchange::ReadHeader(int process, const Peer& peer) {
  const std::byte* from = peer.peer_header.data();
  for (Member& member : collective_.members) {
    if (member.process != process) continue;
    Entry entry;
    std::memcpy(&entry, from, sizeof(entry));
    const auto kind = static_cast<CollectiveKind>(entry.kind);
    if (kind != collective_.kind) {
      return absl::InvalidArgumentError(absl::StrCat("the members' operations differ: rank ", member.rank.value(),
                                                     " has posted a ", Name(kind), ", this process a ",
                                                     Name(collective_.kind)));
    }
    member.mine_bytes = entry.mine_bytes;
    member.all_bytes = entry.all_bytes;
    const int64_t parts = std::clamp<int64_t>(entry.parts, 0, collective_.members.size());
    member.parts = absl::MakeConstSpan(reinterpret_cast<const int64_t*>(from + sizeof(entry)), parts);
    from += EntryBytes();
  }
  return absl::OkStatus();
}

absl::Status Exchange::ExchangeParts() {
  for (auto& [process, peer] : peers_) {
    const bool is_inline = BytesOf(plan_.receives, process) <= kInlineBytes;
    const std::byte* from = peer.peer_header.data() + peer.header_bytes;
    for (const Part& part : plan_.receives) {
      if (part.process != process) continue;
      if (is_inline) {
        std::memcpy(part.data, from, part.bytes);
        from += part.bytes;
      } else {
        Receive(process, peer, part.data, part.bytes);
      }
    }
    if (BytesOf(sends_, process) <= kInlineBytes) continue;
    for (const Part& part : sends_) {
      if (part.process == process) Send(process, peer, part.data, part.bytes);
    }
  }
  Post();
  MakeCopies(plan_.copies);  // while Gloo's thread moves the rest
  return Finish();
}

// Sends to all peers advance together; what comes in needs no help once its memory is posted.
absl::Status Exchange::Finish() {
  Post();
  for (bool sending = true; sending;) {
    sending = false;
    for (auto& [process, peer] : peers_) {
      if (peer.sends.empty()) continue;
      if (absl::Status status = peer.sends.WaitForPiece(); !status.ok()) return link(process)->CauseOf(status);
      if (peer.sends.front().done()) peer.sends.Pop();
      sending |= !peer.sends.empty();
    }
  }
  for (auto& [process, peer] : peers_) {
    if (absl::Status status = peer.receives.Finish(); !status.ok()) return link(process)->CauseOf(status);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status Run(World* world, RemoteCollective* collective) { return Exchange(world, collective).Run(); }

}  // namespace sluice::internal
