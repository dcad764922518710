#include "runtime/tokenizer/tokenize_files.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <filesystem>
#include <limits>
#include <memory>
#include <new>
#include <set>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "base/status.h"
#include "runtime/data/mapped_file.h"
#include "runtime/data/token_file.h"
#include "runtime/trace/file_writer.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;

constexpr size_t kChunkBytes = 1 << 20;
constexpr int kChunksAThread = 4;  // encoded before what they became is written

// A part of a document that is encoded by itself.
struct Chunk {
  std::shared_ptr<const MappedFile> file;
  absl::string_view text;
  bool last = false;  // of its document
  std::vector<int32_t> ids;
  absl::Status status;
};

// Goes through all documents, chunk by chunk.
class ChunkReader {
 public:
  ChunkReader(const Tokenizer& tokenizer, absl::Span<const std::string> inputs)
      : tokenizer_(tokenizer), inputs_(inputs) {}

  // The next ones; none: that was all.
  absl::StatusOr<std::vector<Chunk>> Next(size_t count) {
    std::vector<Chunk> chunks;
    while (chunks.size() < count) {
      if (rest_.empty()) {
        if (next_ == inputs_.size()) break;
        ASSIGN_OR_RETURN(MappedFile file, MappedFile::Open(inputs_[next_++]));
        file_ = std::make_shared<const MappedFile>(std::move(file));
        rest_ = file_->text();
      }
      const size_t cut = rest_.size() > kChunkBytes ? tokenizer_.FindCut(rest_, kChunkBytes) : rest_.npos;
      Chunk& chunk = chunks.emplace_back();
      chunk.file = file_;
      chunk.text = rest_.substr(0, cut);
      rest_.remove_prefix(chunk.text.size());
      chunk.last = rest_.empty();
    }
    return chunks;
  }

 private:
  const Tokenizer& tokenizer_;
  const absl::Span<const std::string> inputs_;
  size_t next_ = 0;
  std::shared_ptr<const MappedFile> file_;
  absl::string_view rest_;
};

// A file of ids while it is written; what its header says is known at its end.
class TokenWriter {
 public:
  static absl::StatusOr<TokenWriter> Create(const std::string& path, TokenWidth width) {
    TokenWriter made;
    made.path_ = path;
    made.width_ = width;
    ASSIGN_OR_RETURN(made.writer_, FileWriter::Create(path));
    made.writer_->buffer() += TokenFileHeader(width, 0);
    return made;
  }

  absl::Status Append(absl::Span<const int32_t> ids) {
    count_ += static_cast<int64_t>(ids.size());
    if (count_ > std::numeric_limits<int32_t>::max()) {
      return absl::OutOfRangeError(absl::StrCat(path_,
                                                ": more than 2^31 - 1 tokens, which a file's header can't say; give",
                                                " fewer texts at a time, or --each for a file of each"));
    }
    const size_t width = static_cast<size_t>(width_);
    std::string& buffer = writer_->buffer();
    for (const int32_t id : ids) buffer.append(reinterpret_cast<const char*>(&id), width);  // little-endian
    writer_->FlushIfFull();
    return writer_->status();
  }

  absl::Status Finish() {
    writer_->WriteOverStart(TokenFileHeader(width_, static_cast<int32_t>(count_)));
    return writer_->Finish();
  }

 private:
  std::string path_;
  TokenWidth width_ = TokenWidth::kUint32;
  std::unique_ptr<FileWriter> writer_;
  int64_t count_ = 0;
};

// The inputs' file names without their extension, in the folder.
absl::StatusOr<std::vector<std::string>> OutputsOf(const TokenizeOptions& options) {
  if (!options.each) return std::vector<std::string>{options.output};
  std::vector<std::string> outputs;
  std::set<std::string> taken;
  for (const std::string& input : options.inputs) {
    std::error_code error;
    outputs.push_back((fs::path(options.output) / fs::path(input).stem()).string() + ".bin");
    if (!taken.insert(outputs.back()).second) {
      return absl::InvalidArgumentError(
          absl::StrCat(input, ": another text would become ", outputs.back(), " too; tokenize them into two folders"));
    }
    if (fs::equivalent(input, outputs.back(), error)) {
      return absl::InvalidArgumentError(absl::StrCat(input, " would be written over; give another folder"));
    }
  }
  return outputs;
}

