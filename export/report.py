"""Writes one HTML page on what benchmark_tflite.py measured: several files are set side by side.

python export/report.py laptop.json phone.json --output=out/report.html
"""

import sys

from absl import app, flags, logging

from keras_tesla.tflite.measure import report
from keras_tesla.tflite.measure.benchmark import Benchmark

FLAGS = flags.FLAGS
flags.DEFINE_string("output", None, "The HTML page to be written.", required=True)
flags.DEFINE_bool("overwrite", False, "Whether to replace it.")


def main(argv):
    if len(argv) < 2:
        raise app.UsageError("Name at least one JSON file that benchmark_tflite.py wrote.")
    try:
        benchmarks = [Benchmark.load(path) for path in argv[1:]]
        print("wrote", report.write(benchmarks, FLAGS.output, FLAGS.overwrite))
    except (OSError, ValueError) as error:
        sys.exit(f"report.py: {error}")


if __name__ == "__main__":
    logging.set_verbosity(logging.WARNING)
    app.run(main)
