"""gpu_sim_test: a test that runs with GPU code on the simulated GPU, whatever the build's own setting; gpu_sim_program_test:
a whole program. gpu_tests: the same cases on a real GPU too."""

load("//tools/bazel/cuda:defs.bzl", "needs_toolkit", "without_sanitizer")

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
        runfiles = ctx.runfiles(files = [ctx.executable.binary] + ctx.files.data).merge(binary[DefaultInfo].default_runfiles),
    )]

_gpu_sim_test = rule(
    implementation = _gpu_sim_test_impl,
    test = True,
    attrs = {
        "binary": attr.label(executable = True, cfg = _to_sim),
        "data": attr.label_list(allow_files = True),
        "_allowlist_function_transition": attr.label(default = "@bazel_tools//tools/allowlists/function_transition_allowlist"),
    },
)

def gpu_sim_test(name, srcs = [], deps = [], size = "medium", tags = [], data = [], args = [], **kwargs):
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

def gpu_sim_program_test(name, program, args, data, size = "medium", tags = []):
    """A test that a program ends well on the simulated GPU, which ends it with 1 where it has found something.

    Args:
      name: of the test.
      program: a cc_binary.
      args: the program's arguments.
      data: files they name.
      size: as of every test.
      tags: of the test.
    """
    _gpu_sim_test(
        name = name,
        args = args,
        binary = program,
        data = data,
        size = size,
        tags = tags,
        target_compatible_with = without_sanitizer(),
    )

def gpu_tests(name, srcs, deps, real, simulated):
    """The same test files on a real GPU and on simulated ones. Each file is compiled once for each kind.

    Args:
      name: of one test with all files, on a real GPU; its cases are skipped where none is.
      srcs: test files; with x_test.cc and simulated = {"sim": ...} there is x_test_sim.
      deps: libraries of all files.
      real: the library that gives them a real GPU.
      simulated: suffix of a test's name -> the library that gives it a simulated GPU.
    """
    for src in srcs:
        stem = src[:-len(".cc")]
        native.cc_library(
            name = stem + "_cases",
            testonly = True,
            srcs = [src],
            # Built by the tests that need it, for their kind of GPU.
            tags = ["manual"],
            deps = deps,
            alwayslink = True,
        )
        for suffix, gpu in simulated.items():
            gpu_sim_test(
                name = "%s_%s" % (stem, suffix),
                deps = [":%s_cases" % stem, gpu],
            )
    native.cc_test(
        name = name,
        tags = ["gpu"],
        target_compatible_with = needs_toolkit(),
        deps = [":%s_cases" % src[:-len(".cc")] for src in srcs] + [real],
    )
