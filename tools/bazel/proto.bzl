"""cc_proto: a C++ library from .proto files, by the system's protoc."""

def _srcs_label(dep):
    """`//a/b:c` -> `//a/b:c_srcs`, `//a/b` -> `//a/b:b_srcs`."""
    if ":" not in dep:
        dep = dep + ":" + dep.split("/")[-1]
    return dep + "_srcs"

def cc_proto(name, srcs, deps = [], visibility = None):
    """A cc_library of the generated messages. Imports in the .proto files are relative to the workspace root.

    Args:
      name: the cc_library. `#include "path/from/root/file.pb.h"` reaches it.
      srcs: .proto files of this package.
      deps: other cc_proto targets whose files these import.
      visibility: of the library and of its .proto files.
    """
    native.filegroup(
        name = name + "_srcs",
        srcs = srcs + [_srcs_label(dep) for dep in deps],
        visibility = visibility,
    )
    stems = [src[:-len(".proto")] for src in srcs]
    native.genrule(
        name = name + "_protoc",
        srcs = [":" + name + "_srcs"] + srcs,
        outs = [stem + ext for stem in stems for ext in (".pb.h", ".pb.cc")],
        cmd = "protoc --proto_path=. --cpp_out=$(BINDIR) " + " ".join(["$(location %s)" % src for src in srcs]),
        visibility = ["//visibility:private"],
    )
    native.cc_library(
        name = name,
        srcs = [stem + ".pb.cc" for stem in stems],
        hdrs = [stem + ".pb.h" for stem in stems],
        # Generated code is not ours to mend.
        copts = ["-w"],
        visibility = visibility,
        deps = deps + ["//tools/bazel/deps:protobuf"],
    )
