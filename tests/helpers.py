"""What several test files need: arrays, losses, weights, and scripts run as a user runs them."""

import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[1]
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
# `jit_compile` for callbacks that change the active percentages: each set is compiled again, which
# takes XLA seconds on TensorFlow.
JIT = False if keras.backend.backend() == "tensorflow" else "auto"

to_numpy = keras.ops.convert_to_numpy


def nightly_after(count, values):
    """Parameters of which a push has the first `count`; a tuple is the values of several names."""
    several = [value if isinstance(value, tuple) else (value,) for value in values]
    return [
        pytest.param(*value, marks=[] if i < count else pytest.mark.nightly)
        for i, value in enumerate(several)
    ]


def normal(*shape, seed=0):
    """Standard normal float32 numbers."""
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def examples(count=96, shape=(6,), classes=3, seed=0):
    """Examples (x, y) that a small network can learn: the class is the largest leading number."""
    x = normal(count, *shape, seed=seed)
    return x, x.reshape(count, -1)[:, :classes].argmax(-1)


def randomize(model, rng=None):
    """The model, each weight at a value that is not its initial one, scales and variances positive.

    A weight that was forgotten, or two that were confused, then change the outputs.
    """
    rng = rng or np.random.default_rng(0)
    for variable in model.variables:
        if variable.name == "gamma" or "variance" in variable.name:
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
        elif keras.backend.is_float_dtype(variable.dtype):  # not the state of a seed generator
            variable.assign(rng.normal(size=variable.shape) * 0.5)
    return model


def run_script(*arguments, code=0, cwd=ROOT):
    """Runs Python with these arguments in a process of its own.

    Returns what it prints to stdout, or to stderr where it is expected to fail.
    """
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=cwd,
    )
    assert done.returncode == code, done.stderr[-2000:]
    return done.stderr if code else done.stdout
