"""Data that come in batches: what of a stream are the inputs of a network."""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import keras


def opened(given):
    """Returns what a function of no arguments returns, other data as they are."""
    return given() if callable(given) and not isinstance(given, type) else given


def batches(given) -> Iterator | None:
    """Returns the batches of a stream; None of data that are no stream, such as an array.

    Args:
        given: A `tf.data.Dataset`, a `keras.utils.PyDataset`, a torch `DataLoader`, or an iterator
            such as a generator.
    """
    if isinstance(given, keras.utils.PyDataset):
        data: Any = given
        count = data.num_batches
        return (data[place] for place in (itertools.count() if count is None else range(count)))
    if isinstance(given, Iterator):
        return given
    whole = isinstance(given, (Mapping, list, tuple, str, bytes)) or hasattr(given, "__array__")
    if whole or not isinstance(given, Iterable):
        return None
    # A DataLoader makes lists of tuples.
    return (tuple(batch) if isinstance(batch, list) else batch for batch in given)


def inputs_of(batch, count: int):
    """Returns the inputs among what a batch holds: an array, or a structure of them.

    Args:
        batch: The inputs themselves, as an array, a list or a dict; or a tuple that begins with
            them, `(inputs, targets)`. With several inputs a tuple of as many arrays holds them.
        count: Int, the network's number of inputs.
    """
    if isinstance(batch, tuple):
        together = count > 1 and len(batch) == count
        structured = isinstance(batch[0], (dict, list, tuple))
        batch = list(batch) if together and not structured else batch[0]
    return batch
