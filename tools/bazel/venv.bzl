"""The interpreter of .venv as Bazel's Python toolchain."""

_BUILD = """\
load("@bazel_tools//tools/python:toolchain.bzl", "py_runtime_pair")

py_runtime(
    name = "runtime",
    interpreter_path = "{interpreter}",
    stub_shebang = "#!{interpreter}",
    python_version = "PY3",
)

py_runtime_pair(
    name = "pair",
    py3_runtime = ":runtime",
)

toolchain(
    name = "toolchain",
    toolchain = ":pair",
    toolchain_type = "@bazel_tools//tools/python:toolchain_type",
)
"""

def _venv_toolchain_impl(ctx):
    root = ctx.path(Label("//:WORKSPACE")).dirname
    interpreter = root.get_child(".venv").get_child("bin").get_child("python3")
    if not interpreter.exists:
        fail("Bazel needs the packages in .venv: run `make .venv/.installed`. " +
             "Received: no file " + str(interpreter))
    ctx.file("BUILD.bazel", _BUILD.format(interpreter = interpreter))

venv_toolchain = repository_rule(
    implementation = _venv_toolchain_impl,
    local = True,  # looks again at every start: the file is not Bazel's
)
