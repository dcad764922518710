// Text files into the binary files of token ids that training maps (runtime/data/token_file.h).
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/world.h"
#include "runtime/tokenizer/tokenizer.h"

namespace sluice {

struct TokenizeOptions {
  std::vector<std::string> inputs;  // each a document
  std::string output;               // a file of all documents, or, with `each`, a folder of one file each: NAME.bin
  bool each = false;
  std::optional<int32_t> end;  // the token that ends a document
  int threads = 1;
  std::function<void(int64_t bytes_done)> progress;  // from time to time, on the caller's thread; may be empty
};

struct TokenizeReport {
  int64_t documents = 0;
  int64_t bytes = 0;
  int64_t tokens = 0;
  std::vector<std::string> files;  // written
};

// The tokens don't depend on the number of threads. A file is written whole or not at all. Errors name the file; with
// `each`, two inputs of one name, and one that has the name of what is written.
absl::StatusOr<TokenizeReport> TokenizeFiles(World* world, const Tokenizer& tokenizer, const TokenizeOptions& options);

}  // namespace sluice
