"""Export to LiteRT (.tflite) files, and running them."""

from keras_tesla.tflite.bundle import Bundle, Entry, read
from keras_tesla.tflite.export import export
from keras_tesla.tflite.files.reading import FileError
from keras_tesla.tflite.governor import Governor
from keras_tesla.tflite.load import Model, load
from keras_tesla.tflite.measure.benchmark import Benchmark, benchmark
from keras_tesla.tflite.measure.child import MeasurementError
from keras_tesla.tflite.verify import VerificationError

__all__ = [
    "Benchmark",
    "Bundle",
    "Entry",
    "FileError",
    "Governor",
    "MeasurementError",
    "Model",
    "VerificationError",
    "benchmark",
    "export",
    "load",
    "read",
]
