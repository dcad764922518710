#include "tests/equivalence/settings.h"

#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"

namespace sluice {

std::string JobText(const Settings& s) {
  const std::string model = s.family == "gpt2"
                                ? "family: 'gpt2' layers: 3 heads: 4 positions: 24 dropout: 0.1"
                                : "family: 'llama' layers: 3 heads: 4 kv_heads: 2 width: 80 dropout: 0.1";
  const int batch = s.micro_batches * 2;
  return absl::StrCat(
      "model { ", model, " channels: ", s.channels, " tied: ", s.tied ? "true" : "false", " vocabulary: ", s.vocabulary,
      " }\n", "data { text: 'text' hold_out { fraction: 0.1 } documents { separate: true } }\n",
      "training { steps: ", s.steps, " batch: ", batch, " micro_batches: ", s.micro_batches,
      " sequence: 24 precision: ", s.precision, " recompute: ", s.recompute, " gradient_groups: ", s.groups, " }\n",
      "optimizer { learning_rate: ", s.learning_rate, " minimum_learning_rate: 0.0003 warm_up: 3 clip_norm: ", s.clip,
      " }\n", "layout { pp: ", s.pp, " dp: ", s.dp, " zero1: ", s.zero1 ? "true" : "false", " tp: ", s.tp,
      " sequence_parallel: ", s.sequence_parallel ? "true" : "false", " chunks: ", s.chunks,
      " threads_per_rank: ", s.threads, " pin: false }\n", "schedule { ", s.file.empty() ? "name: '" : "file: '",
      s.file.empty() ? s.schedule : s.file, "' post_validation: ", s.post_validation ? "true" : "false", " }\n");
}

std::string Name(const Settings& s) {
  return absl::StrCat(s.family, " ", s.precision, " recompute ", s.recompute, " m=", s.micro_batches, " G=", s.groups,
                      " p=", s.pp, " dp=", s.dp, s.zero1 ? " zero1" : "", " C=", s.channels, " tp=", s.tp,
                      s.sequence_parallel ? " of slices" : "", " V=", s.vocabulary, " v=", s.chunks, " ", s.schedule,
                      " threads ", s.threads, s.tied ? "" : " untied", " clip ", s.clip, " rate ", s.learning_rate,
                      s.post_validation ? " post-validated" : "", s.messages == Messages::kCopied ? " copied" : "", " ",
                      s.file, " ", s.steps, " steps");
}

Settings OneDevice(Settings s) {
  s.pp = 1;
  s.dp = 1;
  s.zero1 = false;
  s.schedule = "gpipe";
  s.threads = 1;
  s.recompute = "none";
  s.chunks = 1;
  s.post_validation = false;
  s.messages = Messages::kExchanged;
  s.file = "";
  return s;
}

void WriteTexts(const std::string& folder) {
  std::filesystem::create_directory(folder + "/text");
  for (int document = 0; document < 20; ++document) {
    std::ofstream out(folder + "/text/" + std::to_string(100 + document));
    for (int line = 0; line < 12; ++line)
      out << "document " << document << " says " << line * line << " and no more.\n";
  }
}

}  // namespace sluice
