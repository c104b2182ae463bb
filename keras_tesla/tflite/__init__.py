"""Export to LiteRT (.tflite) files."""

from keras_tesla.tflite.bundle import Bundle, Entry, read
from keras_tesla.tflite.export import export
from keras_tesla.tflite.verify import VerificationError

__all__ = ["Bundle", "Entry", "VerificationError", "export", "read"]
