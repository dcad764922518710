"""@cuda: the CUDA toolkit, where there is one. Without one the repository is empty and valid, and AVAILABLE is False."""

# Beside CUDA_HOME and CUDA_PATH: the installers' folder, the packages of Debian and Ubuntu, nvcc's own folder.
_PLACES = ["/usr/local/cuda", "/opt/cuda", "/usr/lib/nvidia-cuda-toolkit", "/usr"]

# The Python wheels put everything of one major version under site-packages/nvidia/cuMM.
_WHEELS = "import glob, site; print('\\n'.join(p for s in site.getsitepackages() for p in sorted(glob.glob(s + '/nvidia/cu[0-9]*'), reverse=True)))"

def _candidates(ctx):
    places = [ctx.os.environ[name] for name in ("CUDA_HOME", "CUDA_PATH") if ctx.os.environ.get(name)]
    nvcc = ctx.which("nvcc")
    if nvcc:
        places.append(str(nvcc.realpath.dirname.dirname))
    places += _PLACES
    python = ctx.which("python3")
    if python:
        places += ctx.execute([python, "-c", _WHEELS]).stdout.split("\n")
    return [place for place in places if place]

def _first_with(ctx, root, folders, name):
    for folder in folders:
        path = ctx.path(root + "/" + folder + "/" + name)
        if path.exists:
            return str(path)
    return ""

def _find(ctx):
    """The toolkit's root with nvcc, headers and runtime; None: there is none."""
    for root in _candidates(ctx):
        nvcc = _first_with(ctx, root, ["bin"], "nvcc")
        header = _first_with(ctx, root, ["include", "targets/x86_64-linux/include"], "cuda_runtime.h")
        library = _first_with(ctx, root, ["lib64", "lib", "targets/x86_64-linux/lib", "lib/x86_64-linux-gnu"], "libcudart.so")
        if nvcc and header and library:
            return struct(nvcc = nvcc, include = header.rsplit("/", 1)[0], lib = library.rsplit("/", 1)[0])
    return None

# Target -> its header and library.
_LIBRARIES = {
    "cublaslt": ("cublasLt.h", "cublasLt"),
    "cudnn": ("cudnn.h", "cudnn"),
    "nccl": ("nccl.h", "nccl"),
    "runtime": ("cuda_runtime.h", "cudart"),
}

def _cuda_repository_impl(ctx):
    found = _find(ctx)
    has = {
        target: bool(found) and ctx.path(found.include + "/" + header).exists and
                bool(_first_with(ctx, found.lib, ["."], "lib%s.so" % library))
        for target, (header, library) in _LIBRARIES.items()
    }
    version = ctx.execute([found.nvcc, "--version"]).stdout.strip().split("\n")[-1] if found else ""
    ctx.file("BUILD", "exports_files([\"version.h\"])\n")
    ctx.file("version.h", "// %s\n" % version)
    ctx.file("toolkit.bzl", "\n".join([
        "AVAILABLE = %s" % bool(found),
        "NVCC = %r" % (found.nvcc if found else ""),
        "INCLUDE = %r" % (found.include if found else ""),
        "LIB = %r" % (found.lib if found else ""),
        "HAS = %r" % has,
    ]) + "\n")

cuda_repository = repository_rule(
    implementation = _cuda_repository_impl,
    configure = True,
    local = True,
    environ = ["CUDA_HOME", "CUDA_PATH", "PATH"],
    doc = "toolkit.bzl: where the toolkit and its libraries are. version.h, which every compile depends on: its version.",
)
