"""Exports a saved TESLA model to verified .tflite files.

`python export/export_tflite.py` is `keras-tesla export`, with the same flags; `--help` lists them.
"""

import sys

from keras_tesla_cli import export, tool

if __name__ == "__main__":
    tool.run(export, ["export_tflite.py", *sys.argv[1:]])
