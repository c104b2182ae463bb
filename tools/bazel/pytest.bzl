"""The rule of this repository's tests."""

def pytest_test(name, srcs = [], args = [], data = [], size = "large", **kwargs):
    """A `py_test` that runs files under pytest, with the settings of pyproject.toml.

    It fails if no test of them runs. `--test_filter=X` is pytest's `-k X`.

    Args:
      name: Name of the target.
      srcs: The test files.
      args: Arguments for pytest, besides the test files.
      data: Files that the tests read or run.
      size: Bazel's size. A shared machine is now and then slow, hence 15 minutes.
      **kwargs: Other arguments of `py_test`.
    """
    native.py_test(
        name = name,
        size = size,
        srcs = srcs + ["//tools/bazel:pytest_main.py"],
        main = "//tools/bazel:pytest_main.py",
        args = args + ["$(location {})".format(src) for src in srcs],
        data = data + ["//:pytest_settings"],
        python_version = "PY3",
        **kwargs
    )