class FileTokenizer {
 public:
  FileTokenizer(World* world, const Tokenizer& tokenizer, const TokenizeOptions& options)
      : world_(world), tokenizer_(tokenizer), options_(options), reader_(tokenizer, options.inputs) {
    for (int i = 0; i < options.threads; ++i) encoders_.push_back(std::make_unique<Tokenizer::Encoder>(tokenizer));
  }

  absl::StatusOr<TokenizeReport> Run() {
    ASSIGN_OR_RETURN(report_.files, OutputsOf(options_));
    for (;;) {
      ASSIGN_OR_RETURN(std::vector<Chunk> chunks, reader_.Next(encoders_.size() * kChunksAThread));
      if (chunks.empty()) break;
      Encode(absl::MakeSpan(chunks));
      for (const Chunk& chunk : chunks) {
        if (!chunk.status.ok()) return Annotate(chunk.status, chunk.file->path());
        RETURN_IF_ERROR(Write(chunk));
      }
      if (options_.progress) options_.progress(report_.bytes);
    }
    if (writer_.has_value()) RETURN_IF_ERROR(writer_->Finish());
    return std::move(report_);
  }

 private:
  // The caller encodes too: it has nothing else to do.
  void Encode(absl::Span<Chunk> chunks) {
    std::atomic<size_t> next{0};
    const auto work = [&](Tokenizer::Encoder& encoder) {
      for (size_t i; (i = next.fetch_add(1)) < chunks.size();) {
        try {
          chunks[i].status = encoder.Encode(chunks[i].text, AddedTokens::kLiteral, &chunks[i].ids);
        } catch (const std::bad_alloc&) {
          chunks[i].status = absl::ResourceExhaustedError("out of memory");
        }
      }
    };
    std::vector<EventRef> others;
    for (size_t i = 1; i < std::min(encoders_.size(), chunks.size()); ++i) {
      others.push_back(world_->Spawn({.name = absl::StrCat("tokenize", i)}, [&, i] { work(*encoders_[i]); }));
    }
    work(*encoders_[0]);
    for (const EventRef& other : others) world_->WaitAny({&other, 1}, kForever);
  }

  absl::Status Write(const Chunk& chunk) {
    if (!writer_.has_value()) {
      const auto width = tokenizer_.vocabulary() <= 0x10000 ? TokenWidth::kUint16 : TokenWidth::kUint32;
      ASSIGN_OR_RETURN(writer_, TokenWriter::Create(report_.files[options_.each ? report_.documents : 0], width));
    }
    RETURN_IF_ERROR(writer_->Append(chunk.ids));
    report_.bytes += static_cast<int64_t>(chunk.text.size());
    report_.tokens += static_cast<int64_t>(chunk.ids.size());
    if (!chunk.last) return absl::OkStatus();
    ++report_.documents;
    if (options_.end.has_value()) {
      RETURN_IF_ERROR(writer_->Append({&*options_.end, 1}));
      ++report_.tokens;
    }
    if (!options_.each) return absl::OkStatus();
    RETURN_IF_ERROR(writer_->Finish());
    writer_.reset();
    return absl::OkStatus();
  }

  World* const world_;
  const Tokenizer& tokenizer_;
  const TokenizeOptions& options_;
  ChunkReader reader_;
  std::vector<std::unique_ptr<Tokenizer::Encoder>> encoders_;
  std::optional<TokenWriter> writer_;
  TokenizeReport report_;
};

}  // namespace

absl::StatusOr<TokenizeReport> TokenizeFiles(World* world, const Tokenizer& tokenizer, const TokenizeOptions& options) {
  return FileTokenizer(world, tokenizer, options).Run();
}

}  // namespace sluice
