"""Calling layers once on random inputs."""

import contextlib

import keras
import numpy as np

from keras_tesla.graph.calls import Tensor
from keras_tesla.scope import noted_reads


def with_tensors(structure, fill):
    """Returns a structure with `fill(tensor)` in place of each `Tensor`."""
    return keras.tree.map_structure(lambda x: fill(x) if isinstance(x, Tensor) else x, structure)


def symbol(tensor):
    """Returns a KerasTensor of the shape and dtype of a `Tensor`."""
    return keras.KerasTensor(tensor.shape, tensor.dtype)


def random_value(tensor):
    """Returns an array for a `Tensor`, always the same.

    Where its shape is unknown there are two examples, and other dimensions are 8.
    """
    shape = [size or (8 if axis else 2) for axis, size in enumerate(tensor.shape)]
    values = np.random.default_rng(tensor.index).normal(size=shape)
    if not keras.backend.is_float_dtype(tensor.dtype):
        values = np.abs(values)  # places in a table
    return keras.ops.cast(values, tensor.dtype)


def reads_percentage(call) -> bool:
    """Whether a layer asks for the percentage in force, as far as a call on random inputs tells."""
    with noted_reads() as reads, keras.StatelessScope(), contextlib.suppress(Exception):
        call.operation(
            *with_tensors(call.args, random_value), **with_tensors(call.kwargs, random_value)
        )
    return bool(reads)


def arrays(results) -> list[np.ndarray]:
    """Returns the arrays of a structure of tensors, flat."""
    return [np.array(keras.ops.convert_to_numpy(x)) for x in keras.tree.flatten(results)]


def equal(first, second) -> bool:
    """Whether two lists of arrays are equal but for rounding."""
    # One function on equal weights: float32 sums may be made in another order.
    return len(first) == len(second) and all(
        a.shape == b.shape and np.allclose(a, b, rtol=1e-4, atol=1e-5, equal_nan=True)
        for a, b in zip(first, second, strict=True)
    )
