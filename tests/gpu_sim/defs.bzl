"""gpu_sim_test: a test that runs with GPU code on the simulated GPU, whatever the build's own setting."""

load("//tools/bazel/cuda:defs.bzl", "without_sanitizer")

def _to_sim_impl(settings, attr):
    return {"//:gpu": "sim"}

_to_sim = transition(
    implementation = _to_sim_impl,
    inputs = [],
    outputs = ["//:gpu"],
)

def _gpu_sim_test_impl(ctx):
    binary = ctx.attr.binary[0]
    link = ctx.actions.declare_file(ctx.label.name)
    ctx.actions.symlink(output = link, target_file = ctx.executable.binary, is_executable = True)
    return [DefaultInfo(
        executable = link,
        runfiles = ctx.runfiles(files = [ctx.executable.binary]).merge(binary[DefaultInfo].default_runfiles),
    )]

_gpu_sim_test = rule(
    implementation = _gpu_sim_test_impl,
    test = True,
    attrs = {
        "binary": attr.label(executable = True, cfg = _to_sim),
        "_allowlist_function_transition": attr.label(default = "@bazel_tools//tools/allowlists/function_transition_allowlist"),
    },
)

def gpu_sim_test(name, srcs, deps = [], size = "medium", tags = [], data = [], args = [], **kwargs):
    """A cc_test whose GPU code runs on the simulated GPU. Builds with a sanitizer leave it out.

    Args:
      name: of the test. `NAME_binary` is the program, for a debugger.
      srcs: its sources.
      deps: its libraries.
      size: as of every test.
      tags: of the test. Never `threaded`: the simulator answers the sanitizers' callbacks itself.
      data: files it reads.
      args: its arguments.
      **kwargs: shard_count, timeout, visibility.
    """
    native.cc_binary(
        name = name + "_binary",
        testonly = True,
        srcs = srcs,
        data = data,
        tags = ["manual"],
        target_compatible_with = without_sanitizer(),
        deps = deps,
    )
    _gpu_sim_test(
        name = name,
        args = args,
        binary = ":" + name + "_binary",
        size = size,
        tags = tags,
        target_compatible_with = without_sanitizer(),
        **kwargs
    )
