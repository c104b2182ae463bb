"""Writes one HTML page on what the benchmark measured, with several files side by side.

keras-tesla report laptop.json phone.json --output=out/report.html
"""

import pathlib

from absl import flags

from keras_tesla_cli import outputs, tool

FLAGS = flags.FlagValues()
flags.DEFINE_string("output", None, "The HTML page to be written.", FLAGS, required=True)
flags.DEFINE_bool("overwrite", False, "Whether to replace it.", FLAGS)


def main(paths):
    """Writes a page; see the flags."""
    if not paths:
        raise tool.UsageError("Name at least one JSON file that the benchmark wrote.")
    for path in map(pathlib.Path, paths):
        if path.is_dir() or path.name == "manifest.json":
            folder = path if path.is_dir() else path.parent
            raise tool.UsageError(
                f"{str(path)!r} is an export, which is measured first: "
                f"keras-tesla benchmark {folder} --json=benchmark.json"
            )
    outputs.check_file(FLAGS.output, FLAGS.overwrite)
    from keras_tesla.tflite.measure import report
    from keras_tesla.tflite.measure.benchmark import Benchmark

    benchmarks = [Benchmark.load(path) for path in paths]
    print("wrote", report.write(benchmarks, FLAGS.output, FLAGS.overwrite))
