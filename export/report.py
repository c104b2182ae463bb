"""Writes one HTML page on what benchmark_tflite.py measured.

`python export/report.py` is `keras-tesla report`, with the same flags; `--help` lists them.
"""

import sys

from keras_tesla_cli import report, tool

if __name__ == "__main__":
    tool.run(report, ["report.py", *sys.argv[1:]])
