#include "runtime/checkpoint/store.h"

#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <iterator>

#include "absl/strings/match.h"
#include "absl/strings/str_replace.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/checkpoint/manifest.h"
#include "tests/runtime/checkpoint/test_checkpoints.h"

namespace sluice {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

LayerGraph Model() {
  return MlpGraph({.layers = 1, .channels = 8, .width = 8, .vocabulary = 20, .positions = 16, .max_sequence = 16})
      .value();
}
TestLayout Stages() { return {.cuts = {0, 2, static_cast<int64_t>(Model().nodes.size())}, .members = 2}; }
// Of the checkpoint of a step: values that tell it from all others.
std::map<std::string, TestShard> Shards(int64_t step) {
  RandomNumbers random(1);
  return ShardsOf(Model(), TestState(Model(), static_cast<float>(1000 * step)), Stages(), random);
}
absl::Status Save(const std::string& root, int64_t step, const KeepRule& keep = {}, const Disk& disk = {}) {
  ASSIGN_OR_RETURN(const auto store, CheckpointStore::Open(root, keep, disk));
  return SaveShards(*store, step, Model(), Shards(step), disk).status();
}

std::string Text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}
void Write(const std::string& path, const std::string& text) { std::ofstream(path, std::ios::binary) << text; }

std::vector<int64_t> Steps(const std::string& root) {
  std::vector<int64_t> steps;
  const auto entries = ListCheckpoints(root);
  EXPECT_TRUE(entries.ok()) << entries.status();
  for (const CheckpointEntry& entry : *entries) steps.push_back(entry.manifest.ok() ? entry.step : -entry.step);
  return steps;
}
// Of the newest: its step, after all of it was read and compared; or the error.
std::string Newest(const std::string& root) {
  const auto checkpoint = Checkpoint::Open(root);
  if (!checkpoint.ok()) return std::string(checkpoint.status().message());
  const int64_t step = (*checkpoint)->manifest().step();
  const TestState state(Model(), static_cast<float>(1000 * step));
  if (const absl::Status status = (*checkpoint)->Verify(); !status.ok()) return std::string(status.message());
  if (const absl::Status status = (*checkpoint)->Check(Model()); !status.ok()) return std::string(status.message());
  for (const Checkpoint::Tensor& tensor : (*checkpoint)->tensors()) {
    std::vector<float> values(tensor.elements());
    const Slice all{.rows = tensor.rows, .columns = tensor.columns};
    const absl::Status read = (*checkpoint)->Read(tensor.kind, tensor.name, all, absl::MakeSpan(values));
    if (!read.ok()) return std::string(read.message());
    EXPECT_EQ(values, state.at(tensor.kind, tensor.name));
  }
  return absl::StrCat(step);
}
std::vector<std::string> Leftovers(const std::string& root) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(root)) {
    const std::string name = entry.path().filename().string();
    if (absl::StrContains(name, "partial") || absl::StrContains(name, "removed")) names.push_back(name);
  }
  return names;
}

