"""Writes one HTML page on what the benchmark measured, with several files side by side.

keras-tesla report laptop.json phone.json --output=out/report.html
"""

from absl import flags

from keras_tesla.cli import tool
from keras_tesla.tflite.measure import report
from keras_tesla.tflite.measure.benchmark import Benchmark

FLAGS = flags.FlagValues()
flags.DEFINE_string("output", None, "The HTML page to be written.", FLAGS, required=True)
flags.DEFINE_bool("overwrite", False, "Whether to replace it.", FLAGS)


def main(paths):
    """Writes a page; see the flags."""
    if not paths:
        raise tool.UsageError("Name at least one JSON file that the benchmark wrote.")
    benchmarks = [Benchmark.load(path) for path in paths]
    print("wrote", report.write(benchmarks, FLAGS.output, FLAGS.overwrite))
