// sluice checkpoint: looks at checkpoints, checks them, compares them, and writes them anew.
#include "runtime/checkpoint/checkpoint.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "base/status.h"
#include "nlohmann/json.hpp"
#include "runtime/checkpoint/compare.h"
#include "runtime/checkpoint/export.h"
#include "runtime/checkpoint/manifest.h"
#include "runtime/checkpoint/store.h"
#include "runtime/models/hugging_face_writer.h"
#include "runtime/models/model.h"
#include "runtime/planner/text_table.h"
#include "runtime/trace/chart.h"
#include "tools/job_verb.h"
#include "tools/verbs.h"

namespace sluice::tools {
namespace {

constexpr char kPathHelp[] = "a checkpoint, or a folder of checkpoints, of which the newest is meant";
// With which `diff` ends where there are differences.
constexpr int kTheyDiffer = 2;

struct Arguments {
  std::string path, other, output, tokenizer;
  std::string format = "text", to = "safetensors";
  bool all = false;
  int top = 20;
};

std::string LossText(const proto::CheckpointManifest& manifest) {
  return manifest.has_loss() ? absl::StrFormat("%.4f", manifest.loss()) : "-";
}

// When its manifest was written, in this machine's time.
std::string SavedText(const std::string& folder) {
  struct stat info;
  if (stat(absl::StrCat(folder, "/", kManifestFile).c_str(), &info) != 0) return "-";
  return absl::FormatTime("%Y-%m-%d %H:%M:%S", absl::FromTimeT(info.st_mtime), absl::LocalTimeZone());
}

std::string KindText(StateKind kind) {
  return kind == StateKind::kFirstMoment ? "m" : kind == StateKind::kSecondMoment ? "v" : "parameter";
}

// Tells on the terminal how much is done.
class ProgressLine {
 public:
  ProgressLine(const char* doing, int64_t total) : doing_(doing), total_(total) {}
  ~ProgressLine() {
    if (shown_) std::fprintf(stderr, "\n");
  }
  void operator()(int64_t done) {
    if (!terminal_ || total_ == 0 || 100 * done / total_ == percent_) return;
    percent_ = 100 * done / total_;
    shown_ = true;
    std::fprintf(stderr, "\r%s %s: %d %% ", doing_, FormatBytes(total_).c_str(), static_cast<int>(percent_));
  }