// Calls body() in a process of its own; its exit code, or minus the signal.
template <class Body>
int InChild(const Body& body) {
  const pid_t child = fork();
  if (child == 0) {
    body();
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

TEST(CheckpointStore, WritesTheManifestLastAndEverythingIsOnTheDiskBeforeTheNameIs) {
  const std::string root = EmptyFolder("order");
  std::vector<std::string> steps;
  const Disk disk([&](absl::string_view step) {
    steps.push_back(absl::StrReplaceAll(step, {{root, "ROOT"}, {absl::StrCat("-", getpid(), "-0"), ""}}));
    return absl::OkStatus();
  });
  ASSERT_TRUE(Save(root, 5, {}, disk).ok());
  const std::string partial = "ROOT/step-00000005.partial";
  const auto at = [&](const std::string& step) {
    const auto found = std::find(steps.begin(), steps.end(), step);
    EXPECT_NE(found, steps.end()) << step;
    return found - steps.begin();
  };
  for (const auto& [file, shard] : Shards(5)) {
    EXPECT_LT(at(absl::StrCat("sync ", partial, "/", file)), at(absl::StrCat("create ", partial, "/manifest.json")));
  }
  const auto sync = at(absl::StrCat("sync ", partial, "/manifest.json"));
  EXPECT_EQ(steps[sync + 1], absl::StrCat("sync ", partial));
  EXPECT_EQ(steps[sync + 2], absl::StrCat("rename ", partial));
  EXPECT_EQ(steps[sync + 3], "sync ROOT");
}

// The process ends right before each step in turn. After that there are the old checkpoints and perhaps the new one,
// whole, and the next writer cleans up.
TEST(CheckpointStore, AProcessThatDiesAtAnyStepLeavesWholeCheckpointsOnly) {
  const KeepRule keep{.last = 2};
  int crashes = 0;
  bool old_seen = false, new_seen = false;
  const std::string before = EmptyFolder("before");
  for (const int64_t step : {1, 2}) ASSERT_TRUE(Save(before, step, keep).ok());
  for (int end = 0;; ++end) {
    const std::string root = EmptyFolder("crash");
    std::filesystem::copy(before, root, std::filesystem::copy_options::recursive);
    const int code = InChild([&] {
      int step = 0;
      const Disk disk([&](absl::string_view) {
        if (step++ == end) _exit(9);
        return absl::OkStatus();
      });
      if (!Save(root, 3, keep, disk).ok()) _exit(1);
    });
    const std::string newest = Newest(root);
    EXPECT_THAT(newest, ::testing::AnyOf("2", "3")) << "step " << end;
    (newest == "2" ? old_seen : new_seen) = true;
    for (const int64_t step : Steps(root)) EXPECT_GT(step, 0) << "an incomplete one has the name of a whole one";
    if (newest == "2") {
      ASSERT_TRUE(Save(root, 3, keep).ok()) << "step " << end;
      EXPECT_THAT(Leftovers(root), ElementsAre());
    }
    ASSERT_TRUE(Save(root, 4, keep).ok());
    EXPECT_THAT(Steps(root), ElementsAre(3, 4));
    EXPECT_THAT(Leftovers(root), ElementsAre());
    if (code == 0) break;
    ASSERT_EQ(code, 9);
    ++crashes;
  }
  EXPECT_GT(crashes, 20);
  EXPECT_TRUE(old_seen && new_seen);
}

// Every step fails in turn, as on a full disk: an error that says so, and nothing is left of the new one.
TEST(CheckpointStore, AnErrorAtAnyStepLeavesTheOldCheckpointsAlone) {
  const std::string before = EmptyFolder("before");
  ASSERT_TRUE(Save(before, 1).ok());
  for (int end = 0;; ++end) {
    const std::string root = EmptyFolder("error");
    std::filesystem::copy(before, root, std::filesystem::copy_options::recursive);
    int step = 0;
    std::string what;
    const Disk disk([&](absl::string_view doing) {
      if (step++ != end) return absl::OkStatus();
      what = std::string(doing);
      return absl::ErrnoToStatus(ENOSPC, absl::StrCat("cannot ", doing));
    });
    const absl::Status status = Save(root, 2, {}, disk);
    if (what.empty()) {
      EXPECT_TRUE(status.ok()) << status;
      break;
    }
    EXPECT_FALSE(status.ok()) << what;
    EXPECT_THAT(std::string(status.message()), HasSubstr(what));
    const std::string newest = Newest(root);
    // The name was there before it could be synced.
    EXPECT_EQ(newest, what == "sync " + root ? "2" : "1") << what;
    ASSERT_TRUE(Save(root, 3).ok());
    EXPECT_THAT(Leftovers(root), ElementsAre());
  }
}

TEST(CheckpointStore, AFullDiskIsAnErrorThatNamesTheFile) {
  const std::string root = EmptyFolder("full");
  ASSERT_TRUE(Save(root, 1).ok());
  // The system refuses every file to grow beyond 2000 bytes.
  const int code = InChild([&] {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{2000, 2000};
    setrlimit(RLIMIT_FSIZE, &limit);
    const absl::Status status = Save(root, 2);
    const std::string message(status.message());
    const bool good = absl::StrContains(message, ".safetensors") && absl::StrContains(message, "File too large");
    _exit(!good ? 1 : 0);
  });
  EXPECT_EQ(code, 0);
  EXPECT_EQ(Newest(root), "1");
}

TEST(CheckpointStore, AFolderThatCantBeWrittenToIsAnError) {
  const std::string file = EmptyFolder("plain");
  Write(file, "a file");
  EXPECT_THAT(std::string(CheckpointStore::Open(file + "/root").status().message()),
              HasSubstr("cannot make the folder"));
  // Of what root may write, only the kernel's own is left.
  const auto read_only = CheckpointStore::Open("/proc/sluice");
  EXPECT_THAT(std::string(read_only.status().message()), HasSubstr("/proc/sluice"));
  if (geteuid() == 0) return;  // who may write everywhere
  const std::string root = EmptyFolder("read_only");
  ASSERT_TRUE(Save(root, 1).ok());
  chmod(root.c_str(), 0555);
  EXPECT_THAT(std::string(Save(root, 2).message()), HasSubstr("give a path in a folder that you may write to"));
  chmod(root.c_str(), 0755);
}

TEST(CheckpointStore, TwoWritersInOneFolderAreRefusedAndTheOtherIsNamed) {
  const std::string root = EmptyFolder("two");
  auto first = CheckpointStore::Open(root);
  ASSERT_TRUE(first.ok());
  const auto partial = (*first)->Begin(1);
  ASSERT_TRUE(partial.ok());
  const auto second = CheckpointStore::Open(root);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(second.status().message()), HasSubstr(absl::StrCat("process ", getpid(), " on ")));
  EXPECT_TRUE(std::filesystem::exists(*partial)) << "what the living one writes stays";
  first = absl::UnknownError("");
  EXPECT_TRUE(CheckpointStore::Open(root).ok());
  EXPECT_FALSE(std::filesystem::exists(*partial)) << "what the dead one wrote is gone";
}

TEST(CheckpointStore, KeepsTheLastOnesAndEveryMth) {
  const std::string root = EmptyFolder("keep");
  const KeepRule keep{.last = 2, .every = 10};
  for (int64_t step = 5; step <= 40; step += 5) ASSERT_TRUE(Save(root, step, keep).ok());
  EXPECT_THAT(Steps(root), ElementsAre(10, 20, 30, 35, 40));
}

TEST(CheckpointStore, AnOldOneStaysWhileNoNewerOneIsComplete) {
  const std::string root = EmptyFolder("stays");
  const KeepRule keep{.last = 1};
  ASSERT_TRUE(Save(root, 1, keep).ok());
  ASSERT_TRUE(Save(root, 2, keep).ok());
  EXPECT_THAT(Steps(root), ElementsAre(2));
  std::filesystem::remove(root + "/step-00000002/manifest.json");
  ASSERT_TRUE(Save(root, 1, keep).ok());
  EXPECT_THAT(Steps(root), ElementsAre(1, -2)) << "2 is none that stands for 1, and a person may look at it";
}

TEST(CheckpointStore, NothingIsWrittenOver) {
  const std::string root = EmptyFolder("over");
  ASSERT_TRUE(Save(root, 1).ok());
  const std::string before = Text(root + "/step-00000001/manifest.json");
  EXPECT_EQ(Save(root, 1).code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(Text(root + "/step-00000001/manifest.json"), before);
  const auto store = CheckpointStore::Open(root);
  ASSERT_TRUE(store.ok());
  EXPECT_TRUE((*store)->CheckBeginsAfter(1).ok());
  EXPECT_THAT(std::string((*store)->CheckBeginsAfter(0).message()), HasSubstr("step-00000001 is there already"));
}

// Each fault is told, with the file it is in and the older checkpoint that can be used.
class DamagedCheckpoint : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = EmptyFolder("damaged");
    folder_ = root_ + "/step-00000002";
    for (const int64_t step : {1, 2}) ASSERT_TRUE(Save(root_, step).ok());
    shard_ = folder_ + "/" + Shards(2).begin()->first;
  }
  void ExpectError(const std::string& file, const std::string& words) const {
    const std::string message = Newest(root_);
    EXPECT_THAT(message, HasSubstr(file));
    EXPECT_THAT(message, HasSubstr(words));
    EXPECT_THAT(message, HasSubstr("an older complete checkpoint: " + root_ + "/step-00000001"));
  }

  std::string root_, folder_, shard_;
};

