"""The repositories that Bazel 4 itself wants, written here so that no build ever touches the network.

Bazel's built-in tools load `@rules_cc`, `@rules_java` and `@rules_proto`, whose rules are native in Bazel 4, and name
`@remote_coverage_tools`. By default each would be downloaded. What is written below only gives the native rules those
names. (Debian's package bazel-rules-cc does not load in Bazel 4.2.3.)
"""

def _inline_repository_impl(ctx):
    ctx.file("WORKSPACE", "workspace(name = \"%s\")\n" % ctx.name)
    ctx.file("BUILD", ctx.attr.build)
    for path, content in ctx.attr.files.items():
        ctx.file(path, content)

inline_repository = repository_rule(
    implementation = _inline_repository_impl,
    doc = "A repository whose files are given as strings.",
    attrs = {
        "build": attr.string(doc = "Content of the root BUILD file."),
        "files": attr.string_dict(doc = "Path -> content of every other file."),
    },
)

def _native_rules(names):
    return "".join(["%s = native.%s\n" % (name, name) for name in names])

_CC_RULES = [
    "cc_binary",
    "cc_import",
    "cc_library",
    "cc_proto_library",
    "cc_test",
    "cc_toolchain",
    "cc_toolchain_suite",
    "fdo_prefetch_hints",
    "fdo_profile",
    "objc_library",
]

_JAVA_RULES = [
    "java_binary",
    "java_import",
    "java_library",
    "java_lite_proto_library",
    "java_proto_library",
    "java_runtime",
    "java_test",
    "java_toolchain",
]

def offline_repositories():
    """Declares them all."""
    inline_repository(
        name = "rules_cc",
        files = {"cc/BUILD": "", "cc/defs.bzl": _native_rules(_CC_RULES)},
    )
    inline_repository(
        name = "rules_java",
        files = {"java/BUILD": "", "java/defs.bzl": _native_rules(_JAVA_RULES)},
    )
    inline_repository(
        name = "rules_proto",
        files = {
            "proto/BUILD": "",
            "proto/defs.bzl": _native_rules(["proto_lang_toolchain", "proto_library"]) + "ProtoInfo = ProtoInfo\n",
        },
    )
    inline_repository(
        name = "remote_coverage_tools",
        build = "\n".join([
            "filegroup(name = \"%s\", visibility = [\"//visibility:public\"])" % name
            for name in ("coverage_report_generator", "lcov_merger")
        ]) + "\n",
    )
