// Conversations as instruct models want them. Of the templates that models bring along, which are programs in Jinja,
// two styles are recognised by the marks they contain, and rendered by us: ChatML and Llama 3's.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "runtime/tokenizer/tokenizer.h"

namespace sluice {

struct ChatMessage {
  std::string role;  // "system", "user", "assistant"
  std::string content;
};

class ChatTemplate {
 public:
  // UNIMPLEMENTED: a template of another style.
  static absl::StatusOr<ChatTemplate> Create(absl::string_view text);

  // Appends the tokens of a conversation up to where the next answer begins. What a message says is never taken for one
  // of the template's marks.
  absl::Status Encode(absl::Span<const ChatMessage> messages, Tokenizer::Encoder* encoder,
                      std::vector<int32_t>* tokens) const;
  // Where an answer ends.
  const std::string& end() const { return end_; }

 private:
  std::string before_role_, after_role_, end_, after_end_;
  std::string system_;  // what a conversation without a message of the system's begins with; empty: nothing
};

}  // namespace sluice
