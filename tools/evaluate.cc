// sluice evaluate MODEL TEXT...: how well a model predicts texts.
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <numbers>
#include <string>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status.h"
#include "base/world.h"
#include "runtime/config/job.h"
#include "runtime/data/dataset.h"
#include "runtime/data/mapped_file.h"
#include "runtime/models/model.h"
#include "runtime/planner/plan.h"
#include "runtime/trainer/pipeline.h"
#include "runtime/trainer/text_loss.h"
#include "tools/job_verb.h"
#include "tools/verbs.h"

namespace sluice::tools {
namespace {

struct Arguments {
  std::string model, tokenizer, device = "auto";
  std::vector<std::string> texts, overrides;
  int64_t sequence = 0, rows = 1;
  int pp = 1, tp = 1;
};

// A job's file is text: whatever the path has is quoted.
std::string Quoted(const std::string& path) { return absl::StrCat("\"", absl::CEscape(path), "\""); }

// The job that this evaluation is: enough micro-batches that every rank works.
absl::StatusOr<JobConfig> JobOf(const Arguments& arguments, const std::string& text, int64_t sequence) {
  const int64_t micro_batches = 2 * arguments.pp;
  const std::string job =
      absl::StrCat("model { from: ", Quoted(UserPath(arguments.model)), " }\ndata { tokens: ", Quoted(text),
                   " }\ntraining { batch: ", micro_batches * arguments.rows, " micro_batches: ", micro_batches,
                   " sequence: ", sequence, " }\nlayout { pp: ", arguments.pp, " tp: ", arguments.tp, " }\n");
  return JobOfText(job, {.file = "(options)", .overrides = arguments.overrides, .device = arguments.device});
}

struct Texts {
  std::vector<std::vector<int32_t>> documents;
  int64_t bytes = 0, tokens = 0;
};
absl::StatusOr<Texts> ReadTexts(const std::vector<std::string>& paths, const Tokenizer& tokenizer) {
  Texts texts;
  Tokenizer::Encoder encoder(tokenizer);
  for (const std::string& path : paths) {
    ASSIGN_OR_RETURN(const std::vector<std::string> files, TextFiles(UserPath(path)));
    for (const std::string& file : files) {
      ASSIGN_OR_RETURN(const MappedFile text, MappedFile::Open(file));
      std::vector<int32_t> tokens(tokenizer.prefix().begin(), tokenizer.prefix().end());
      if (absl::Status encoded = encoder.Encode(text.text(), AddedTokens::kLiteral, &tokens); !encoded.ok()) {
        return Annotate(encoded, file);
      }
      texts.bytes += text.bytes();
      texts.tokens += static_cast<int64_t>(tokens.size());
      texts.documents.push_back(std::move(tokens));
    }
  }
  return texts;
}

absl::StatusOr<std::shared_ptr<const Tokenizer>> TokenizerFor(const Arguments& arguments,
                                                              const PretrainedModel& model) {
  if (!arguments.tokenizer.empty()) {
    ASSIGN_OR_RETURN(Tokenizer tokenizer, OpenTokenizer(UserPath(arguments.tokenizer)));
    return std::make_shared<const Tokenizer>(std::move(tokenizer));
  }
  if (model.tokenizer != nullptr) return model.tokenizer;
  return absl::InvalidArgumentError(absl::StrCat(model.no_tokenizer, "; give --tokenizer"));
}

void PrintReport(const Texts& texts, const TextLoss& loss, int64_t sequence, double seconds) {
  absl::PrintF("%d bytes of %d document%s, %d tokens, windows of %d\n", texts.bytes, texts.documents.size(),
               texts.documents.size() == 1 ? "" : "s", texts.tokens, sequence);
  absl::PrintF("loss %.5f nats a token, perplexity %.5g, %.4f bits per byte; %.0f tokens/s\n", loss.mean(),
               std::exp(loss.mean()),
               loss.nats / std::numbers::ln2 / static_cast<double>(std::max<int64_t>(1, texts.bytes)),
               static_cast<double>(loss.predicted) / std::max(seconds, 1e-9));
}

absl::Status RunEvaluate(const Arguments& arguments) {
  ASSIGN_OR_RETURN(const PretrainedModel model, OpenModel(UserPath(arguments.model)));
  ASSIGN_OR_RETURN(const auto tokenizer, TokenizerFor(arguments, model));
  if (tokenizer->vocabulary() > model.graph.vocabulary) {
    return absl::InvalidArgumentError(absl::StrCat("--tokenizer: it has ", tokenizer->vocabulary(),
                                                   " tokens, the model only ", model.graph.vocabulary));
  }
  ASSIGN_OR_RETURN(const Texts texts, ReadTexts(arguments.texts, *tokenizer));
  constexpr int64_t kSequence = 1024;
  const int64_t sequence = arguments.sequence > 0 ? arguments.sequence : std::min(model.context, kSequence);
  ASSIGN_OR_RETURN(const JobConfig job, JobOf(arguments, UserPath(arguments.texts.front()), sequence));
  RETURN_IF_ERROR(CheckDevice(job));
  ASSIGN_OR_RETURN(const Plan plan, MakePlan(job));

  const auto world = NewRealWorld();
  const Nanoseconds began = world->Now();
  ASSIGN_OR_RETURN(const auto pipeline,
                   Pipeline::Create(world.get(), plan,
                                    {.threads_per_rank = job.layout.threads_per_rank,
                                     .processors = job.layout.pin ? Processors() : std::vector<int>(),
                                     .watchdog_seconds = job.watchdog_seconds}));
  const bool terminal = isatty(STDERR_FILENO) != 0;
  const auto loss = EvaluateTexts(pipeline.get(), job.training, texts.documents, [&](int64_t predicted) {
    if (!terminal) return;
    std::fprintf(stderr, "\r%3.0f %% ", 100.0 * static_cast<double>(predicted) / static_cast<double>(texts.tokens));
  });
  if (terminal) std::fprintf(stderr, "\r");
  if (!loss.ok()) return loss.status();
  PrintReport(texts, *loss, sequence, static_cast<double>(world->Now() - began) / kSecond);
  return absl::OkStatus();
}

}  // namespace

Run AddEvaluate(CLI::App& verb) {
  auto arguments = std::make_shared<Arguments>();
  verb.add_option("model", arguments->model, "a folder of Hugging Face's, a GGUF file, or a checkpoint")->required();
  verb.add_option("texts", arguments->texts, "text files, or folders of them; each file is a document")->required();
  verb.add_option("--tokenizer", arguments->tokenizer,
                  "in place of the model's own: a tokenizer.json, a folder that has one, or a GGUF file");
  verb.add_option("--sequence", arguments->sequence, "tokens of a window; 0: the model's context, at most 1024")
      ->check(CLI::NonNegativeNumber);
  verb.add_option("--rows", arguments->rows, "windows of a micro-batch")->check(CLI::PositiveNumber);
  verb.add_option("--pp", arguments->pp, "pipeline ranks")->check(CLI::Range(1, 4096));
  verb.add_option("--tp", arguments->tp, "tensor-parallel shards of each")->check(CLI::Range(1, 4096));
  verb.add_option("--set", arguments->overrides, "changes a field of the job that this is: training.precision=bf16")
      ->type_name("PATH=VALUE")
      ->take_all()
      ->expected(1);
  verb.add_option("--device", arguments->device, "where ranks compute: auto, cpu or cuda")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}));
  return [arguments] { return RunEvaluate(*arguments); };
}

}  // namespace sluice::tools
