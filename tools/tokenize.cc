// sluice tokenize: text files into the files of token ids that training maps.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status.h"
#include "base/world.h"
#include "runtime/data/dataset.h"
#include "runtime/models/model.h"
#include "runtime/tokenizer/tokenize_files.h"
#include "runtime/tokenizer/tokenizer.h"
#include "tools/job_verb.h"
#include "tools/verbs.h"

namespace sluice::tools {
namespace {

constexpr char kBytes[] = "bytes";

struct Arguments {
  std::string tokenizer, output;
  std::vector<std::string> inputs;
  std::string end = "auto";
  bool each = false;
  int threads = 0;
};

absl::StatusOr<std::optional<int32_t>> EndToken(const Tokenizer& tokenizer, const std::string& name) {
  if (name == "none") return std::nullopt;
  if (name == "auto") {
    const auto end = tokenizer.EndOfText();
    return end.has_value() ? std::optional(end->id) : std::nullopt;
  }
  const auto id = tokenizer.FindAdded(name);
  if (id.has_value()) return id;
  std::string known;
  for (const AddedToken& token : tokenizer.added()) absl::StrAppend(&known, known.empty() ? "" : ", ", token.content);
  return absl::InvalidArgumentError(absl::StrCat("--end: the tokenizer has no added token '", name, "'; it has ",
                                                 known.empty() ? "none: give --end none" : known));
}

absl::Status MakeFolder(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (!error) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("-o: cannot make the folder ", path, ": ", error.message()));
}

absl::StatusOr<int64_t> BytesOf(const std::vector<std::string>& files) {
  int64_t bytes = 0;
  for (const std::string& file : files) {
    std::error_code error;
    bytes += static_cast<int64_t>(std::filesystem::file_size(file, error));
    if (error) return absl::NotFoundError(absl::StrCat(file, ": ", error.message()));
  }
  return bytes;
}

std::string Megabytes(int64_t bytes) { return absl::StrFormat("%.1f MB", 1e-6 * static_cast<double>(bytes)); }

void PrintReport(const TokenizeReport& report, const Tokenizer& tokenizer, std::optional<int32_t> end, double seconds) {
  const auto bytes = static_cast<double>(report.bytes);
  std::printf("%lld tokens of %lld document%s, %s: %.2f bytes a token; %.1f MB/s\n",
              static_cast<long long>(report.tokens), static_cast<long long>(report.documents),
              report.documents == 1 ? "" : "s", Megabytes(report.bytes).c_str(),
              bytes / static_cast<double>(std::max<int64_t>(1, report.tokens)), 1e-6 * bytes / std::max(seconds, 1e-9));
  std::string job;
  for (const std::string& file : report.files) absl::StrAppend(&job, "  tokens: \"", file, "\"\n");
  if (end.has_value()) absl::StrAppend(&job, "  documents { end_token: ", *end, " }\n");
  std::printf("For a job with model { vocabulary: %lld } or more:\ndata {\n%s}\n",
              static_cast<long long>(tokenizer.vocabulary()), job.c_str());
}

absl::Status RunTokenize(const Arguments& arguments) {
  Tokenizer tokenizer = Tokenizer::Bytes();
  if (arguments.tokenizer != kBytes) {
    ASSIGN_OR_RETURN(tokenizer, OpenTokenizer(UserPath(arguments.tokenizer)));
  }
  TokenizeOptions options{.output = UserPath(arguments.output), .each = arguments.each, .threads = arguments.threads};
  for (const std::string& input : arguments.inputs) {
    ASSIGN_OR_RETURN(const std::vector<std::string> files, TextFiles(UserPath(input)));
    options.inputs.insert(options.inputs.end(), files.begin(), files.end());
  }
  ASSIGN_OR_RETURN(const int64_t total, BytesOf(options.inputs));
  RETURN_IF_ERROR(CheckIsNoInput(arguments.output, options.inputs));
  RETURN_IF_ERROR(CheckIsNoInput(arguments.output, {arguments.tokenizer}));
  ASSIGN_OR_RETURN(options.end, EndToken(tokenizer, arguments.end));
  if (options.threads == 0) options.threads = static_cast<int>(Processors().size());
  if (options.each) RETURN_IF_ERROR(MakeFolder(options.output));

  const std::unique_ptr<World> world = NewRealWorld();
  const Nanoseconds began = world->Now();
  const auto seconds = [&] { return static_cast<double>(world->Now() - began) / kSecond; };
  const bool terminal = isatty(STDERR_FILENO) != 0;
  if (terminal) {
    options.progress = [&](int64_t done) {
      std::fprintf(stderr, "\r%3.0f %% of %s, %.1f MB/s ",
                   100.0 * static_cast<double>(done) / static_cast<double>(total), Megabytes(total).c_str(),
                   1e-6 * static_cast<double>(done) / seconds());
    };
  }
  const auto report = TokenizeFiles(world.get(), tokenizer, options);
  if (terminal) std::fprintf(stderr, "\n");
  if (!report.ok()) return report.status();
  PrintReport(*report, tokenizer, options.end, seconds());
  return absl::OkStatus();
}

}  // namespace

Run AddTokenize(CLI::App& verb) {
  auto arguments = std::make_shared<Arguments>();
  verb.add_option("inputs", arguments->inputs, "text files, or folders of them; each file is a document")->required();
  verb.add_option("--tokenizer", arguments->tokenizer,
                  "a tokenizer.json, a folder that has one, a GGUF file, or 'bytes': every byte is a token")
      ->required();
  verb.add_option("-o,--output", arguments->output, "the file to write; with --each, the folder")->required();
  verb.add_flag("--each", arguments->each, "a file of tokens for each text, so that some can be held out by name");
  verb.add_option("--end", arguments->end,
                  "the added token that ends each document; auto: <|endoftext|> or another of its names, if there is "
                  "one; none");
  verb.add_option("--threads", arguments->threads, "0: as many as there are processors")->check(CLI::Range(0, 1024));
  return [arguments] { return RunTokenize(*arguments); };
}

}  // namespace sluice::tools
