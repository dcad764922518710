// How fast a checkpoint is written and read, beside the disk it lies on.
//   bazel run -c opt //tools/bench:checkpoint -- FOLDER [MEGABYTES [FILES]]      1000 and 1 when left out
//
// disk: as many bytes in one new file, in pieces of 8 MiB, until fsync returns; once through the page cache and once
// around it (O_DIRECT), the faster counts. checkpoint: the store's whole way, checksums, manifest and renaming
// included, from values in memory to a complete checkpoint. disk, read: the
// checkpoint's files in pieces of 8 MiB around the page cache. verify: all checksums, the files not in the page cache
// (cold) and in it (warm). read: all values into memory, checksums included, warm. Rounds take turns; medians.
#include "runtime/checkpoint/checkpoint.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/world.h"
#include "runtime/checkpoint/shard_writer.h"
#include "runtime/checkpoint/store.h"
#include "stages/families/mlp.h"
#include "stages/graph_io.h"

namespace sluice {
namespace {

constexpr int kRounds = 5;
constexpr size_t kPiece = 8 << 20;
constexpr size_t kAlignment = 4096;  // of O_DIRECT

class Bench {
 public:
  Bench(std::string folder, int64_t megabytes, int files)
      : folder_(std::move(folder)), megabytes_(megabytes), files_(files), world_(NewRealWorld()) {
    // Two large matrices, each shared among the files.
    graph_ =
        MlpGraph(
            {.layers = 1, .channels = 1024, .width = 1024, .vocabulary = Rows(), .positions = 8, .max_sequence = 8})
            .value();
    piece_.reset(static_cast<std::byte*>(std::aligned_alloc(kAlignment, kPiece)));
    CHECK(piece_ != nullptr);
    for (size_t i = 0; i < kPiece; ++i) piece_.get()[i] = static_cast<std::byte>(i * 2654435761u >> 13);
  }

  void Run() {
    for (int round = 0; round < kRounds; ++round) {
      Time("disk, page cache", [&] { WriteRaw(0); });
      Time("disk, O_DIRECT", [&] { WriteRaw(O_DIRECT); });
      Time("checkpoint", [&] { WriteCheckpoint(); });
      Time("disk, read", [&] { ReadRaw(); });
      DropPages();
      const auto cold = Open();
      Time("verify, cold", [&] { CHECK_OK(cold->Verify()); });
      const auto warm = Open();
      Time("verify, warm", [&] { CHECK_OK(warm->Verify()); });
      const auto again = Open();
      Time("read, warm", [&] { ReadAll(*again); });
      std::filesystem::remove_all(Root());
    }
    Print();
  }

 private:
  int64_t Rows() const { return megabytes_ * 1'000'000 / 8192; }
  std::string Root() const { return folder_ + "/bench-checkpoints"; }

  void Time(const std::string& what, const std::function<void()>& body) {
    const Nanoseconds began = world_->Now();
    body();
    seconds_[what].push_back(static_cast<double>(world_->Now() - began) / kSecond);
  }

  void WriteRaw(int flag) {
    const std::string path = folder_ + "/bench-raw";
    const int file = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | flag, 0666);
    CHECK(file >= 0) << path << (flag != 0 ? ": no O_DIRECT here" : "");
    for (int64_t left = megabytes_ * 1'000'000; left > 0; left -= kPiece) {
      CHECK_EQ(write(file, piece_.get(), kPiece), static_cast<ssize_t>(kPiece)) << "the disk is full";
    }
    CHECK_EQ(fsync(file), 0);
    close(file);
    unlink(path.c_str());
  }

  void WriteCheckpoint() {
    const auto store = CheckpointStore::Open(Root()).value();
    const std::string partial = store->Begin(1).value();
    proto::CheckpointManifest manifest;
    manifest.set_step(1);
    manifest.set_graph(GraphToText(graph_));
    const auto parameters = StageParameters(graph_, 0, graph_.nodes.size());
    for (int file = 0; file < files_; ++file) {
      std::vector<Piece> pieces;
      for (const StageParameter& parameter : parameters) {
        const Share share = ShareOf(parameter.spec.elements(), files_, file);
        for (Piece& piece : PiecesOf(parameter.spec, StateKind::kParameter, share.begin, share.count)) {
          pieces.push_back(std::move(piece));
        }
      }
      const auto writer = ShardWriter::Create(partial, absl::StrCat(file, ".safetensors"), pieces).value();
      const absl::Span<const float> values(reinterpret_cast<const float*>(piece_.get()), kPiece / 4);
      for (const Piece& piece : pieces) {
        for (int64_t left = piece.count; left > 0; left -= static_cast<int64_t>(values.size())) {
          CHECK_OK(writer->Add(values.first(std::min(values.size(), static_cast<size_t>(left)))));
        }
      }
      *manifest.add_shard() = writer->Finish().value();
    }
    CHECK_OK(store->Commit(partial, std::move(manifest)).status());
  }

  void ReadRaw() {
    for (const auto& entry : std::filesystem::directory_iterator(Root() + "/step-00000001")) {
      const int file = open(entry.path().c_str(), O_RDONLY | O_DIRECT);
      CHECK(file >= 0) << "no O_DIRECT here";
      while (read(file, piece_.get(), kPiece) > 0) {
      }
      close(file);
    }
  }
  void DropPages() const {
    for (const auto& entry : std::filesystem::directory_iterator(Root() + "/step-00000001")) {
      const int file = open(entry.path().c_str(), O_RDONLY);
      posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
      close(file);
    }
  }

  std::unique_ptr<Checkpoint> Open() const { return Checkpoint::Open(Root()).value(); }

  void ReadAll(const Checkpoint& checkpoint) {
    for (const Checkpoint::Tensor& tensor : checkpoint.tensors()) {
      values_.resize(std::max(values_.size(), static_cast<size_t>(tensor.elements())));
      CHECK_OK(checkpoint.Read(tensor.kind, tensor.name, {.rows = tensor.rows, .columns = tensor.columns},
                               absl::MakeSpan(values_).first(tensor.elements())));
    }
  }

  double Rate(const std::string& what) {
    std::vector<double>& times = seconds_[what];
    std::sort(times.begin(), times.end());
    return 1e-3 * static_cast<double>(megabytes_) / times[times.size() / 2];
  }
  void Print() {
    const double disk = std::max(Rate("disk, page cache"), Rate("disk, O_DIRECT"));
    std::printf("%lld MB in %d files, GB/s, medians of %d\n", static_cast<long long>(megabytes_), files_, kRounds);
    for (const char* what : {"disk, page cache", "disk, O_DIRECT", "checkpoint", "disk, read", "verify, cold",
                             "verify, warm", "read, warm"}) {
      std::printf("  %-18s %6.2f\n", what, Rate(what));
    }
    std::printf("checkpoint: %.0f %% of the disk\n", 100 * Rate("checkpoint") / disk);
  }

  struct Free {
    void operator()(std::byte* bytes) const { std::free(bytes); }
  };
  const std::string folder_;
  const int64_t megabytes_;
  const int files_;
  const std::unique_ptr<World> world_;
  LayerGraph graph_;
  std::unique_ptr<std::byte, Free> piece_;
  std::vector<float> values_;
  std::map<std::string, std::vector<double>> seconds_;
};

}  // namespace
}  // namespace sluice

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: checkpoint FOLDER [MEGABYTES [FILES]]\n");
    return 1;
  }
  sluice::Bench(argv[1], argc > 2 ? std::atoll(argv[2]) : 1000, argc > 3 ? std::atoi(argv[3]) : 1).Run();
  return 0;
}
