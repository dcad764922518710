// The arrows of the house, as data: which folder may include which, and where each library may be seen.
//
// This table is the law; rules.h only applies it. A new folder needs no row unless it may see less (or more) than the
// folder around it: the row with the longest matching `from` decides, alone.
#pragma once

#include <string_view>
#include <vector>

namespace sluice::layering {

// What the files below `from` may include. Every target is one of
//   "base/"      everything below that folder,
//   "kernels/*"  the files that lie directly in it,
//   "stages/graph"  that header (and the Bazel target of that name).
// A `from` that holds a `*` means the files of that ending anywhere below the folder: "stages/*_io".
struct Arrow {
  std::string_view from;
  std::vector<std::string_view> to;
};

inline const std::vector<Arrow>& Arrows() {
  static const std::vector<Arrow> arrows = {
      {"base/", {"base/"}},
      {"proto/", {"base/", "proto/"}},
      // Pure: knows no device, no stage, no transport.
      {"scheduler/", {"base/", "scheduler/"}},
      // The interfaces know no implementation, and the implementations don't know each other.
      {"kernels/", {"base/", "kernels/*"}},
      {"kernels/cpu/", {"base/", "kernels/*", "kernels/cpu/"}},
      {"kernels/cuda/", {"base/", "kernels/*", "kernels/cuda/"}},
      {"stages/", {"base/", "kernels/*", "stages/"}},
      {"stages/*_io", {"base/", "proto/", "kernels/*", "stages/"}},
      {"stages/partition/", {"base/", "stages/graph", "stages/partition/"}},
      {"runtime/", {"base/", "proto/", "kernels/*", "scheduler/", "stages/", "runtime/"}},
      // Runs on whatever implements Stage and Transport; a RankModel is the stages of one rank.
      {"runtime/executor/",
       {"base/", "kernels/*", "scheduler/", "stages/stage", "stages/rank_model", "runtime/executor/"}},
      // Files only: knows no rank, no task and no device.
      {"runtime/checkpoint/",
       {"base/", "proto/", "stages/graph", "stages/parameters", "stages/graph_io", "runtime/data/mapped_file",
        "runtime/trace/file_writer", "runtime/trace/trace", "runtime/checkpoint/"}},
      // These pick or build implementations, or ask the picked one for its sizes.
      {"runtime/planner/", {"base/", "proto/", "kernels/", "scheduler/", "stages/", "runtime/"}},
      {"runtime/transport/", {"base/", "proto/", "kernels/", "scheduler/", "runtime/"}},
      {"runtime/trainer/", {"base/", "proto/", "kernels/", "scheduler/", "stages/", "runtime/"}},
      // The tests that go to a machine with a GPU.
      {"tools/bundle/", {"tools/", "tests/conformance/device_gpu_test", "tests/kernels/cuda/"}},
      {"tools/", {"base/", "proto/", "kernels/", "scheduler/", "stages/", "runtime/", "tools/"}},
      // The sanitizer's suppressions go with every test.
      // //tools/bazel/cuda:runtime is the toolkit in miniature where the build setting says so.
      {"tools/bazel/", {"tools/bazel/", "tests/tsan", "tests/gpu_sim/toolkit"}},
      {"tests/", {"base/", "proto/", "kernels/", "scheduler/", "stages/", "runtime/", "tools/", "tests/"}},
  };
  return arrows;
}

// A library of somebody else's, and the only places that may see it (tests may see every one).
struct Library {
  std::string_view name;                   // its target in //tools/bazel/deps, if it has one
  std::vector<std::string_view> includes;  // how its headers' names begin
  std::vector<std::string_view> seen_by;   // as Arrow::from, or how the paths begin
};

inline const std::vector<Library>& Libraries() {
  static const std::vector<Library> libraries = {
      {"dnnl", {"dnnl", "oneapi/dnnl/"}, {"kernels/cpu/"}},
      {"hwy", {"hwy/"}, {"kernels/cpu/"}},
      {"protobuf", {"google/protobuf/"}, {"proto/", "stages/*_io", "runtime/", "tools/"}},
      {"json", {"nlohmann/"}, {"runtime/", "tools/"}},
      {"xxhash", {"xxh"}, {"runtime/checkpoint/"}},
      {"cli11", {"CLI/"}, {"tools/"}},
      {"asio", {"boost/asio", "boost/beast"}, {"runtime/control/"}},
      {"boost_context", {"boost/context"}, {}},
      {"gloo", {"gloo/"}, {"runtime/transport/gloo_link", "runtime/transport/BUILD", "tools/bench/"}},
      {"nccl", {"nccl"}, {"kernels/cuda/", "runtime/transport/"}},
      {"cuda", {"cuda", "cublas", "cudnn", "cub/", "cooperative_groups"}, {"kernels/cuda/", "runtime/transport/"}},
      {"openmp", {"omp.h"}, {}},
      {"gtest", {"gtest/", "gmock/"}, {}},
  };
  return libraries;
}

// Headers that would break what the files below `folder` promise.
struct Purity {
  std::string_view folder;
  std::string_view promise;
  std::vector<std::string_view> headers;  // how their names begin
  std::vector<std::string_view> except;   // as Library::seen_by
};

inline const std::vector<Purity>& Purities() {
  static const std::vector<std::string_view> impure = {"thread",
                                                       "mutex",
                                                       "shared_mutex",
                                                       "condition_variable",
                                                       "atomic",
                                                       "future",
                                                       "semaphore",
                                                       "latch",
                                                       "barrier",
                                                       "stop_token",
                                                       "chrono",
                                                       "ctime",
                                                       "time.h",
                                                       "fstream",
                                                       "filesystem",
                                                       "random_device",
                                                       "sys/",
                                                       "unistd.h",
                                                       "fcntl.h",
                                                       "pthread.h",
                                                       "sched.h",
                                                       "absl/time/",
                                                       "absl/synchronization/"};
  static const std::vector<std::string_view> own_threads = {"thread",
                                                            "condition_variable",
                                                            "future",
                                                            "semaphore",
                                                            "latch",
                                                            "barrier",
                                                            "chrono",
                                                            "pthread.h",
                                                            "sched.h",
                                                            "absl/time/clock.h",
                                                            "absl/synchronization/"};
  static const std::vector<Purity> purities = {
      {"scheduler/", "no device, no thread, no file, no clock", impure, {}},
      {"stages/partition/", "no device, no thread, no file, no clock", impure, {}},
      {"stages/", "time and threads come from the Device", own_threads, {}},
      // The shells around libraries that bring their own threads.
      {"runtime/",
       "every thread, wait and deadline goes through World",
       own_threads,
       {"runtime/control/*_shell", "runtime/transport/gloo"}},
  };
  return purities;
}

// What these files must not reach even through the headers that they include, as names of Libraries().
struct Unreachable {
  std::string_view folder;
  std::vector<std::string_view> libraries;
};

inline const std::vector<Unreachable>& Unreachables() {
  static const std::vector<Unreachable> unreachables = {
      {"runtime/executor/", {"cuda", "nccl", "gloo", "asio", "dnnl", "hwy", "protobuf"}},
      {"scheduler/", {"cuda", "nccl", "gloo", "asio", "dnnl", "hwy", "protobuf", "json"}},
      {"stages/partition/", {"cuda", "nccl", "gloo", "asio", "dnnl", "hwy", "protobuf", "json"}},
  };
  return unreachables;
}

}  // namespace sluice::layering
