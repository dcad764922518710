"""What differs between systems: the set of shared libraries that Abseil is cut into."""

def _system_libraries_impl(ctx):
    compiler = ctx.which("gcc") or ctx.which("cc") or fail("no C++ compiler found: `./bazelw version` installs one")
    found = ctx.execute([compiler, "-print-file-name=libabsl_base.so"]).stdout.strip()
    if "/" not in found:
        fail("Abseil (libabsl-dev) not found: `./bazelw version` installs it with all else that is missing")
    names = [
        path.basename[len("lib"):-len(".so")]
        for path in ctx.path(found).dirname.readdir()
        if path.basename.startswith("libabsl_") and path.basename.endswith(".so")
    ]
    ctx.file("BUILD")
    ctx.file("libraries.bzl", "ABSL_LIBRARIES = %s\n" % sorted([name for name in names if "test_util" not in name]))

system_libraries = repository_rule(
    implementation = _system_libraries_impl,
    doc = "libraries.bzl with ABSL_LIBRARIES, what to link for Abseil. The linker drops those that a program doesn't use.",
    configure = True,
    local = True,
)
