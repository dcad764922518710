"""no_dependency: a test that one target does not depend on another, however indirectly."""

def _pattern(label):
    """`//a/b` -> everything in and below that folder; `//a/b:c` -> that target."""
    return label + "$" if ":" in label else label + "[:/]"

def no_dependency(name, of, on):
    """Fails, naming them, if `of` is built from any target that `on` means.

    Args:
      name: the test.
      of: a target.
      on: folders (`//kernels`: with all below it) and targets (`//tools/bazel/deps:dnnl`); they need not exist.
    """
    native.genquery(
        name = name + "_found",
        expression = "filter('^(%s)', deps(%s))" % ("|".join([_pattern(label) for label in on]), of),
        opts = [
            "--noimplicit_deps",
            "--nohost_deps",
        ],
        scope = [of],
    )
    native.sh_test(
        name = name,
        size = "small",
        srcs = ["no_dependency.sh"],
        args = [
            of,
            "$(rootpath :%s_found)" % name,
        ],
        data = [":%s_found" % name],
    )
