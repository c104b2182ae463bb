"""Lines for the user, where Keras' own go."""

import sys

import keras
from absl import logging


def show(text: str):
    """Prints a text, or logs it after `keras.config.disable_interactive_logging()`."""
    if keras.config.is_interactive_logging_enabled():
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    else:
        logging.info(text)