 private:
  const char* const doing_;
  const int64_t total_;
  const bool terminal_ = isatty(STDERR_FILENO) != 0;
  bool shown_ = false;
  int64_t percent_ = -1;
};

// --- list ---

void PrintJson(const std::vector<CheckpointEntry>& entries) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const CheckpointEntry& entry : entries) {
    nlohmann::ordered_json item = {{"step", entry.step}, {"path", entry.path}, {"complete", entry.manifest.ok()}};
    if (entry.manifest.ok()) {
      item["updates"] = entry.manifest->updates();
      if (entry.manifest->has_loss()) item["loss"] = entry.manifest->loss();
      item["bytes"] = BytesOf(*entry.manifest);
      item["files"] = entry.manifest->shard_size();
    } else {
      item["error"] = std::string(entry.manifest.status().message());
    }
    list.push_back(std::move(item));
  }
  std::printf("%s\n", list.dump(2, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
}

absl::Status RunList(const Arguments& arguments) {
  ASSIGN_OR_RETURN(const std::vector<CheckpointEntry> entries, ListCheckpoints(UserPath(arguments.path)));
  if (arguments.format == "json") {
    PrintJson(entries);
    return absl::OkStatus();
  }
  if (entries.empty()) return absl::NotFoundError(absl::StrCat(arguments.path, ": there are no checkpoints here"));
  TextTable table({"step", "loss", "size", "files", "saved", "written by", "state"});
  for (const CheckpointEntry& entry : entries) {
    if (!entry.manifest.ok()) {
      table.Add({Grouped(entry.step), "-", "-", "-", SavedText(entry.path), "-",
                 absl::StrCat("not complete: ", entry.manifest.status().message())});
      continue;
    }
    const proto::CheckpointManifest& manifest = *entry.manifest;
    table.Add({Grouped(entry.step), LossText(manifest), FormatBytes(BytesOf(manifest)), Grouped(manifest.shard_size()),
               SavedText(entry.path), manifest.layout().empty() ? manifest.program() : manifest.layout(), "complete"});
  }
  std::printf("%s", table.ToString({4, 5, 6}).c_str());
  return absl::OkStatus();
}

// --- show ---

// A row for each tensor, with what there is of it.
std::string TensorTable(const Checkpoint& checkpoint) {
  struct Row {
    std::string shape, kinds;
    int64_t elements = 0;
    size_t pieces = 0;
  };
  std::map<std::string, Row> rows;
  for (const Checkpoint::Tensor& tensor : checkpoint.tensors()) {
    Row& row = rows[tensor.name];
    row.shape = absl::StrCat("[", tensor.rows, ", ", tensor.columns, "]");
    absl::StrAppend(&row.kinds, row.kinds.empty() ? "" : ", ", KindText(tensor.kind));
    row.elements = tensor.elements();
    row.pieces += tensor.pieces;
  }
  TextTable table({"tensor", "shape", "elements", "pieces", "of it"});
  for (const auto& [name, row] : rows) {
    table.Add({name, row.shape, Grouped(row.elements), absl::StrCat(row.pieces), row.kinds});
  }
  return table.ToString({0, 1, 4});
}

absl::Status RunShow(const Arguments& arguments) {
  ASSIGN_OR_RETURN(const auto checkpoint, Checkpoint::Open(UserPath(arguments.path)));
  const proto::CheckpointManifest& manifest = checkpoint->manifest();
  std::printf("%s\n  step %s, %s updates, loss %s, saved %s by %s\n", checkpoint->path().c_str(),
              Grouped(manifest.step()).c_str(), Grouped(manifest.updates()).c_str(), LossText(manifest).c_str(),
              SavedText(checkpoint->path()).c_str(), manifest.program().c_str());
  if (!manifest.layout().empty()) std::printf("  layout: %s\n", manifest.layout().c_str());
  ASSIGN_OR_RETURN(const LayerGraph graph, checkpoint->Graph());
  std::printf("  model: %s, %s parameters%s\n  %s in %d file%s\n\n", graph.name.c_str(),
              Grouped(ParameterCount(graph)).c_str(),
              checkpoint->HasMoments() ? ", with optimizer state" : ", without optimizer state",
              FormatBytes(BytesOf(manifest)).c_str(), manifest.shard_size(), manifest.shard_size() == 1 ? "" : "s");
  std::printf("%s", TensorTable(*checkpoint).c_str());
  return absl::OkStatus();
}

// --- verify ---

absl::Status Verify(const std::string& path) {
  ASSIGN_OR_RETURN(const auto checkpoint, Checkpoint::Open(path));
  const int64_t bytes = BytesOf(checkpoint->manifest());
  {
    ProgressLine progress("verifying", bytes);
    RETURN_IF_ERROR(checkpoint->Verify([&](int64_t done) { progress(done); }));
  }
  std::printf("%s: as it was written (%s, %d files)\n", checkpoint->path().c_str(), FormatBytes(bytes).c_str(),
              checkpoint->manifest().shard_size());
  return absl::OkStatus();
}

absl::Status RunVerify(const Arguments& arguments) {
  const std::string path = UserPath(arguments.path);
  if (!arguments.all) return Verify(path);
  ASSIGN_OR_RETURN(const std::vector<CheckpointEntry> entries, ListCheckpoints(path));
  int damaged = 0;
  for (const CheckpointEntry& entry : entries) {
    const absl::Status status = Verify(entry.path);
    if (status.ok()) continue;
    ++damaged;
    std::printf("%s: %s\n", entry.path.c_str(), std::string(status.message()).c_str());
  }
  if (entries.empty()) return absl::NotFoundError(absl::StrCat(arguments.path, ": there are no checkpoints here"));
  if (damaged == 0) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(damaged, " of ", entries.size(), " checkpoints are damaged"));
}

// --- diff ---

std::string Number(double value) { return absl::StrFormat("%.3g", value); }

absl::Status RunDiff(const Arguments& arguments) {
  ASSIGN_OR_RETURN(const auto a, Checkpoint::Open(UserPath(arguments.path)));
  ASSIGN_OR_RETURN(const auto b, Checkpoint::Open(UserPath(arguments.other)));
  ASSIGN_OR_RETURN(const std::vector<TensorDifference> differences, Compare(*a, *b));
  TextTable table({"tensor", "of it", "largest difference", "at row, column", "relative", "elements that differ"});
  int64_t differing = 0;
  for (const TensorDifference& difference : differences) {
    if (difference.apart.empty() && difference.differing == 0) continue;
    if (++differing > arguments.top) continue;
    if (!difference.apart.empty()) {
      table.Add({difference.name, KindText(difference.kind), difference.apart, "", "", ""});
      continue;
    }
    table.Add({difference.name, KindText(difference.kind), Number(difference.largest),
               absl::StrCat(difference.row, ", ", difference.column), Number(difference.relative),
               absl::StrCat(Grouped(difference.differing), " of ", Grouped(difference.elements))});
  }
  if (differing == 0) {
    std::printf("All %zu tensors are equal, bit for bit.\n", differences.size());
    return absl::OkStatus();
  }
  std::printf("%s", table.ToString({0, 1}).c_str());
  if (differing > arguments.top) std::printf("  and %d more (--top)\n", static_cast<int>(differing) - arguments.top);
  return WithExitCode(
      absl::FailedPreconditionError(absl::StrCat(differing, " of ", differences.size(), " tensors differ (step ",
                                                 a->manifest().step(), " and step ", b->manifest().step(), ")")),
      kTheyDiffer);
}

// --- convert ---

// From a folder, the files as they are; from any other model, what it takes to talk to it.
absl::Status TakeTokenizer(const std::string& from, PretrainedModel* model, FolderOptions* options) {
  options->tokenizer_from = from;
  if (struct stat status; stat((from + "/tokenizer.json").c_str(), &status) == 0) return absl::OkStatus();
  ASSIGN_OR_RETURN(PretrainedModel other, OpenModel(from));
  if (other.tokenizer == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(from, " has no tokenizer: ", other.no_tokenizer));
  }
  if (other.tokenizer->vocabulary() > model->graph.vocabulary) {
    return absl::InvalidArgumentError(absl::StrCat("the tokenizer of ", from, " has ", other.tokenizer->vocabulary(),
                                                   " tokens, the model only ", model->graph.vocabulary));
  }
  model->tokenizer = std::move(other.tokenizer);
  model->chat_template = std::move(other.chat_template);
  model->end_tokens = std::move(other.end_tokens);
  return absl::OkStatus();
}

