"""Measures exported files on this machine.

`python export/benchmark_tflite.py` is `keras-tesla benchmark`, with the same flags; `--help` lists
them.
"""

import sys

from keras_tesla_cli import benchmark, tool

if __name__ == "__main__":
    tool.run(benchmark, ["benchmark_tflite.py", *sys.argv[1:]])
