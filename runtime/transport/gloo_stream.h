// Messages over links, in order: a bounded number of pieces is on its way at a time, so that other messages of the same
// link get their turn. One thread.
#pragma once

#include <deque>
#include <memory>
#include <utility>

#include "runtime/transport/gloo_link.h"

namespace sluice::internal {

class GlooStream {
 public:
  explicit GlooStream(int pieces) : pieces_(pieces) {}
  bool empty() const { return messages_.empty(); }
  GlooMessage& front() { return *messages_.front(); }

  void Push(std::unique_ptr<GlooMessage> message) {
    under_way_ += message->posted() ? 1 : 0;
    messages_.push_back(std::move(message));
  }
  void Pop() {
    messages_.pop_front();
    if (to_post_ > 0) --to_post_;
  }

  // Gives Gloo as many pieces as may be under way.
  void Post() {
    while (under_way_ < pieces_ && to_post_ < messages_.size()) {
      GlooMessage& message = *messages_[to_post_];
      if (message.posted()) {
        ++to_post_;
        continue;
      }
      message.PostPiece();
      ++under_way_;
    }
  }

  // Blocks until the next piece of the first message has moved; its error is that of all later ones. REQUIRES:
  // !empty().
  absl::Status WaitForPiece() {
    Post();
    if (status_.ok()) status_ = front().WaitForPiece();
    --under_way_;
    Post();
    return status_;
  }

  // Blocks until all messages have moved.
  absl::Status Finish() {
    while (!empty()) {
      if (absl::Status status = WaitForPiece(); !status.ok()) return status;
      if (front().done()) Pop();
    }
    return absl::OkStatus();
  }

 private:
  const int pieces_;
  std::deque<std::unique_ptr<GlooMessage>> messages_;
  size_t to_post_ = 0;  // the first message that may have pieces to post
  int under_way_ = 0;
  absl::Status status_;
};

}  // namespace sluice::internal