TEST_F(DamagedCheckpoint, AMissingShard) {
  std::filesystem::remove(shard_);
  ExpectError(shard_, "is missing");
}

TEST_F(DamagedCheckpoint, ATruncatedShard) {
  std::filesystem::resize_file(shard_, std::filesystem::file_size(shard_) - 1);
  ExpectError(shard_, "was it cut off?");
}

TEST_F(DamagedCheckpoint, AMissingManifest) {
  std::filesystem::remove(folder_ + "/manifest.json");
  ExpectError(folder_ + "/manifest.json", "No such file");
}

TEST_F(DamagedCheckpoint, AManifestOfANewerVersion) {
  auto manifest = ReadManifest(folder_);
  ASSERT_TRUE(manifest.ok());
  manifest->set_format_version(2);
  manifest->set_program("sluice 9");
  Write(folder_ + "/manifest.json", *FormatManifest(*manifest));
  ExpectError("manifest.json", "it is of version 2, written by sluice 9; this program reads version 1");
}

TEST_F(DamagedCheckpoint, EveryTornManifestIsRefused) {
  const std::string path = folder_ + "/manifest.json", text = Text(path);
  for (size_t size = 0; size < text.size(); size += 1 + size / 8) {
    Write(path, text.substr(0, size));
    EXPECT_THAT(Newest(root_), HasSubstr("manifest.json"));
  }
}

