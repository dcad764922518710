"""cuda_library: device code, by nvcc, or as plain C++ for the simulated GPU (tests/gpu_sim)."""

load("@bazel_tools//tools/build_defs/cc:action_names.bzl", "CPP_COMPILE_ACTION_NAME")
load("@bazel_tools//tools/cpp:toolchain_utils.bzl", "find_cpp_toolchain")
load("@cuda//:toolkit.bzl", "AVAILABLE", "COMPILER", "NVCC", "NVDISASM")

GpuInfo = provider("Which GPU code is built.", fields = ["kind"])

def _gpu_setting_impl(ctx):
    kinds = ["auto", "cuda", "none", "sim"]
    if ctx.build_setting_value not in kinds:
        fail("--//:gpu=%s: one of %s" % (ctx.build_setting_value, ", ".join(kinds)))
    return GpuInfo(kind = ctx.build_setting_value)

gpu_setting = rule(
    implementation = _gpu_setting_impl,
    build_setting = config.string(flag = True),
)

def _archs_setting_impl(ctx):
    return ArchsInfo(archs = ctx.build_setting_value.split(","))

ArchsInfo = provider("The architectures that device code is compiled for.", fields = ["archs"])

archs_setting = rule(
    implementation = _archs_setting_impl,
    build_setting = config.string(flag = True),
)

def _compile_real(ctx, source, pic, compilation, toolchain_files, compiler):
    """By nvcc: the object, and what the table of kernels is made from."""
    if not AVAILABLE:
        fail("%s: there is no CUDA toolkit here; set CUDA_HOME, or build with --//:gpu=none or --config=cuda_sim" % ctx.label)
    archs = ctx.attr._archs[ArchsInfo].archs
    stem = "_nvcc/%s/%s%s" % (ctx.label.name, source.basename[:-len(".cu")], ".pic" if pic else "")
    output = ctx.actions.declare_file(stem + ".o")
    report = ctx.actions.declare_file(stem + ".ptxas.txt")
    cubins = [ctx.actions.declare_file("%s.%s.cubin" % (stem, arch)) for arch in archs]

    args = ctx.actions.args()
    args.add_all([NVCC, output, output.path + ".keep", report, ",".join(archs)])
    args.add_all(["-x", "cu", source, "-ccbin", compiler])
    args.add_all(["-std=c++20", "-O3", "--expt-relaxed-constexpr", "-Werror", "all-warnings"])
    args.add_all(["-gencode=arch=compute_%s,code=sm_%s" % (arch, arch) for arch in archs])
    args.add("-gencode=arch=compute_%s,code=compute_%s" % (archs[-1], archs[-1]))

    # Without a seed names inside the object differ from run to run.
    args.add_all(["-frandom-seed", source.short_path])
    if pic:
        args.add("-Xcompiler=-fPIC")
    args.add_all(compilation.quote_includes, before_each = "-I")
    args.add_all(compilation.includes, before_each = "-I")
    args.add_all(compilation.system_includes, before_each = "-isystem")
    args.add_all(compilation.defines, before_each = "-D")
    ctx.actions.run(
        executable = ctx.executable._nvcc,
        arguments = [args],
        inputs = depset([source, ctx.file._version], transitive = [compilation.headers, toolchain_files]),
        outputs = [output, report] + cubins,
        mnemonic = "CudaCompile",
        progress_message = "Compiling %s by nvcc" % source.short_path,
        use_default_shell_env = True,
    )
    return struct(object = output, code = [report] + cubins)

def _compile_simulated(ctx, source, pic, compilation, toolchain_files, compiler):
    """By g++, as C++ whose every access to memory the simulator sees."""
    stem = "_sim/%s/%s%s" % (ctx.label.name, source.basename[:-len(".cu")], ".pic" if pic else "")
    output = ctx.actions.declare_file(stem + ".o")
    args = ctx.actions.args()

    # Every access to memory becomes a call, which tests/gpu_sim answers in place of ThreadSanitizer's library.
    args.add_all(["-x", "c++", "-std=c++20", "-O1", "-g1", "-fsanitize=thread", "-c", source.path, "-o", output.path])
    args.add_all(["-Wall", "-Wno-unknown-pragmas", "-fno-omit-frame-pointer"])
    if pic:
        args.add("-fPIC")
    args.add_all(compilation.quote_includes, before_each = "-iquote")
    args.add_all(compilation.includes, before_each = "-I")
    args.add_all(compilation.system_includes, before_each = "-isystem")
    args.add_all(compilation.defines, before_each = "-D")
    ctx.actions.run(
        executable = compiler,
        arguments = [args],
        inputs = depset([source], transitive = [compilation.headers, toolchain_files]),
        outputs = [output],
        mnemonic = "CudaSimCompile",
        progress_message = "Compiling %s for the simulated GPU" % source.short_path,
        use_default_shell_env = True,
    )
    return struct(object = output, code = [])

