// The alphabet in which byte-level vocabularies write bytes: printable Latin-1 characters stand for themselves, the
// other 68 bytes for U+0100 and up, in order (Radford et al., GPT-2, encoder.py's bytes_to_unicode).
#pragma once

#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace sluice {

// The bytes that `text` writes. Nothing: a character is not of the alphabet, or the text is no UTF-8.
std::optional<std::string> BytesOfAlphabet(absl::string_view text);
// The text that writes these bytes.
std::string AlphabetOfBytes(absl::string_view bytes);

}  // namespace sluice
