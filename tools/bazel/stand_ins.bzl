"""Small repositories in place of three that Bazel 4 would download for any `py_test`.

Its own BUILD files load them, but no test in Python runs anything that is in them.
"""

def _stand_in_impl(ctx):
    ctx.file("BUILD.bazel", "".join([
        "filegroup(name = '{}', visibility = ['//visibility:public'])\n".format(name)
        for name in ctx.attr.filegroups
    ]))
    if ctx.attr.rules:
        ctx.file(ctx.attr.package + "/BUILD.bazel")
        ctx.file(ctx.attr.package + "/defs.bzl", "".join([
            "{0} = native.{0}\n".format(name)
            for name in ctx.attr.rules
        ]))

_stand_in = repository_rule(
    implementation = _stand_in_impl,
    attrs = {
        "filegroups": attr.string_list(doc = "Empty targets."),
        "package": attr.string(doc = "The folder of defs.bzl."),
        "rules": attr.string_list(doc = "What defs.bzl gives: Bazel's own rules of these names."),
    },
)

def stand_ins():
    """Call it before anything else in WORKSPACE: Bazel adds only repositories that are missing."""
    _stand_in(
        name = "rules_cc",
        package = "cc",
        rules = ["cc_binary", "cc_library", "cc_test", "cc_toolchain", "cc_toolchain_suite"],
    )
    _stand_in(
        name = "rules_java",
        package = "java",
        rules = ["java_import", "java_runtime", "java_toolchain"],
    )
    _stand_in(
        name = "remote_coverage_tools",
        filegroups = ["coverage_report_generator", "lcov_merger"],
    )