def _cuda_library_impl(ctx):
    toolchain = find_cpp_toolchain(ctx)
    features = cc_common.configure_features(ctx = ctx, cc_toolchain = toolchain, requested_features = ctx.features)
    compiler = cc_common.get_tool_for_action(feature_configuration = features, action_name = CPP_COMPILE_ACTION_NAME)
    own = cc_common.create_compilation_context(
        headers = depset(ctx.files.hdrs),
        quote_includes = depset([".", ctx.bin_dir.path, ctx.genfiles_dir.path]),
    )
    deps = [dep[CcInfo] for dep in ctx.attr.deps]
    compilation = cc_common.merge_cc_infos(cc_infos = [CcInfo(compilation_context = own)] + deps).compilation_context
    compile = _compile_simulated if ctx.attr.simulated else _compile_real
    compiled = {
        pic: [compile(ctx, source, pic, compilation, toolchain.all_files, compiler) for source in ctx.files.srcs]
        for pic in [False, True]
    }
    objects = {pic: depset([each.object for each in compiled[pic]]) for pic in compiled}
    linking, _ = cc_common.create_linking_context_from_compilation_outputs(
        actions = ctx.actions,
        name = ctx.label.name,
        feature_configuration = features,
        cc_toolchain = toolchain,
        compilation_outputs = cc_common.create_compilation_outputs(objects = objects[False], pic_objects = objects[True]),
        linking_contexts = [dep.linking_context for dep in deps],
        disallow_dynamic_library = True,
    )
    return [
        DefaultInfo(files = objects[True]),
        OutputGroupInfo(machine_code = depset([file for each in compiled[True] for file in each.code])),
        CcInfo(compilation_context = compilation, linking_context = linking),
    ]

_cuda_library = rule(
    implementation = _cuda_library_impl,
    attrs = {
        "srcs": attr.label_list(allow_files = [".cu"]),
        "hdrs": attr.label_list(allow_files = [".h"]),
        "deps": attr.label_list(providers = [CcInfo]),
        "simulated": attr.bool(),
        "_archs": attr.label(default = "//:cuda_archs"),
        "_nvcc": attr.label(default = "//tools/bazel/cuda:nvcc", executable = True, cfg = "host"),
        "_version": attr.label(default = "@cuda//:version.h", allow_single_file = True),
        "_cc_toolchain": attr.label(default = "@bazel_tools//tools/cpp:current_cc_toolchain"),
    },
    fragments = ["cpp"],
    toolchains = ["@bazel_tools//tools/cpp:toolchain_type"],
    provides = [CcInfo],
)

def cuda_library(name, srcs, hdrs = [], deps = [], **kwargs):
    """A library of .cu files: by nvcc, or for the simulated GPU; with neither (--//:gpu=none) it can't be built.

    Args:
      name: usable in deps of cc_library, cc_binary and cc_test.
      srcs: .cu files. Each kernel is started by launch.h, never by <<<>>>.
      hdrs: plain C++ headers.
      deps: C++ libraries whose headers the sources include.
      **kwargs: visibility, tags, testonly.
    """
    _cuda_library(
        name = name,
        srcs = srcs,
        hdrs = hdrs,
        deps = deps + ["//tools/bazel/cuda:runtime"],
        simulated = select({
            "//tools/bazel/cuda:is_sim": True,
            "//conditions:default": False,
        }),
        target_compatible_with = needs_gpu_code(),
        **kwargs
    )

def needs_gpu_code():
    """target_compatible_with of what only exists with a toolkit or its miniature."""
    return select({
        "//tools/bazel/cuda:is_none": ["//tools/bazel/cuda:never_there"],
        "//conditions:default": [],
    })

def without_sanitizer():
    """target_compatible_with of what the simulator is in: it answers the compiler's calls to a sanitizer itself."""
    return select({
        "//tools/bazel/cuda:is_sanitized": ["//tools/bazel/cuda:never_there"],
        "//conditions:default": [],
    })

def needs_toolkit():
    """target_compatible_with of what only NVIDIA's toolkit can build."""
    return select({
        "//tools/bazel/cuda:is_real": [],
        "//conditions:default": ["//tools/bazel/cuda:never_there"],
    })

def kernel_table_test(name, libraries, page, launches):
    """Compares what the compiler made of each kernel with the committed table; kernel_table.py says what fails.

    Args:
      name: of the test; `bazel run NAME_write` writes the table anew.
      libraries: cuda_library targets.
      page: the committed table, a file.
      launches: how each kernel is launched, a file.
    """
    code = name + "_code"
    native.filegroup(
        name = code,
        srcs = libraries,
        output_group = "machine_code",
        tags = ["manual"],
    )
    for rule, target, mode in [(native.sh_test, name, "--check"), (native.sh_binary, name + "_write", "--write")]:
        rule(
            name = target,
            srcs = ["//tools/bazel/cuda:kernel_table.py"],
            args = ["--compiler='%s'" % COMPILER, "--nvdisasm='%s'" % NVDISASM, "--launches=$(rootpath %s)" % launches] +
                   ["%s=$(rootpath %s)" % (mode, page), "$(rootpaths :%s)" % code],
            data = [page, launches, code],
            target_compatible_with = needs_toolkit(),
        )

def _to_none_impl(settings, attr):
    # Only where it changes anything: another value is another configuration, and compiles everything anew.
    return {"//:gpu": "none" if AVAILABLE else settings["//:gpu"]}

_to_none = transition(
    implementation = _to_none_impl,
    inputs = ["//:gpu"],
    outputs = ["//:gpu"],
)

def _program_without_gpu_impl(ctx):
    link = ctx.actions.declare_file(ctx.label.name)
    ctx.actions.symlink(output = link, target_file = ctx.executable.program, is_executable = True)
    return [DefaultInfo(executable = link, runfiles = ctx.runfiles(files = [ctx.executable.program]))]

program_without_gpu = rule(
    implementation = _program_without_gpu_impl,
    doc = "A program as it is built where no CUDA toolkit is.",
    executable = True,
    attrs = {
        "program": attr.label(executable = True, cfg = _to_none, mandatory = True),
        "_allowlist_function_transition": attr.label(default = "@bazel_tools//tools/allowlists/function_transition_allowlist"),
    },
)