// From whatever opens as a model.
absl::Status WriteFolder(const Arguments& arguments) {
  const std::string path = UserPath(arguments.path), output = UserPath(arguments.output);
  ASSIGN_OR_RETURN(PretrainedModel model, OpenModel(path));
  FolderOptions options{.tokenizer_from = path};
  if (!arguments.tokenizer.empty()) RETURN_IF_ERROR(TakeTokenizer(UserPath(arguments.tokenizer), &model, &options));
  RETURN_IF_ERROR(WriteHuggingFaceFolder(model, output, options));
  std::printf("%s\n", output.c_str());
  return absl::OkStatus();
}

absl::Status RunConvert(const Arguments& arguments) {
  if (arguments.to == "hf") return WriteFolder(arguments);
  ASSIGN_OR_RETURN(const auto checkpoint, Checkpoint::Open(UserPath(arguments.path)));
  ASSIGN_OR_RETURN(const LayerGraph graph, checkpoint->Graph());
  RETURN_IF_ERROR(checkpoint->Check(graph));
  const std::string output = UserPath(arguments.output);
  std::string written = output;
  {
    const bool parameters_only = arguments.to == "safetensors";
    ProgressLine progress("writing", parameters_only ? 4 * ParameterCount(graph) : BytesOf(checkpoint->manifest()));
    const auto tell = [&](int64_t done) { progress(done); };
    if (parameters_only) {
      RETURN_IF_ERROR(ExportSafetensors(*checkpoint, graph, output, tell));
    } else {
      ASSIGN_OR_RETURN(written, ExportCheckpoint(*checkpoint, output, tell));
    }
  }
  std::printf("%s\n", written.c_str());
  return absl::OkStatus();
}

}  // namespace

Run AddCheckpoint(CLI::App& verb) {
  auto arguments = std::make_shared<Arguments>();
  auto chosen = std::make_shared<absl::Status (*)(const Arguments&)>(nullptr);
  verb.require_subcommand(1);
  const auto add = [&](const char* name, const char* summary, absl::Status (*run)(const Arguments&)) {
    CLI::App* const command = verb.add_subcommand(name, summary)->fallthrough();
    command->option_defaults()->always_capture_default();
    command->callback([chosen, run] { *chosen = run; });
    return command;
  };
  CLI::App* const list =
      add("list", "the checkpoints in a folder: step, loss, size, and whether they are complete", RunList);
  list->add_option("folder", arguments->path, "a folder of checkpoints")->required();
  list->add_option("--format", arguments->format, "text or json")->check(CLI::IsMember({"text", "json"}));

  CLI::App* const show = add("show", "what a checkpoint holds, tensor by tensor", RunShow);
  show->add_option("path", arguments->path, kPathHelp)->required();

  CLI::App* const verify = add("verify", "read all of it and compare it with its checksums", RunVerify);
  verify->add_option("path", arguments->path, kPathHelp)->required();
  verify->add_flag("--all", arguments->all, "every checkpoint in the folder");

  CLI::App* const diff = add("diff",
                             "the tensors that differ between two checkpoints, the largest difference first; ends with "
                             "code 2 if there are any",
                             RunDiff);
  diff->add_option("a", arguments->path, kPathHelp)->required();
  diff->add_option("b", arguments->other, "the other one")->required();
  diff->add_option("--top", arguments->top, "how many of them to print")->check(CLI::Range(1, 1'000'000));

  CLI::App* const convert = add("convert", "write a checkpoint, or another model, anew", RunConvert);
  convert
      ->add_option("path", arguments->path,
                   absl::StrCat(kPathHelp, "; for hf also a GGUF file or another folder of Hugging Face's"))
      ->required();
  convert
      ->add_option("--to", arguments->to,
                   "safetensors: the parameters, each whole, in one file; checkpoint: with the optimizer's state, as a "
                   "checkpoint of one file in the folder -o; hf: a folder that Hugging Face's transformers opens")
      ->check(CLI::IsMember({"safetensors", "checkpoint", "hf"}));
  convert->add_option("--tokenizer", arguments->tokenizer,
                      "for hf: a folder or a GGUF file whose tokenizer it gets; left out: PATH's, if it has any");
  convert->add_option("-o,--output", arguments->output, "where it goes; nothing is written over")->required();
  return [arguments, chosen] { return (*chosen)(*arguments); };
}

}  // namespace sluice::tools
