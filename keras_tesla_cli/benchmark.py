"""Measures exported files on this machine: latency, load time, memory, bytes of every percentage.

keras-tesla benchmark out/tflite --json=out/benchmark.json --report=out/report.html

Takes one or several .tflite files or folders of an export and measures them interleaved.
"""

from absl import flags

from keras_tesla_cli import lists, outputs, progress, tool

FLAGS = flags.FlagValues()
flags.DEFINE_integer(
    "runs", 50, "Timed calls of each percentage in each round.", flag_values=FLAGS, lower_bound=1
)
flags.DEFINE_integer(
    "warmup", 10, "Calls before them that are not timed.", flag_values=FLAGS, lower_bound=0
)
flags.DEFINE_integer(
    "rounds", 4, "How often each percentage is opened again.", flag_values=FLAGS, lower_bound=1
)
flags.DEFINE_integer("threads", 1, "CPU threads.", flag_values=FLAGS, lower_bound=1)
flags.DEFINE_list("percentages", None, "Those to measure; default: all.", flag_values=FLAGS)
flags.DEFINE_enum(
    "delegate", "xnnpack", ["xnnpack", "none"], "What runs the operations.", flag_values=FLAGS
)
flags.DEFINE_bool(
    "standalone",
    False,
    "Whether to measure each percentage as a standalone file.",
    flag_values=FLAGS,
)
flags.DEFINE_float(
    "timeout", 300, "Seconds that one process may take.", flag_values=FLAGS, lower_bound=0.001
)
flags.DEFINE_string("json", None, "The file to write the result to.", flag_values=FLAGS)
flags.DEFINE_string("report", None, "The HTML page to write.", flag_values=FLAGS)
flags.DEFINE_bool("overwrite", False, "Whether to replace these files.", flag_values=FLAGS)


def main(paths):
    """Measures exported files; see the flags."""
    if not paths:
        raise tool.UsageError("Name at least one .tflite file or folder of an export.")
    for path in filter(None, (FLAGS.json, FLAGS.report)):
        outputs.check_file(path, FLAGS.overwrite)  # before the work, not after it
    percentages = lists.percentages(FLAGS.percentages)
    from keras_tesla.tflite.measure.benchmark import benchmark

    measured = benchmark(
        paths,
        percentages=percentages,
        runs=FLAGS.runs,
        warmup=FLAGS.warmup,
        rounds=FLAGS.rounds,
        threads=FLAGS.threads,
        delegate=FLAGS.delegate,
        standalone=FLAGS.standalone,
        timeout=FLAGS.timeout,
        progress=progress.say,
    )
    progress.clear()
    print(measured.table(), end="")
    for write, path in ((measured.save, FLAGS.json), (measured.report, FLAGS.report)):
        if path:
            print("wrote", write(path, FLAGS.overwrite))