// Wherever it is: in the header, in a tensor, in the manifest.
TEST_F(DamagedCheckpoint, EveryFlippedBitIsFound) {
  RandomNumbers random(3);
  for (const std::string& path : {shard_, folder_ + "/manifest.json"}) {
    const std::string text = Text(path);
    for (int i = 0; i < 200; ++i) {
      const int64_t bit = i < 64 ? i : random.Below(8 * static_cast<int64_t>(text.size()));
      std::string flipped = text;
      flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ 1 << bit % 8);
      Write(path, flipped);
      ExpectError(path, "");
    }
    Write(path, text);
  }
  EXPECT_EQ(Newest(root_), "2");
}

TEST_F(DamagedCheckpoint, OnlyWhatIsReadIsChecked) {
  // The last byte of a shard is in its last tensor.
  std::string text = Text(shard_);
  text.back() = static_cast<char>(text.back() ^ 1);
  Write(shard_, text);
  const auto checkpoint = Checkpoint::Open(folder_);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  int failed = 0;
  for (const Checkpoint::Tensor& tensor : (*checkpoint)->tensors()) {
    std::vector<float> values(tensor.elements());
    const Slice all{.rows = tensor.rows, .columns = tensor.columns};
    const absl::Status read = (*checkpoint)->Read(tensor.kind, tensor.name, all, absl::MakeSpan(values));
    failed += read.code() == absl::StatusCode::kDataLoss ? 1 : 0;
  }
  EXPECT_EQ(failed, 1);
}

TEST(Checkpoint, WhereThereIsNoneItSaysSo) {
  const std::string root = EmptyFolder("none");
  EXPECT_EQ(Checkpoint::Open(root).status().code(), absl::StatusCode::kNotFound);
  std::filesystem::create_directories(root + "/step-x");
  EXPECT_EQ(Checkpoint::Open(root).status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(Checkpoint::Open(root).status().message()), HasSubstr("there is no checkpoint here"));
}

TEST(Manifest, StrangeOnesAreRefused) {
  const auto refusal = [](const proto::CheckpointManifest& manifest) {
    return std::string(ParseManifest(*FormatManifest(manifest)).status().message());
  };
  proto::CheckpointManifest manifest;
  manifest.set_format_version(1);
  EXPECT_EQ(refusal(manifest), "");
  for (const char* file : {"", "..", "../a", "/etc/passwd", ".hidden", "a/b"}) {
    proto::CheckpointManifest strange = manifest;
    strange.add_shard()->set_file(file);
    EXPECT_THAT(refusal(strange), HasSubstr("a shard's file can't be")) << file;
  }
  proto::CheckpointShard* const shard = manifest.add_shard();
  shard->set_file("a.safetensors");
  proto::CheckpointPiece* const piece = shard->add_piece();
  const auto set = [&](int64_t complete_rows, int64_t row, int64_t rows, int64_t begin, int64_t count) {
    piece->set_name("w");
    piece->set_complete_rows(complete_rows);
    piece->set_complete_columns(4);
    piece->set_row(row);
    piece->set_rows(rows);
    piece->set_columns(4);
    piece->set_begin(begin);
    piece->set_count(count);
    return refusal(manifest);
  };
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  EXPECT_EQ(set(2, 1, 1, 0, 4), "");
  EXPECT_THAT(set(2, 2, 1, 0, 4), HasSubstr("does not lie within"));
  EXPECT_THAT(set(2, -1, 1, 0, 4), HasSubstr("does not lie within"));
  EXPECT_THAT(set(2, 1, 1, 1, 4), HasSubstr("does not lie within"));
  EXPECT_THAT(set(2, 1, 1, kMost, 1), HasSubstr("does not lie within"));
  EXPECT_THAT(set(2, 1, kMost, 0, 4), HasSubstr("does not lie within"));
  EXPECT_THAT(set(kMost, 0, kMost, 0, 4), HasSubstr("does not lie within"));
  EXPECT_EQ(set(2, 1, 1, 0, 4), "");
  *shard->add_piece() = *piece;
  EXPECT_THAT(refusal(manifest), HasSubstr("twice"));
}

}  // namespace
}  // namespace sluice
