"""@cuda: the CUDA toolkit and its libraries, as far as they are here. Without a toolkit its targets are empty and valid."""

# Where a toolkit may lie, beside CUDA_HOME, CUDA_PATH and nvcc's own folder: installers, packages of Debian and Ubuntu.
_TOOLKIT_PLACES = ["/usr/local/cuda", "/opt/cuda", "/usr/lib/nvidia-cuda-toolkit", "/usr"]

# Folders that hold Python packages. NVIDIA's put theirs under nvidia/NAME/{bin,include,lib}.
_SITE_PACKAGES = "import site; print('\\n'.join(site.getsitepackages() + [site.getusersitepackages()]))"

_INCLUDE_FOLDERS = ["include", "targets/x86_64-linux/include"]
_LIB_FOLDERS = ["lib64", "lib", "targets/x86_64-linux/lib", "lib/x86_64-linux-gnu"]

# Where the compiler looks by itself. Named once more as a system folder, g++ would no longer find its own headers.
_COMPILER_LOOKS_IN = ["/usr/include", "/usr/local/include"]

# Target -> its header and its library. The runtime stands first: the others use it, and mostly lie beside it.
_LIBRARIES = {
    "runtime": ("cuda_runtime.h", "cudart"),
    "cublaslt": ("cublasLt.h", "cublasLt"),
    "cudnn": ("cudnn.h", "cudnn"),
    "cudnn_frontend": ("cudnn_frontend.h", ""),
    "nccl": ("nccl.h", "nccl"),
}

def _python_packages(ctx):
    """Folders of Python packages: those that tools/bazel/cuda/wheels.sh filled, then python3's own."""
    folders = [str(ctx.path(Label("//:WORKSPACE")).dirname) + "/.cache/wheels"]
    python = ctx.which("python3")
    if python:
        folders += ctx.execute([python, "-c", _SITE_PACKAGES]).stdout.strip().split("\n")
    return [folder for folder in folders if folder and ctx.path(folder).exists]

def _wheel_roots(ctx, packages):
    roots = list(packages)
    for folder in packages:
        nvidia = ctx.path(folder + "/nvidia")
        if nvidia.exists:
            # The newest major version first: cu13 before cu12.
            roots += reversed(sorted([str(path) for path in nvidia.readdir()]))
    return roots

def _find(ctx, roots, folders, name, versioned = False):
    """The file `name`, or with `versioned` one called `name`.VERSION, in one of `folders` of one of `roots`; "" if none."""
    for root in roots:
        for folder in folders:
            path = ctx.path(root + "/" + folder)
            if not versioned and path.get_child(name).exists:
                return str(path.get_child(name))
            for file in path.readdir() if versioned and path.exists else []:
                if file.basename.startswith(name + "."):
                    return str(file)
    return ""

def _shared_library(ctx, roots, name):
    # The packages for Python leave out the link without a version.
    file = "lib%s.so" % name
    return _find(ctx, roots, _LIB_FOLDERS, file) or _find(ctx, roots, _LIB_FOLDERS, file, versioned = True)

def _toolkit(ctx, wheels):
    """The root of a toolkit with compiler, headers and runtime; "": there is none."""
    places = [ctx.os.environ[name] for name in ("CUDA_HOME", "CUDA_PATH") if ctx.os.environ.get(name)]
    nvcc = ctx.which("nvcc")
    if nvcc:
        places.append(str(nvcc.realpath.dirname.dirname))
    for root in places + _TOOLKIT_PLACES + wheels:
        if (_find(ctx, [root], ["bin"], "nvcc") and _find(ctx, [root], _INCLUDE_FOLDERS, "cuda_runtime.h") and
            _shared_library(ctx, [root], "cudart")):
            return root
    return ""

def _library_target(ctx, name, header, library, known_folders):
    """A cc_library. The headers are links: what Bazel does not see it does not let a compile read."""
    folder = header.rsplit("/", 1)[0] if header else ""
    lines = ["name = \"%s\"" % name]
    if name != "runtime":
        lines.append("deps = [\":runtime\"]")
    if header and folder not in known_folders:
        ctx.symlink(folder, "include/" + name)
        lines.append("hdrs = glob([\"include/%s/\" + suffix for suffix in HEADERS])" % name)
        lines.append("includes = [\"include/%s\"]" % name)
    if library:
        lines.append("linkopts = [\"-Wl,-rpath,%s\", \"-Wl,--as-needed\", \"%s\"]" % (library.rsplit("/", 1)[0], library))
    return "cc_library(\n    %s,\n)\n" % ",\n    ".join(lines)

def _compiler_version(ctx, nvcc):
    """`nvcc 13.0.88`, from a line that ends `release 13.0, V13.0.88`."""
    found = ctx.execute([nvcc, "--version"]).stdout.split(", V", 1)
    return "nvcc " + (found[1].split("\n")[0].strip() if len(found) == 2 else "of an unknown version")

def _cuda_repository_impl(ctx):
    wheels = _wheel_roots(ctx, _python_packages(ctx))
    toolkit = _toolkit(ctx, wheels)
    roots = [toolkit, "/usr"] + wheels
    has = {}
    known_folders = list(_COMPILER_LOOKS_IN)
    build = ["package(default_visibility = [\"//visibility:public\"])", "exports_files([\"version.h\"])"]
    build.append("HEADERS = [\"*.h\", \"*.hpp\", \"crt/*\", \"cudnn_frontend/**\", \"nccl_device/**\"]")
    for name, (header_name, library_name) in _LIBRARIES.items():
        header = _find(ctx, roots, _INCLUDE_FOLDERS, header_name) if toolkit else ""
        library = _shared_library(ctx, roots, library_name) if toolkit and library_name else ""
        has[name] = bool(header and (library or not library_name))
        build.append(_library_target(ctx, name, header if has[name] else "", library if has[name] else "", known_folders))
        known_folders.append(header.rsplit("/", 1)[0])
    nvcc = toolkit + "/bin/nvcc" if toolkit else ""
    compiler = _compiler_version(ctx, nvcc) if nvcc else "none"
    ctx.file("BUILD", "\n".join(build))
    ctx.file("version.h", "// %s: %s\n" % (nvcc, compiler))
    ctx.file("toolkit.bzl", "\n".join([
        "AVAILABLE = %s" % bool(toolkit),
        "COMPILER = %r" % compiler,
        "NVCC = %r" % nvcc,
        "NVDISASM = %r" % (_find(ctx, roots, ["bin"], "nvdisasm") or str(ctx.which("nvdisasm") or "")),
        "HAS = %r" % has,
    ]) + "\n")

cuda_repository = repository_rule(
    implementation = _cuda_repository_impl,
    configure = True,
    local = True,
    environ = ["CUDA_HOME", "CUDA_PATH", "PATH"],
    doc = """One cc_library per library of _LIBRARIES, empty where it is missing. toolkit.bzl: the compiler, the disassembler,
and which libraries are there. version.h: the compiler's version, which every compile by it depends on.""",
)
