#include "runtime/checkpoint/store.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <system_error>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "absl/types/span.h"
#include "base/check.h"
#include "base/status.h"
#include "runtime/checkpoint/manifest.h"
#include "runtime/trace/file_writer.h"
#include "spdlog/spdlog.h"

namespace sluice {
namespace {

constexpr char kPartial[] = ".partial-";
constexpr char kRemoved[] = ".removed-";

std::string FolderName(int64_t step) { return absl::StrFormat("step-%08d", step); }

// The step of a folder that is called as a checkpoint is; -1 of any other.
int64_t StepOf(absl::string_view name) {
  int64_t step = -1;
  if (!absl::ConsumePrefix(&name, "step-") || !absl::SimpleAtoi(name, &step)) return -1;
  return step;
}

struct Names {
  std::vector<std::pair<int64_t, std::string>> checkpoints;  // ascending steps, full paths
  std::vector<std::string> leftovers;                        // full paths
};
absl::StatusOr<Names> ReadNames(const std::string& root) {
  Names names;
  std::error_code error;
  for (std::filesystem::directory_iterator at(root, error), end; !error && at != end; at.increment(error)) {
    const std::string name = at->path().filename().string();
    if (const int64_t step = StepOf(name); step >= 0) {
      names.checkpoints.emplace_back(step, absl::StrCat(root, "/", name));
      continue;
    }
    for (const char* mark : {kPartial, kRemoved}) {
      if (StepOf(name.substr(0, name.find(mark))) >= 0) names.leftovers.push_back(absl::StrCat(root, "/", name));
    }
  }
  if (error) return absl::ErrnoToStatus(error.value(), absl::StrCat("cannot read the folder ", root));
  std::sort(names.checkpoints.begin(), names.checkpoints.end());
  return names;
}

std::string Parent(const std::string& path) {
  const std::filesystem::path clean = std::filesystem::path(path).lexically_normal();
  const std::filesystem::path folder = clean.has_filename() ? clean : clean.parent_path();
  return folder.has_parent_path() ? folder.parent_path().string() : ".";
}

std::string ThisProcess() {
  char host[256] = "";
  gethostname(host, sizeof(host) - 1);
  return absl::StrCat("process ", getpid(), " on ", host);
}

}  // namespace

absl::StatusOr<std::vector<CheckpointEntry>> ListCheckpoints(const std::string& root) {
  ASSIGN_OR_RETURN(const Names names, ReadNames(root));
  std::vector<CheckpointEntry> entries;
  for (const auto& [step, path] : names.checkpoints) entries.push_back({step, path, ReadManifest(path)});
  return entries;
}

absl::StatusOr<std::string> CheckpointAt(const std::string& path) {
  const std::string folder = std::string(absl::StripSuffix(path, "/"));
  if (access(absl::StrCat(folder, "/", kManifestFile).c_str(), F_OK) == 0) return folder;
  ASSIGN_OR_RETURN(const Names names, ReadNames(folder));
  if (!names.checkpoints.empty()) return names.checkpoints.back().second;
  if (StepOf(std::filesystem::path(folder).filename().string()) >= 0) return folder;  // one that lost its manifest
  return absl::NotFoundError(
      absl::StrCat(path, ": there is no checkpoint here, neither ", kManifestFile, " nor folders step-..."));
}

absl::Status WithOlderOne(const absl::Status& error, const std::string& folder) {
  const int64_t step = StepOf(std::filesystem::path(folder).filename().string());
  const auto entries = ListCheckpoints(Parent(folder));
  if (error.ok() || step < 0 || !entries.ok()) return error;
  for (auto entry = entries->rbegin(); entry != entries->rend(); ++entry) {
    if (entry->step >= step || !entry->manifest.ok()) continue;
    return absl::Status(error.code(), absl::StrCat(error.message(), "; an older complete checkpoint: ", entry->path));
  }
  return error;
}

absl::StatusOr<std::unique_ptr<CheckpointStore>> CheckpointStore::Open(const std::string& root, const KeepRule& keep,
                                                                       Disk disk) {
  CHECK(keep.last >= 1 && keep.every >= 0) << keep.last << ", " << keep.every;
  std::unique_ptr<CheckpointStore> store(new CheckpointStore(root, keep, std::move(disk)));
  RETURN_IF_ERROR(store->disk_.MakeFolder(root));
  RETURN_IF_ERROR(store->disk_.SyncFolder(Parent(root)));
  RETURN_IF_ERROR(store->Lock());
  RETURN_IF_ERROR(store->RemoveLeftovers());
  return store;
}

// The system takes the lock away from a process that dies.
absl::Status CheckpointStore::Lock() {
  const std::string path = absl::StrCat(root_, "/.lock");
  lock_ = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (lock_ < 0) return FileError("write", path, errno);
  if (flock(lock_, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return FileError("lock", path, errno);
    char holder[512] = "";
    const ssize_t length = pread(lock_, holder, sizeof(holder) - 1, 0);
    return absl::FailedPreconditionError(
        absl::StrCat(root_, ": another run writes its checkpoints here (",
                     absl::string_view(holder, length > 0 ? static_cast<size_t>(length) : 0),
                     "); end it, or give this one another folder"));
  }
  const std::string holder = ThisProcess();
  if (ftruncate(lock_, 0) != 0 || pwrite(lock_, holder.data(), holder.size(), 0) < 0) {
    return FileError("write", path, errno);
  }
  return absl::OkStatus();
}

CheckpointStore::~CheckpointStore() {
  if (lock_ >= 0) close(lock_);
}

absl::Status CheckpointStore::RemoveLeftovers() const {
  ASSIGN_OR_RETURN(const Names names, ReadNames(root_));
  for (const std::string& path : names.leftovers) RETURN_IF_ERROR(disk_.Remove(path));
  return absl::OkStatus();
}

absl::Status CheckpointStore::CheckBeginsAfter(int64_t step) const {
  ASSIGN_OR_RETURN(const Names names, ReadNames(root_));
  if (names.checkpoints.empty() || names.checkpoints.back().first <= step) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(names.checkpoints.back().second, " is there already, and this run begins behind step ", step,
                   ": go on from it (--resume auto), give this run another folder, or remove the later checkpoints"));
}

absl::StatusOr<std::string> CheckpointStore::Begin(int64_t step) {
  const std::string path = absl::StrCat(root_, "/", FolderName(step));
  if (access(path.c_str(), F_OK) == 0) return absl::AlreadyExistsError(absl::StrCat(path, " is there already"));
  const std::string partial = absl::StrCat(path, kPartial, getpid(), "-", begun_++);
  RETURN_IF_ERROR(disk_.MakeFolder(partial));
  return partial;
}

absl::StatusOr<std::string> CheckpointStore::Commit(const std::string& partial, proto::CheckpointManifest manifest) {
  manifest.set_format_version(kCheckpointVersion);
  auto path = Complete(partial, manifest);
  if (!path.ok()) {
    Abandon(partial);
    return path;
  }
  // The checkpoint is there; that an older one could not be removed is no failure of it.
  if (const absl::Status status = Prune(); !status.ok()) {
    spdlog::warn("old checkpoints in {} stay: {}", root_, std::string(status.message()));
  }
  return path;
}

absl::StatusOr<std::string> CheckpointStore::Complete(const std::string& partial,
                                                      const proto::CheckpointManifest& manifest) const {
  const std::string path = absl::StrCat(root_, "/", FolderName(manifest.step()));
  CHECK(absl::StartsWith(partial, absl::StrCat(path, kPartial))) << partial << " is no folder of " << path;
  RETURN_IF_ERROR(CheckPieces(manifest));
  ASSIGN_OR_RETURN(const std::string text, FormatManifest(manifest));
  const std::string file_path = absl::StrCat(partial, "/", kManifestFile);
  ASSIGN_OR_RETURN(const int file, disk_.CreateFile(file_path));
  const absl::Status written =
      disk_.Write(file, file_path, {reinterpret_cast<const std::byte*>(text.data()), text.size()});
  const absl::Status synced = disk_.SyncAndClose(file, file_path);
  RETURN_IF_ERROR(written);
  RETURN_IF_ERROR(synced);
  RETURN_IF_ERROR(disk_.SyncFolder(partial));
  // As whoever opens it will find it.
  const absl::Status found = ReadManifest(partial).status();
  if (absl::IsNotFound(found)) {
    return absl::NotFoundError(
        absl::StrCat(found.message(), ": its writer sees another folder there; all need a disk that they share"));
  }
  RETURN_IF_ERROR(found);
  RETURN_IF_ERROR(disk_.Rename(partial, path));
  RETURN_IF_ERROR(disk_.SyncFolder(root_));
  return path;
}

void CheckpointStore::Abandon(const std::string& partial) {
  if (const absl::Status status = disk_.Remove(partial); !status.ok()) {
    spdlog::warn("an incomplete checkpoint stays: {}", std::string(status.message()));
  }
}

absl::Status CheckpointStore::Prune() const {
  ASSIGN_OR_RETURN(const std::vector<CheckpointEntry> entries, ListCheckpoints(root_));
  int64_t newer = 0;  // complete ones
  for (auto entry = entries.rbegin(); entry != entries.rend(); ++entry) {
    // What is not complete is left for a person to look at.
    if (!entry->manifest.ok() || ++newer <= keep_.last) continue;
    if (keep_.every > 0 && entry->step % keep_.every == 0) continue;
    const std::string removed = absl::StrCat(entry->path, kRemoved, getpid());
    RETURN_IF_ERROR(disk_.Rename(entry->path, removed));
    RETURN_IF_ERROR(disk_.Remove(removed));
  }
  return absl::OkStatus();
}

}  // namespace sluice
