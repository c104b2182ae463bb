"""Measures exported files on this machine: latency, load time, memory, bytes of every percentage.

python export/benchmark_tflite.py out/tflite --json=out/benchmark.json --report=out/report.html

Takes one or several .tflite files or folders of an export; they are measured by turns.
"""

import sys

from absl import app, flags, logging

from keras_tesla.tflite.measure import textfile
from keras_tesla.tflite.measure.benchmark import benchmark
from keras_tesla.tflite.measure.child import MeasurementError

FLAGS = flags.FLAGS
flags.DEFINE_integer("runs", 50, "Timed calls of each percentage in each round.", lower_bound=1)
flags.DEFINE_integer("warmup", 10, "Calls before them that are not timed.", lower_bound=0)
flags.DEFINE_integer("rounds", 4, "How often each percentage is opened anew.", lower_bound=1)
flags.DEFINE_integer("threads", 1, "CPU threads.", lower_bound=1)
flags.DEFINE_list("percentages", None, "Those to measure; default: all.")
flags.DEFINE_enum("delegate", "xnnpack", ["xnnpack", "none"], "What runs the operations.")
flags.DEFINE_bool("alone", False, "Whether to measure each percentage taken out of its file.")
flags.DEFINE_float("timeout", 300, "Seconds that one process may take.", lower_bound=0.001)
flags.DEFINE_string("json", None, "The file to write the result to.")
flags.DEFINE_string("report", None, "The HTML page to write.")
flags.DEFINE_bool("overwrite", False, "Whether to replace these files.")


def main(argv):
    if len(argv) < 2:
        raise app.UsageError("Name at least one .tflite file or folder of an export.")
    try:
        for path in filter(None, (FLAGS.json, FLAGS.report)):
            textfile.check(path, FLAGS.overwrite)  # before the work, not after it
        measured = benchmark(
            argv[1:],
            percentages=FLAGS.percentages and [_integer(p) for p in FLAGS.percentages],
            runs=FLAGS.runs,
            warmup=FLAGS.warmup,
            rounds=FLAGS.rounds,
            threads=FLAGS.threads,
            delegate=FLAGS.delegate,
            alone=FLAGS.alone,
            timeout=FLAGS.timeout,
        )
        print(measured.table(), end="")
        for write, path in ((measured.save, FLAGS.json), (measured.report, FLAGS.report)):
            if path:
                print("wrote", write(path, FLAGS.overwrite))
    except (OSError, ValueError, MeasurementError) as error:
        sys.exit(f"benchmark_tflite.py: {error}")


def _integer(text):
    try:
        return int(text)
    except ValueError:
        raise app.UsageError(f"--percentages takes integers. Received: {text!r}") from None


if __name__ == "__main__":
    logging.set_verbosity(logging.WARNING)
    app.run(main)
